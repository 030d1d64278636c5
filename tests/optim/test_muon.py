from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from optimizer_cases import accumulate, network
from torch.nn import Parameter

from fairway.base.errors import RecipeError
from fairway.config import MuonConfig, OptimConfig
from fairway.config.training import POLAR_EXPRESS_STEPS
from fairway.optim.banked_muon import BankedMuon
from fairway.optim.muon import Muon, muon_update, orthogonalization_cost, share_by_cost
from fairway.optim.newton_schulz import COEFFICIENTS
from fairway.optim.optimizer import build

FOLDER = Path(__file__).parents[1] / "golden" / "optim"
LAYOUTS = [Muon, BankedMuon]
POLYNOMIALS = {"2140": "polar_express"}
"""Systems that do not use the quintic."""
Arrays = dict[str, np.ndarray]


@cache
def golden(pr: str) -> Arrays:
    """Steps of one system from given gradients. #1413 is whole; of the others two steps and the first slots are stored, of
    #2140 without the bank of down projections."""
    with np.load(FOLDER / f"muon_{pr}.npz") as stored:
        return dict(stored)


def matrices_of(array: np.ndarray, convert=torch.Tensor.float) -> list[torch.Tensor]:
    """The matrix, or the matrices of a bank."""
    return [convert(matrix).clone() for matrix in torch.from_numpy(array.reshape(-1, *array.shape[-2:]))]


def golden_run(pr: str, kind: type[Muon], convert=torch.Tensor.float, dtype=torch.float32) -> tuple[dict[str, list], Muon]:
    """The golden matrices by name after all steps of one optimizer, and that optimizer."""
    data = golden(pr)
    names = [key.removesuffix(".param0") for key in data if key.endswith(".param0")]
    weights = {name: [Parameter(matrix) for matrix in matrices_of(data[f"{name}.param0"], convert)] for name in names}
    everything = [weight for members in weights.values() for weight in members]
    decay, steps = float(data["weight_decay"]), int(data["ns_steps"])
    coefficients = COEFFICIENTS[POLYNOMIALS.get(pr, "quintic")]
    muon = kind(
        everything, learning_rate=1.0, momentum=0.0, weight_decay=decay, steps=steps, coefficients=coefficients, dtype=dtype
    )
    for step, (rate, coefficient) in enumerate(zip(data["lr"], data["momentum_coefficient"], strict=True)):
        muon.zero_grad()
        for name, members in weights.items():
            for weight, gradient in zip(members, matrices_of(data[f"{name}.grad"][step], convert), strict=True):
                accumulate(weight, gradient)
        muon.param_groups[0].update(lr=float(rate), momentum=float(coefficient))
        muon.step()
    return weights, muon


@pytest.mark.parametrize("kind", LAYOUTS)
@pytest.mark.parametrize("pr", ["1413", "1533", "1557", "1776", "2140"])
def test_golden_steps_match_the_reference(pr, kind):
    weights, muon = golden_run(pr, kind)
    for name, members in weights.items():
        last = golden(pr)[f"{name}.param" if f"{name}.param" in golden(pr) else f"{name}.param_f64"]
        momenta = matrices_of(golden(pr)[f"{name}.momentum"][-1])
        for weight, expected, momentum in zip(members, matrices_of(last), momenta, strict=True):
            torch.testing.assert_close(weight.detach(), expected, rtol=0, atol=2e-6)
            torch.testing.assert_close(muon.state[weight]["momentum"], momentum, rtol=0, atol=1e-7)


@pytest.mark.parametrize("kind", LAYOUTS)
def test_five_steps_match_the_reference_in_float64(kind):
    weights, _ = golden_run("1413", kind, torch.Tensor.double, torch.float64)
    for name, (weight,) in weights.items():
        expected = torch.from_numpy(golden("1413")[f"{name}.param_f64"])
        torch.testing.assert_close(weight.detach(), expected, rtol=0, atol=1e-12)


def test_bfloat16_orthogonalization_ends_near_the_published_arithmetic():
    weights, _ = golden_run("1413", Muon, dtype=torch.bfloat16)
    for name, (weight,) in weights.items():
        start, published = (torch.from_numpy(golden("1413")[f"{name}.{key}"]) for key in ("param0", "param_bf16run"))
        moved = published - start
        assert (weight.detach() - published).norm() / moved.norm() < 0.08


@pytest.mark.parametrize("kind", LAYOUTS)
@pytest.mark.parametrize(
    ("polynomials", "expected"),
    [
        ("quintic", ([[0.977474, -0.005536], [0.013027, 0.981220]], [[0.968084, -0.019794], [-0.000592, 0.987705]])),
        ("polar_express", ([[0.976223, -0.009456], [0.011676, 0.977332]], [[0.962882, -0.027521], [-0.007286, 0.985095]])),
    ],
)
def test_two_worked_steps(kind, polynomials, expected):
    weight = Parameter(torch.eye(2, dtype=torch.float64))
    muon = kind(
        [weight], learning_rate=0.022, momentum=0.92, weight_decay=0.095, coefficients=COEFFICIENTS[polynomials],
        dtype=torch.float64,
    )  # fmt: skip
    gradients = ([[3.0, 4.0], [0.0, 1.0]], [[1.0, -1.0], [2.0, 0.0]])
    for step, (gradient, after) in enumerate(zip(gradients, expected, strict=True)):
        muon.param_groups[0]["momentum"] = 0.92 + (0.97 - 0.92) * step / 1500
        muon.zero_grad()
        accumulate(weight, torch.tensor(gradient, dtype=torch.float64))
        muon.step()
        torch.testing.assert_close(weight.detach(), torch.tensor(after, dtype=torch.float64), rtol=0, atol=1e-6)


@settings(deadline=None, max_examples=15)
@given(
    shapes=st.lists(st.sampled_from([(8, 8), (4, 8), (16, 4), (4, 16), (1, 5)]), min_size=1, max_size=6),
    row_normalize=st.booleans(),
    polynomials=st.sampled_from(sorted(COEFFICIENTS)),
    seed=st.integers(0, 2**31),
)
def test_stacked_matrices_equal_one_at_a_time(shapes, row_normalize, polynomials, seed):
    generator = torch.Generator().manual_seed(seed)
    plain = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]
    momenta = [torch.zeros_like(weight) for weight in plain]
    weights = [Parameter(weight.clone()) for weight in plain]
    same = {"row_normalize": row_normalize, "coefficients": COEFFICIENTS[polynomials]}
    muon = Muon(weights, learning_rate=0.1, momentum=0.9, weight_decay=0.3, dtype=torch.float64, **same)
    for _ in range(3):
        gradients = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]
        for index, (weight, gradient) in enumerate(zip(weights, gradients, strict=True)):
            weight.grad = gradient.clone()
            plain[index], momenta[index] = muon_update(
                plain[index], gradient, momenta[index], rate=0.1, coefficient=0.9, decay=0.3, **same
            )
        muon.step()
        for weight, expected, gradient in zip(weights, plain, gradients, strict=True):
            torch.testing.assert_close(weight.detach(), expected, rtol=0, atol=1e-12)
            assert torch.equal(weight.grad, gradient)


def test_agrees_with_torch_without_row_normalization():
    generator = torch.Generator().manual_seed(1)
    start = torch.randn(24, 16, generator=generator)
    ours, theirs = Parameter(start.clone()), Parameter(start.clone())
    settings_ = {"momentum": 0.9, "weight_decay": 0.1}
    muon = Muon([ours], learning_rate=0.02, row_normalize=False, dtype=torch.bfloat16, **settings_)
    # torch averages the momentum, b <- m b + (1 - m) g; the orthogonalisation forgets that constant factor.
    reference = torch.optim.Muon([theirs], lr=0.02, nesterov=True, ns_steps=5, adjust_lr_fn="original", **settings_)
    for _ in range(3):
        gradient = torch.randn(24, 16, generator=generator)
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        muon.step()
        reference.step()
    moved = (theirs - start).norm()
    assert (ours - theirs).norm() / moved < 0.03
    assert moved > 0.1


@settings(deadline=None, max_examples=20)
@given(scales=st.lists(st.floats(0.01, 100), min_size=5, max_size=5), seed=st.integers(0, 2**31))
def test_the_scale_of_a_gradient_row_has_no_say(scales, seed):
    generator = torch.Generator().manual_seed(seed)
    start = torch.randn(5, 7, generator=generator, dtype=torch.float64)
    weights = [Parameter(start.clone()) for _ in range(2)]
    optimizers = [Muon([weight], learning_rate=0.1, momentum=0.9, weight_decay=0.0, dtype=torch.float64) for weight in weights]
    for _ in range(2):
        gradient = torch.randn(5, 7, generator=generator, dtype=torch.float64)
        weights[0].grad, weights[1].grad = gradient, gradient * torch.tensor(scales, dtype=torch.float64)[:, None]
        for muon in optimizers:
            muon.step()
    torch.testing.assert_close(weights[0], weights[1], rtol=0, atol=1e-6)


def test_a_rate_of_zero_moves_and_decays_nothing():
    weight = Parameter(torch.randn(4, 4, generator=torch.Generator().manual_seed(0)))
    before = weight.detach().clone()
    muon = Muon([weight], learning_rate=0.0, momentum=0.9, weight_decay=0.5)
    weight.grad = torch.ones(4, 4)
    muon.step()
    assert torch.equal(weight.detach(), before)


@settings(deadline=None, max_examples=50)
@given(costs=st.lists(st.integers(1, 1000), min_size=1, max_size=40), ranks=st.integers(1, 8))
def test_shares_cover_all_items_and_balance(costs, ranks):
    owner = share_by_cost(costs, ranks)
    load = [sum(cost for cost, rank in zip(costs, owner, strict=True) if rank == r) for r in range(ranks)]
    assert len(owner) == len(costs)
    assert max(load) <= sum(costs) / ranks + max(costs)


def test_full_size_matrices_are_shared_evenly_by_eight_ranks():
    shapes = [(512, 512), (256, 512), (256, 512), (512, 512), (2048, 512), (512, 2048)] * 11
    costs = [orthogonalization_cost(*shape) for shape in shapes]
    owner = share_by_cost(costs, 8)
    load = [sum(cost for cost, rank in zip(costs, owner, strict=True) if rank == r) for r in range(8)]
    assert max(load) < 1.06 * sum(costs) / 8


def test_a_single_triple_serves_every_step_and_polar_express_has_five():
    assert {name: len(triples) for name, triples in COEFFICIENTS.items()} == {
        "quintic": 1,
        "polar_express": POLAR_EXPRESS_STEPS,
    }


def test_more_steps_than_polynomials_are_refused():
    MuonConfig(coefficients="polar_express", newton_schulz_steps=5)
    MuonConfig(coefficients="quintic", newton_schulz_steps=6)
    with pytest.raises(RecipeError, match="newton_schulz_steps=6 exceeds the 5 polynomials of polar_express; use 5 or fewer"):
        MuonConfig(coefficients="polar_express", newton_schulz_steps=6)


@pytest.mark.parametrize("layout", ["per_matrix", "banked"])
@pytest.mark.parametrize("polynomials", sorted(COEFFICIENTS))
def test_the_setting_reaches_the_optimizer(layout, polynomials):
    muon = build(network(), OptimConfig(matrices=MuonConfig(layout=layout, coefficients=polynomials))).muon
    assert muon.coefficients == COEFFICIENTS[polynomials]


def test_a_missing_gradient_is_our_own_mistake():
    muon = Muon([Parameter(torch.zeros(2, 2))], learning_rate=0.1, momentum=0.9, weight_decay=0.0)
    with pytest.raises(AssertionError, match="gradient"):
        muon.step()

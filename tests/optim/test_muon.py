from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import Parameter

from fairway.optim.muon import Muon, muon_update, orthogonalization_cost, share_by_cost
from fairway.optim.newton_schulz import COEFFICIENTS

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "optim" / "muon_1413.npz")
NAMES = ("q", "k", "up", "down")
DECAY = float(GOLDEN["weight_decay"])


def golden_run(convert=lambda tensor: tensor, dtype=torch.float32):
    """The four golden matrices after each of the five steps of one optimizer."""
    weights = {name: Parameter(convert(torch.from_numpy(GOLDEN[f"{name}.param0"]))) for name in NAMES}
    muon = Muon(weights.values(), learning_rate=1.0, momentum=0.0, weight_decay=DECAY, steps=5, dtype=dtype)
    for step in range(5):
        for name, weight in weights.items():
            weight.grad = convert(torch.from_numpy(GOLDEN[f"{name}.grad"][step]))
        muon.param_groups[0].update(lr=float(GOLDEN["lr"][step]), momentum=float(GOLDEN["momentum_coefficient"][step]))
        muon.step()
        yield step, weights, muon


def test_five_steps_match_the_reference():
    for step, weights, muon in golden_run():
        for name, weight in weights.items():
            expected = torch.from_numpy(GOLDEN[f"{name}.param"][step])
            torch.testing.assert_close(weight.detach(), expected, rtol=0, atol=2e-6)
            momentum = torch.from_numpy(GOLDEN[f"{name}.momentum"][step])
            torch.testing.assert_close(muon.state[weight]["momentum"], momentum, rtol=0, atol=1e-7)


def test_five_steps_match_the_reference_in_float64():
    *_, (_, weights, _) = golden_run(torch.Tensor.double, torch.float64)
    for name, weight in weights.items():
        torch.testing.assert_close(weight.detach(), torch.from_numpy(GOLDEN[f"{name}.param_f64"]), rtol=0, atol=1e-12)


def test_bfloat16_orthogonalization_ends_near_the_published_arithmetic():
    *_, (_, weights, _) = golden_run(dtype=torch.bfloat16)
    for name, weight in weights.items():
        start, published = torch.from_numpy(GOLDEN[f"{name}.param0"]), torch.from_numpy(GOLDEN[f"{name}.param_bf16run"])
        moved = published - start
        assert (weight.detach() - published).norm() / moved.norm() < 0.08


def test_two_worked_steps():
    weight = Parameter(torch.eye(2, dtype=torch.float64))
    muon = Muon([weight], learning_rate=0.022, momentum=0.92, weight_decay=0.095, dtype=torch.float64)
    expected = ([[0.977474, -0.005536], [0.013027, 0.981220]], [[0.968084, -0.019794], [-0.000592, 0.987705]])
    gradients = ([[3.0, 4.0], [0.0, 1.0]], [[1.0, -1.0], [2.0, 0.0]])
    for step, (gradient, after) in enumerate(zip(gradients, expected, strict=True)):
        muon.param_groups[0]["momentum"] = 0.92 + (0.97 - 0.92) * step / 1500
        weight.grad = torch.tensor(gradient, dtype=torch.float64)
        muon.step()
        torch.testing.assert_close(weight.detach(), torch.tensor(after, dtype=torch.float64), rtol=0, atol=1e-6)


@settings(deadline=None, max_examples=15)
@given(
    shapes=st.lists(st.sampled_from([(8, 8), (4, 8), (16, 4), (4, 16), (1, 5)]), min_size=1, max_size=6),
    row_normalize=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_stacked_matrices_equal_one_at_a_time(shapes, row_normalize, seed):
    generator = torch.Generator().manual_seed(seed)
    plain = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]
    momenta = [torch.zeros_like(weight) for weight in plain]
    weights = [Parameter(weight.clone()) for weight in plain]
    muon = Muon(weights, learning_rate=0.1, momentum=0.9, weight_decay=0.3, row_normalize=row_normalize, dtype=torch.float64)
    for _ in range(3):
        gradients = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]
        for index, (weight, gradient) in enumerate(zip(weights, gradients, strict=True)):
            weight.grad = gradient.clone()
            plain[index], momenta[index] = muon_update(
                plain[index], gradient, momenta[index], rate=0.1, coefficient=0.9, decay=0.3, row_normalize=row_normalize
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


def test_a_single_triple_serves_every_step():
    assert len(COEFFICIENTS["quintic"]) == 1


def test_a_missing_gradient_is_our_own_mistake():
    muon = Muon([Parameter(torch.zeros(2, 2))], learning_rate=0.1, momentum=0.9, weight_decay=0.0)
    with pytest.raises(AssertionError, match="gradient"):
        muon.step()

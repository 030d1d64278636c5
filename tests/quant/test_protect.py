"""Protected columns: selection over the whole network, codes of two grids in one pass, and the published values."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from quant_samples import DAMPING, MATRICES, PARTS, calibrated, golden_matrix, small_hessians, small_state

from fairway.base.errors import ArtifactError, RecipeError
from fairway.config import ProtectionConfig, QuantConfig, SchemeConfig
from fairway.quant.clip import sdclip
from fairway.quant.gptq import factorize, gptq, gptq_plain
from fairway.quant.hessian import Hessians, collect_hessians
from fairway.quant.plan import make_plan
from fairway.quant.protect import choose_protected, group_scores, protect
from fairway.quant.quantize import dequantize, quantize_state
from fairway.quant.report import hessian_error
from fairway.quant.types import ProtectedColumns, QuantizedTensor
from toy_network import toy_network

CASES = ["awq", "awq2"]


def golden_case(case: str) -> tuple[torch.Tensor, torch.Tensor, SchemeConfig, ProtectionConfig, tuple[int, ...]]:
    bits, sigmas, size, high = PARTS[f"{case}.settings"].tolist()
    starts = tuple(PARTS[f"{case}.protected_starts"].tolist())
    config = ProtectionConfig(groups=len(starts), columns=int(size), bits=int(high))
    return *golden_matrix(str(PARTS[f"{case}.matrix"])), SchemeConfig(bits=int(bits), clip_sigmas=sigmas), config, starts


@pytest.mark.parametrize("case", CASES)
def test_codes_and_both_scales_equal_the_reference(case):
    weight, hessian, scheme, config, starts = golden_case(case)
    scales, factor = sdclip(weight, None, scheme), factorize(hessian, DAMPING)
    finer = protect(weight, None, scheme, config, starts)
    assert torch.equal(scales, torch.from_numpy(PARTS[f"{case}.scale"]))
    assert torch.equal(finer.scales, torch.from_numpy(PARTS[f"{case}.scale_hi"]))
    expected = torch.from_numpy(PARTS[f"{case}.codes"])
    assert torch.equal(gptq(weight, scales, factor, scheme.bits, protected=finer), expected)
    assert torch.equal(gptq_plain(weight, scales, hessian, scheme.bits, DAMPING, protected=finer), expected)
    tensor = QuantizedTensor(expected, scales, scheme.bits, finer)
    loss = hessian_error(weight - tensor.dequantize(), hessian)
    assert loss == pytest.approx(float(PARTS[f"{case}.proxy_loss"]), rel=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_activations_and_scores_equal_the_reference(case):
    weight, hessian, _, config, _ = golden_case(case)
    inputs = MATRICES[f"{PARTS[f'{case}.matrix']}.inputs_x16"]
    rms = Hessians({"w": hessian}, {"w": float(inputs.shape[1])}).activation_rms("w")
    torch.testing.assert_close(rms, torch.from_numpy(PARTS[f"{case}.act_rms"]), rtol=1e-5, atol=0)
    scores = group_scores(weight, rms, config.columns)
    assert (np.arange(len(scores)) * config.columns).tolist() == PARTS[f"{case}.group_starts_all"].tolist()
    assert scores.tolist() == pytest.approx(PARTS[f"{case}.group_scores"].tolist(), rel=1e-5)


def test_the_worked_example_of_the_specification():
    hessian = torch.tensor([[4, 1, 0.5, 0], [1, 2, 0, 0], [0.5, 0, 1, 0], [0, 0, 0, 0]])
    weight = torch.tensor([[0.9, -0.4, 0.25, 0.1], [-0.3, 0.8, 0.55, -0.65]])
    scheme = SchemeConfig(bits=4, clip_sigmas=3.0)
    finer = protect(weight, None, scheme, ProtectionConfig(groups=1, columns=2, bits=5), (0,))
    assert finer.scales.tolist() == pytest.approx([0.107178, 0.137329], abs=1e-6)
    codes = gptq(weight, sdclip(weight, None, scheme), factorize(hessian, DAMPING), 4, protected=finer)
    assert codes.tolist() == [[8, -4, 1, 0], [-2, 6, 2, 0]]


@settings(deadline=None, max_examples=25)
@given(case=calibrated(), seed=st.integers(0, 2**31), size=st.integers(1, 5))
def test_two_grids_in_one_pass_equal_the_plain_meaning(case, seed, size):
    weight, hessian = case
    groups = weight.shape[1] // size
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(groups, generator=generator)[: max(1, groups // 2)] * size
    scheme = SchemeConfig(bits=4, clip_sigmas=3.0)
    finer = protect(weight, None, scheme, ProtectionConfig(columns=size), tuple(sorted(chosen.tolist())))
    scales, factor = sdclip(weight, None, scheme), factorize(hessian, DAMPING)
    codes = gptq(weight, scales, factor, 4, block=7, protected=finer)
    tensor = QuantizedTensor(codes, scales, 4, finer)
    plain = QuantizedTensor(gptq_plain(weight, scales, hessian, 4, DAMPING, protected=finer), scales, 4, finer)
    # A tie that float32 breaks otherwise moves the columns after it: then the objective is what must agree.
    found, meant = (hessian_error(weight - part.dequantize(), hessian) for part in (tensor, plain))
    assert torch.equal(codes, plain.codes) or found == pytest.approx(meant, rel=0.05)
    same = ProtectedColumns(finer.starts, size, 4, scales)
    assert torch.equal(gptq(weight, scales, factor, 4, protected=same), gptq(weight, scales, factor, 4))


def selection(groups: int, columns: int = 8) -> QuantConfig:
    return QuantConfig(protection=ProtectionConfig(groups=groups, columns=columns))


def test_the_best_groups_of_the_whole_network_are_chosen():
    state = small_state()
    hessians = Hessians(small_hessians(state), dict.fromkeys(state, 200.0))
    scores = {
        (name, start * 8): float(score)
        for name, hessian in hessians.items()
        if name != "embedding.weight"
        for start, score in enumerate(group_scores(state[name], (hessian.diagonal() / 200).sqrt(), 8))
    }
    for count in (1, 3, len(scores)):
        chosen = choose_protected(state, make_plan(state, selection(count)), hessians)
        flat = {(name, start) for name, starts in chosen.items() for start in starts}
        assert flat == set(sorted(scores, key=scores.get)[-count:])
        assert all(list(starts) == sorted(starts) for starts in chosen.values())
    with pytest.raises(RecipeError, match=f"groups={count + 1} of 8 columns, but the network has {count} such groups"):
        choose_protected(state, make_plan(state, selection(count + 1)), hessians)
    # The embedding's 8 bits are not fewer than those of a protected code; 7 are.
    seven = replace(selection(1), embedding=SchemeConfig(bits=7, clip_sigmas=14.0))
    wide = state | {"embedding.weight": state["embedding.weight"] * 100}
    assert choose_protected(wide, make_plan(wide, seven), hessians).keys() == {"embedding.weight"}
    assert "embedding.weight" not in choose_protected(wide, make_plan(wide, selection(1)), hessians)


def test_scores_count_an_activation_not_how_often_a_layer_is_visited():
    state = small_state()
    hessians = Hessians(small_hessians(state), dict.fromkeys(state, 200.0))
    plan = make_plan(state, selection(2))
    tripled = Hessians({n: h * 3 if "mlp" in n else h for n, h in hessians.items()}, hessians.positions)
    visited = Hessians(tripled, {n: 600.0 if "mlp" in n else 200.0 for n in hessians})
    chosen = choose_protected(state, plan, hessians)
    assert choose_protected(state, plan, visited) == chosen
    assert all("mlp" in name for name in choose_protected(state, plan, tripled))
    with pytest.raises(RecipeError, match="calibrate first"):
        choose_protected(state, plan, dict(hessians))


def test_a_calibration_gives_the_root_mean_square_of_every_input():
    model = toy_network(40, layers=3)
    batches = torch.randint(40, (2, 2, 12), generator=torch.Generator().manual_seed(5))
    seen = []
    handle = model.blocks[1].mlp.down.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].flatten(0, -2)))
    hessians = collect_hessians(model, batches)
    handle.remove()
    name = "blocks.1.mlp.down.weight"
    assert hessians.positions[name] * 2 == len(torch.cat(seen))
    torch.testing.assert_close(hessians.activation_rms(name), torch.cat(seen).square().mean(dim=0).sqrt(), rtol=1e-4, atol=1e-6)
    assert hessians.positions.keys() == hessians.keys()


def test_protected_columns_lower_the_error_and_the_report_counts_them():
    state = small_state()
    hessians = Hessians(small_hessians(state), dict.fromkeys(state, 200.0))
    plain = quantize_state(state, make_plan(state, QuantConfig()), hessians)
    finer = quantize_state(state, make_plan(state, selection(3)), hessians)
    for before, after in zip(plain.reports, finer.reports, strict=True):
        assert after.protected == 8 * len(finer.tensors[after.name].protected.starts) if after.protected else True
        assert (after.hessian_error or 0) <= (before.hessian_error or 0)
        assert (after == before) == (after.protected == 0)
    assert sum(report.protected for report in finer.reports) == 24
    back = dequantize(finer)
    for name, tensor in finer.tensors.items():
        if tensor.protected is not None:
            mask = tensor.protected.mask(state[name].shape[1])
            assert torch.equal(back[name][:, mask], tensor.codes[:, mask].float() * tensor.protected.scales.float()[:, None])
            assert torch.equal(back[name][:, ~mask], tensor.codes[:, ~mask].float() * tensor.scales.float()[:, None])


def grid(starts=(0,), size=2, bits=8, scales=(1.0, 1.0)) -> ProtectedColumns:
    return ProtectedColumns(starts, size, bits, torch.tensor(scales, dtype=torch.float16))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: grid(starts=()), "empty, overlap or fall"),
        (lambda: grid(starts=(2, 0)), "empty, overlap or fall"),
        (lambda: grid(starts=(0, 1)), "empty, overlap or fall"),
        (lambda: grid(starts=(-1,)), "empty, overlap or fall"),
        (lambda: grid(size=0), "empty, overlap or fall"),
        (lambda: grid(bits=9), "outside 2..8"),
        (lambda: grid(scales=(1.0, 0.0)), "not a positive finite"),
        (lambda: grid(scales=()), "filled float16 vector"),
        (lambda: tensor_with(grid(starts=(3,))), "beyond the 4 columns"),
        (lambda: tensor_with(grid(scales=(1.0,))), "1 protected row scales do not fit 2 rows"),
        (lambda: tensor_with(grid(), code=32), r"\[0, 32\], outside \[-31, 31\] of a grid of 6 bits"),
        (lambda: tensor_with(grid(bits=7), code=64, at=0), r"outside \[-63, 63\] of a grid of 7 bits"),
    ],
)
def test_impossible_protections_are_refused(make, message):
    with pytest.raises(ArtifactError, match=message):
        make()


def tensor_with(protected: ProtectedColumns, code: int = 0, at: int = 3) -> QuantizedTensor:
    codes = torch.zeros(2, 4, dtype=torch.int8)
    codes[1, at] = code
    return QuantizedTensor(codes, torch.ones(2, dtype=torch.float16), 6, protected)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (lambda: QuantConfig(protection=ProtectionConfig(groups=-1)), "groups=-1 is negative"),
        (lambda: ProtectionConfig(columns=0), "columns=0 must be"),
        (lambda: ProtectionConfig(bits=2), "outside 3..8"),
        (
            lambda: QuantConfig(protection=ProtectionConfig(groups=1, bits=6)),
            "finds no class with method=gptq and fewer than 6",
        ),
    ],
)
def test_impossible_settings_are_refused(config, message):
    with pytest.raises(RecipeError, match=message):
        config()

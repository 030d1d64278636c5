"""Sizes that are filled, bytes that are shared out by one multiplier, and extras that must be worth their bits."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from quant_samples import DAMPING, correlated, small_hessians, small_state

from fairway.base.errors import BudgetError, RecipeError
from fairway.config import ProtectionConfig, QuantConfig, RepairConfig, SchemeConfig
from fairway.quant.allocate import ATTEMPTS, TOLERANCE, fit_bytes
from fairway.quant.gptq import damped, factorize
from fairway.quant.hessian import Hessians
from fairway.quant.matrix import Calibrated, quantize_matrix, step_share
from fairway.quant.plan import make_plan
from fairway.quant.protect import choose_protected
from fairway.quant.quantize import Quantizer, quantize_state
from fairway.quant.report import FLOAT_BITS, code_entropy, hessian_error, repair_bits, tensor_report
from fairway.quant.sensitivity import Sensitivities
from fairway.quant.types import QuantizedState
from fairway.quant.worth import is_worth, price_of_a_bit, weighted_error

TRELLIS = SchemeConfig(states=8, centroids=True, scale_grid=8)
FINE = replace(TRELLIS, column_steps="conditional")


def all_of(scheme: SchemeConfig, **others) -> QuantConfig:
    return QuantConfig(attention=scheme, mlp=scheme, embedding=scheme, **others)


def wide_state(seed: int = 0) -> tuple[dict[str, torch.Tensor], Hessians]:
    """The small network with matrices large enough that the codes are most of its bytes, with gradients."""
    state = small_state(seed)
    generator = torch.Generator().manual_seed(seed + 1)
    for name, weight in state.items():
        if weight.ndim == 2 and name.endswith(".weight") and name != "skips.weight":
            # Many rows: the time goes with the columns.
            rows, columns = weight.shape
            state[name] = torch.randn(16 * rows, 2 * columns, generator=generator) * float(
                torch.rand((), generator=generator) + 0.5
            )
    moments = {}
    for name in small_hessians(state):
        inputs = torch.randn(1000, state[name].shape[1], generator=generator)
        inputs += inputs.roll(1, dims=1) + inputs.roll(7, dims=1)
        moments[name] = inputs.T @ inputs
    outputs = {name: torch.rand(len(state[name]), generator=generator) * 10.0 ** (len(name) % 4) for name in moments}
    lookups = torch.rand(len(state["embedding.weight"]), generator=generator)
    return state, Hessians(moments, dict.fromkeys(moments, 200.0), Sensitivities(outputs, lookups))


def estimated(state: QuantizedState) -> int:
    """Bytes by the entropy of the codes and two for every other number."""
    codes = [(16 if report.entropy_bits is None else report.entropy_bits) * math.prod(report.shape) for report in state.reports]
    return math.ceil((sum(codes) + 16 * sum(len(tensor.scales) for tensor in state.tensors.values())) / 8)


@pytest.mark.parametrize("bits", [2.0, 3.5])
def test_a_target_is_filled_to_a_thousandth_from_below(bits):
    state, hessians = wide_state()
    target = int(sum(weight.numel() for weight in state.values()) * bits / 8)
    quantizer = Quantizer(state, make_plan(state, all_of(FINE, target_bytes=target)), hessians)
    factors = []

    def quantize(factor: float) -> QuantizedState:
        factors.append(factor)
        return quantizer.quantize(factor)

    size = estimated(fit_bytes(quantize, estimated, target))
    assert target * (1 - TOLERANCE) <= size <= target
    assert len(factors) <= 6


@settings(deadline=None, max_examples=100)
@given(
    codes=st.integers(1000, 10**8),
    other=st.floats(0, 0.5),
    bits=st.floats(0.5, 6),
    curve=st.floats(0, 2),
    grain=st.floats(0, 2e-4),
)
def test_any_falling_curve_of_sizes_is_filled(codes, other, bits, curve, grain):
    def size(octaves: float) -> int:
        found = max(0.0, 4 - octaves + curve * math.exp(-(octaves**2))) * codes / 8 + other * codes
        step = max(1.0, grain * codes)
        return int(found // step * step)

    target = int((bits / 8 + other) * codes) + 100
    calls = []
    found = fit_bytes(lambda factor: calls.append(factor) or math.log2(factor), size, target)
    assert size(found) <= target
    assert size(found) >= target * (1 - TOLERANCE) - 2 * max(1.0, grain * codes) or len(calls) == ATTEMPTS
    assert len(calls) <= ATTEMPTS


def test_sizes_out_of_reach_are_refused_and_gaps_are_said(caplog):
    with pytest.raises(BudgetError, match=r"takes 5,000 bytes .* 1,000 above the target of 4,000; raise quant\.target_bytes"):
        fit_bytes(lambda factor: factor, lambda _: 5000, 4000)
    with caplog.at_level("WARNING", logger="fairway"):
        assert fit_bytes(lambda factor: factor, lambda factor: 3000 if factor > 0.5 else 5000, 4000) > 0.5
    assert "stay 1000 below the target" in caplog.text


def test_sizes_fall_with_the_factor():
    state, hessians = wide_state(3)
    quantizer = Quantizer(state, make_plan(state, all_of(FINE, target_bytes=1)), hessians)
    sizes = [estimated(quantizer.quantize(2.0**octaves)) for octaves in (-1.0, -0.1, 0.0, 0.1, 3.0)]
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) == len(sizes)


@pytest.mark.parametrize("scheme", [TRELLIS, FINE])
def test_shares_make_the_errors_of_all_matrices_equal_for_each_weight(scheme):
    state, hessians = wide_state()
    quantized = Quantizer(state, make_plan(state, all_of(scheme, target_bytes=1)), hessians).quantize(0.5)
    made = [report for report in quantized.reports if report.method == "gptq"]
    shares = torch.tensor([weighted_error(report) / math.prod(report.shape) for report in made])
    assert float(shares.max() / shares.min()) < 1.3
    plain = quantize_state(state, make_plan(state, all_of(scheme)), hessians)
    unequal = [weighted_error(report) / math.prod(report.shape) for report in plain.reports if report.method == "gptq"]
    assert max(unequal) / min(unequal) > 30


def test_no_other_share_of_the_bits_has_a_smaller_error():
    state, hessians = wide_state()
    quantizer = Quantizer(state, make_plan(state, all_of(replace(TRELLIS, scale_grid=0), target_bytes=1)), hessians)
    best = quantizer.quantize(0.5)
    names = ["blocks.0.mlp.up.weight", "blocks.0.mlp.down.weight"]
    shares = dict(quantizer.shares)
    for sign in (0.5, -0.5):
        # Equal numbers of weights: what one matrix gains in bits the other loses.
        quantizer.shares = shares | {names[0]: shares[names[0]] * 2**sign, names[1]: shares[names[1]] / 2**sign}
        other = quantizer.quantize(0.5)
        assert estimated(other) == pytest.approx(estimated(best), rel=2e-3)
        errors = [sum(map(weighted_error, found.reports)) for found in (best, other)]
        assert errors[1] > errors[0] * 1.005


def test_a_matrix_on_which_nothing_depends_keeps_its_steps():
    weight = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    silent = Calibrated(torch.eye(6), factorize(torch.eye(6), DAMPING), torch.zeros(4))
    assert float(step_share(weight, TRELLIS, silent)) == 1.0


def test_the_price_of_a_bit_is_what_finer_steps_pay():
    weight, hessian = correlated(256, 128, 0)
    known = Calibrated(hessian, factorize(hessian, DAMPING))
    errors, sizes = [], []
    for factor in (0.45, 0.55):
        tensor = quantize_matrix(weight, SchemeConfig(bits=8, clip_sigmas=50.0), known, factor)
        errors.append(hessian_error(weight - tensor.dequantize(), damped(hessian, DAMPING)[0]))
        sizes.append(code_entropy(tensor.codes) * weight.numel())
    report = tensor_report("up", "gptq", weight, tensor, known)
    price = price_of_a_bit([replace(report, hessian_error=math.sqrt(errors[0] * errors[1]))])
    assert price == pytest.approx((errors[1] - errors[0]) / (sizes[0] - sizes[1]), rel=0.03)
    assert price_of_a_bit([]) == 0.0


@pytest.mark.parametrize("scheme", [FINE, SchemeConfig(clip_sigmas=30.0)])
def test_repairs_are_kept_only_where_they_are_worth_their_bits(scheme):
    state, hessians = wide_state()
    repair = RepairConfig(tensors=7, rank=2)
    always = quantize_state(state, make_plan(state, all_of(scheme, repair=repair)), hessians)
    plain = quantize_state(state, make_plan(state, all_of(scheme)), hessians)
    kept = quantize_state(state, make_plan(state, all_of(scheme, repair=replace(repair, keep="worth"))), hessians)
    price = price_of_a_bit(plain.reports)
    before = {report.name: report for report in plain.reports}
    mended = [report for report in always.reports if report.repair_rank]
    assert mended
    wanted = set()
    for report in mended:
        extra = always.tensors[report.name].repair
        assert weighted_error(report) < weighted_error(before[report.name])
        if is_worth(before[report.name], report, repair_bits(extra), price):
            wanted.add(report.name)
    assert {name for name, tensor in kept.tensors.items() if tensor.repair} == wanted
    assert len(wanted) < len(mended)


def test_a_repair_that_takes_a_structured_error_is_worth_its_bits():
    state, hessians = wide_state()
    name = "blocks.0.mlp.up.weight"
    rows, columns = state[name].shape
    # A common offset of each row, clipped away by a grid that ends too early.
    state[name] = state[name] + 4 * torch.randn(rows, 1, generator=torch.Generator().manual_seed(0)).expand(-1, columns)
    config = all_of(SchemeConfig(bits=3, clip_sigmas=2.0), repair=RepairConfig(tensors=7, rank=1, keep="worth"))
    quantized = quantize_state(state, make_plan(state, config), hessians)
    assert quantized.tensors[name].repair is not None


@pytest.mark.parametrize("strength", [1.0, 60.0])
def test_protected_columns_are_kept_only_where_they_are_worth_their_bits(strength):
    state, hessians = wide_state()
    hessians.sensitivities = None
    for name in hessians:
        scale = torch.ones(len(hessians[name]))
        scale[:8] = strength
        hessians[name] = hessians[name] * scale * scale[:, None]
    protection = ProtectionConfig(groups=4, columns=8, keep="worth")
    scheme = SchemeConfig(clip_sigmas=20.0)
    plan = make_plan(state, all_of(scheme, protection=protection))
    chosen = choose_protected(state, plan, hessians)
    plain = quantize_state(state, make_plan(state, all_of(scheme)), hessians)
    always = quantize_state(state, make_plan(state, all_of(scheme, protection=replace(protection, keep="always"))), hessians)
    kept = quantize_state(state, plan, hessians)
    price = price_of_a_bit(plain.reports)
    wanted = set()
    for before, after in zip(plain.reports, always.reports, strict=True):
        if before.name in chosen:
            more = (after.entropy_bits - before.entropy_bits) * math.prod(before.shape) + FLOAT_BITS * before.shape[0]
            if is_worth(before, after, more, price):
                wanted.add(before.name)
    assert {name for name, tensor in kept.tensors.items() if tensor.protected} == wanted
    assert bool(wanted) == (strength > 1)


def test_a_plan_that_shares_bytes_needs_all_hessians():
    state, hessians = wide_state()
    del hessians["blocks.0.mlp.up.weight"]
    with pytest.raises(RecipeError, match=r"mlp\.up\.weight has no Hessian"):
        Quantizer(state, make_plan(state, all_of(TRELLIS, target_bytes=9)), hessians)


def test_without_gradients_all_outputs_count_the_same():
    state, hessians = wide_state()
    bare = Hessians(hessians, hessians.positions)
    shares = Quantizer(state, make_plan(state, all_of(FINE, target_bytes=1)), bare).shares
    assert shares != Quantizer(state, make_plan(state, all_of(FINE, target_bytes=1)), hessians).shares
    ones = Sensitivities({name: torch.ones(len(state[name])) for name in hessians}, torch.zeros(640))
    same = Quantizer(state, make_plan(state, all_of(FINE, target_bytes=1)), Hessians(bare, bare.positions, ones)).shares
    assert shares == pytest.approx(same)

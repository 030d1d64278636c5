"""Low-rank repair: the published packing exactly, and a Hessian form that always helps and depends on no sign."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from quant_samples import DAMPING, MATRICES, PARTS, calibrated, correlated, golden_matrix, small_hessians, small_state

from fairway.base.errors import ArtifactError, RecipeError
from fairway.config import QuantConfig, RepairConfig, SchemeConfig
from fairway.quant import repair as repair_module
from fairway.quant.clip import sdclip
from fairway.quant.gptq import damped, factorize, gptq
from fairway.quant.grid import round_to_codes
from fairway.quant.plan import make_plan
from fairway.quant.quantize import quantize_state
from fairway.quant.repair import pack_published, repair_published, repair_weighted, svd_factors, weighted_factors
from fairway.quant.report import hessian_error
from fairway.quant.types import LowRank, QuantizedTensor, ScaledCodes

CASES = sorted({key.split(".")[0] for key in PARTS.files if key.startswith("lqer")})


def golden_error(case: str) -> tuple[torch.Tensor, torch.Tensor]:
    """``E = W - codes * scales`` of the base result that the case repairs, and the Hessian."""
    matrix = case.split("_", 1)[1]
    weight, hessian = golden_matrix(matrix)
    base = f"{matrix}.{PARTS[f'{case}.base']}"
    codes, scales = (torch.from_numpy(MATRICES[f"{base}.{part}"]) for part in ("codes", "scale"))
    return weight - codes.float() * scales.float()[:, None], hessian


def stored(case: str, part: str) -> torch.Tensor:
    return torch.from_numpy(PARTS[f"{case}.{part}"])


@pytest.mark.parametrize("case", CASES)
def test_the_packer_equals_the_reference_for_its_factors(case):
    packed = pack_published(stored(case, "A"), stored(case, "B"))
    assert torch.equal(packed.left.codes, stored(case, "qA"))
    assert torch.equal(packed.right.codes, stored(case, "qB"))
    assert torch.equal(packed.left.scales, stored(case, "sA").reshape(-1))
    assert torch.equal(packed.right.scales, stored(case, "sB"))
    assert len(packed.left.scales) == (1 if str(PARTS[f"{case}.kind"]) == "asym" else len(packed.left.codes))
    error, hessian = golden_error(case)
    after = (error.double() - packed.product()).float()
    before_norm, after_norm = PARTS[f"{case}.norms"].tolist()
    assert float(error.norm()) == pytest.approx(before_norm, rel=1e-5)
    assert float(after.norm()) == pytest.approx(after_norm, rel=1e-5)
    assert hessian_error(after, hessian) == pytest.approx(float(PARTS[f"{case}.proxy_loss"]), rel=1e-4)


@pytest.mark.parametrize("case", CASES)
def test_the_plain_decomposition_equals_the_reference_up_to_signs(case):
    error, _ = golden_error(case)
    left, right = svd_factors(error, stored(case, "A").shape[1])
    assert float((left @ right - stored(case, "A") @ stored(case, "B")).abs().max()) < 2e-6
    signs = (right * stored(case, "B")).sum(dim=1).sign()
    torch.testing.assert_close(left * signs, stored(case, "A"), rtol=1e-3, atol=1e-5)


def test_the_worked_example_of_the_specification_and_its_defect(monkeypatch):
    monkeypatch.setattr(repair_module, "GROUP", 4)
    left = torch.tensor([[0.9, -0.2], [0.3, 0.5], [-1.2, 0.1]])
    right = torch.tensor([[0.6, -0.8, 0, 0.3], [0.1, 0.2, -0.7, 0.65]])
    packed = pack_published(left, right)
    assert packed.left.codes.tolist() == [[1, 0], [0, 1], [-2, 0]]
    assert packed.right.codes.tolist() == [[6, -7, 0, 3], [1, 2, -8, 7]]
    assert packed.left.scales.tolist() == pytest.approx([0.799805], abs=1e-6)
    assert packed.right.scales.tolist() == pytest.approx([0.106689, 0.093323], abs=1e-6)
    assert not torch.equal(pack_published(-left, right).left.codes.abs(), packed.left.codes.abs())


@settings(deadline=None, max_examples=40)
@given(
    rows=st.integers(1, 12),
    rank=st.integers(1, 4),
    columns=st.integers(1, 80),
    size=st.floats(-6, 3),
    seed=st.integers(0, 2**31),
)
def test_published_packing_keeps_every_entry_within_its_grid(rows, rank, columns, size, seed):
    generator = torch.Generator().manual_seed(seed)
    left = torch.randn(rows, rank, generator=generator) * 10.0**size
    right = torch.randn(rank, columns, generator=generator)
    right[:, : columns // 3] = 0.0
    packed = pack_published(left, right)
    asymmetric = rank * columns % 64 == 0
    low, high = ((-2, 1), (-8, 7)) if asymmetric else ((-7, 7), (-7, 7))
    for factor, (least, most) in ((packed.left, low), (packed.right, high)):
        assert least <= int(factor.codes.min()) <= int(factor.codes.max()) <= most
    back = packed.right.dequantize()
    runs = packed.right.scales.float().repeat_interleave(right.numel() // len(packed.right.scales)).reshape(right.shape)
    # Half a step inside the grid; beyond its end at 7 of 7.5 the rest is cut off.
    assert bool(((back - right).abs() <= runs * 0.51).all())
    assert not back[right == 0].any()


@settings(deadline=None, max_examples=25)
@given(case=calibrated(), rank=st.integers(1, 4))
def test_the_weighted_factors_take_most_from_the_error_of_the_outputs(case, rank):
    weight, hessian = case
    rank = min(rank, *weight.shape)
    fixed, _ = damped(hessian, DAMPING)
    left, right = weighted_factors(weight, fixed, rank)
    found = hessian_error(weight - left @ right, fixed)
    # By definition: the singular values of E H^(1/2) that are left.
    values, basis = torch.linalg.eigh(fixed.double())
    singular = torch.linalg.svdvals(weight.double() @ (basis * values.sqrt()))
    assert found == pytest.approx(float(singular[rank:].square().sum()), rel=1e-2, abs=1e-5 * hessian_error(weight, fixed))
    plain_left, plain_right = svd_factors(weight, rank)
    assert found <= hessian_error(weight - plain_left @ plain_right, fixed) * (1 + 1e-3) + 1e-6


@settings(deadline=None, max_examples=25)
@given(case=calibrated(), rank=st.integers(1, 4), size=st.floats(-7, 2))
def test_a_kept_repair_lowers_the_error_of_the_outputs(case, rank, size):
    weight, hessian = case
    scheme = SchemeConfig(bits=3, clip_sigmas=2.5)
    weight = weight * 10.0**size
    scales = sdclip(weight, None, scheme)
    error = weight - round_to_codes(weight, scales, 3) * scales.float()[:, None]
    found = repair_weighted(error, hessian, min(rank, *weight.shape), DAMPING)
    if found is None:
        return
    assert hessian_error((error.double() - found.product()).float(), hessian) < hessian_error(error, hessian)
    assert int(found.left.codes.abs().max()) <= 7
    assert int(found.right.codes.abs().max()) <= 7


@pytest.mark.parametrize("exponent", [0.5, 1.0, 1.5])
def test_the_hessian_form_repairs_most_of_what_can_be_repaired(exponent):
    weight, hessian = correlated(96, 128, 7, exponent)
    scales, factor = sdclip(weight, None, SchemeConfig()), factorize(hessian, DAMPING)
    error = weight - gptq(weight, scales, factor, 6) * scales.float()[:, None]
    before = hessian_error(error, hessian)
    left, right = weighted_factors(error, damped(hessian, DAMPING)[0], 4)
    possible = before - hessian_error(error - left @ right, hessian)
    ours = before - hessian_error((error.double() - repair_weighted(error, hessian, 4, DAMPING).product()).float(), hessian)
    published = before - hessian_error((error.double() - repair_published(error, 4).product()).float(), hessian)
    assert ours > 0.7 * possible > 0
    assert published < ours


def test_signs_of_singular_vectors_do_not_matter(monkeypatch):
    weight, hessian = correlated(24, 32, 3)
    error = (
        weight - round_to_codes(weight, sdclip(weight, None, SchemeConfig()), 6) * sdclip(weight, None, SchemeConfig())[:, None]
    )
    first = repair_weighted(error, hessian, 3, DAMPING)
    flip = torch.tensor([-1.0, 1.0, -1.0])

    def flipped(*arguments):
        left, right = weighted_factors(*arguments)
        return left * flip, right * flip[:, None]

    monkeypatch.setattr(repair_module, "weighted_factors", flipped)
    second = repair_weighted(error, hessian, 3, DAMPING)
    assert torch.equal(second.left.codes.float(), first.left.codes.float() * flip)
    assert torch.equal(second.product(), first.product())


def test_an_exact_matrix_needs_no_repair():
    assert repair_weighted(torch.zeros(4, 8), torch.eye(8), 2, DAMPING) is None


@pytest.mark.parametrize("weighting", ["published", "hessian"])
def test_the_matrices_with_the_largest_errors_are_repaired(weighting):
    state = small_state()
    hessians = small_hessians(state)
    plain = quantize_state(state, make_plan(state, QuantConfig()), hessians)
    config = QuantConfig(repair=RepairConfig(tensors=3, weighting=weighting))
    mended = quantize_state(state, make_plan(state, config), hessians)
    sizes = {
        report.name: report.hessian_error if weighting == "hessian" else report.rms_error * state[report.name].numel() ** 0.5
        for report in plain.reports
        if report.method == "gptq"
    }
    worst = set(sorted(sizes, key=sizes.get)[-3:])
    changed = {name for name, tensor in mended.tensors.items() if tensor.repair is not None}
    assert changed == worst if weighting == "published" else changed <= worst and changed
    for before, after in zip(plain.reports, mended.reports, strict=True):
        if after.name not in changed:
            assert after == before
            continue
        tensor = mended.tensors[after.name]
        assert torch.equal(tensor.codes, plain.tensors[after.name].codes)
        assert after.repair_rank == tensor.repair.rank == 4
        error = state[after.name] - tensor.dequantize()
        assert after.rms_error == pytest.approx(float(error.square().mean().sqrt()), rel=1e-5)
        assert weighting == "published" or after.hessian_error < before.hessian_error


def test_more_repairs_than_matrices_are_refused():
    state = small_state()
    with pytest.raises(RecipeError, match=r"tensors=9, but GPTQ makes 7 matrices"):
        quantize_state(state, make_plan(state, QuantConfig(repair=RepairConfig(tensors=9))), small_hessians(state))


def factor(rows: int, columns: int, scales: int = 1, value: float = 0.5) -> ScaledCodes:
    return ScaledCodes(torch.ones(rows, columns, dtype=torch.int8), torch.full((scales,), value, dtype=torch.float16))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: factor(3, 2, scales=4), "cannot be cut into 4 equal runs"),
        (lambda: factor(3, 2, scales=0), "filled float16 vector"),
        (lambda: factor(3, 2, value=0.0), "not a positive finite"),
        (lambda: factor(3, 2, value=float("inf")), "not a positive finite"),
        (lambda: factor(0, 2), "filled int8 matrix"),
        (lambda: LowRank(factor(3, 2), factor(3, 4)), "have no product"),
        (lambda: mended(LowRank(factor(3, 2), factor(2, 5))), r"\(3, 5\) does not fit a matrix of shape \(3, 4\)"),
    ],
)
def test_impossible_repairs_are_refused(make, message):
    with pytest.raises(ArtifactError, match=message):
        make()


def mended(repair: LowRank) -> QuantizedTensor:
    return QuantizedTensor(torch.ones(3, 4, dtype=torch.int8), torch.ones(3, dtype=torch.float16), 6, repair=repair)


def test_runs_are_cut_from_the_rows_in_order_and_the_product_is_added():
    scaled = ScaledCodes(torch.tensor([[1, 2, 3], [4, 5, 6]], dtype=torch.int8), torch.tensor([1, 10, 100]).half())
    assert scaled.dequantize().tolist() == [[1, 2, 30], [40, 500, 600]]
    tensor = mended(LowRank(factor(3, 2), factor(2, 4, value=0.25)))
    assert torch.equal(tensor.dequantize(), torch.full((3, 4), 1.25))


def rounded() -> QuantConfig:
    plain = SchemeConfig(method="round")
    return QuantConfig(attention=plain, mlp=plain, embedding=plain, repair=RepairConfig(tensors=1))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RepairConfig(tensors=-1), "tensors=-1 is negative"),
        (lambda: RepairConfig(rank=0), "rank=0 must be"),
        (rounded, "needs a class with method=gptq"),
    ],
)
def test_impossible_settings_are_refused(make, message):
    with pytest.raises(RecipeError, match=message):
        make()

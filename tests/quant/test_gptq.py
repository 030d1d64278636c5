from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from quant_samples import DAMPING, MATRICES, correlated, golden_matrix

from fairway.base.errors import RecipeError
from fairway.config import SchemeConfig
from fairway.quant.clip import sdclip
from fairway.quant.gptq import damped, factorize, gptq, gptq_plain
from fairway.quant.grid import round_to_codes
from fairway.quant.report import hessian_error

CASES = [str(name) for name in MATRICES["case_names"]]
SETTINGS = {
    str(name): SchemeConfig(bits=int(bits), clip_sigmas=float(sigmas))
    for name, bits, sigmas in zip(MATRICES["setting_names"], MATRICES["setting_bits"], MATRICES["setting_k"], strict=True)
}
IMPORTANCE = float(MATRICES["hessian_clip_lambda"])
SETTINGS |= {f"{name}_hclip": replace(SETTINGS[name], importance=IMPORTANCE) for name in ("int6_k12.85", "int8_k20")}


@pytest.mark.parametrize("setting", list(SETTINGS))
@pytest.mark.parametrize("case", CASES)
def test_codes_and_scales_equal_the_reference(case, setting):
    weight, hessian = golden_matrix(case)
    scheme, name = SETTINGS[setting], f"{case}.{setting}"
    scales = sdclip(weight, hessian.diagonal(), scheme)
    assert torch.equal(scales, torch.from_numpy(MATRICES[f"{name}.scale"]))
    expected = torch.from_numpy(MATRICES[f"{name}.codes"])
    codes = gptq(weight, scales, factorize(hessian, DAMPING), scheme.bits)
    assert torch.equal(codes, expected)
    assert torch.equal(gptq_plain(weight, scales, hessian, scheme.bits, DAMPING), expected)
    assert torch.equal(round_to_codes(weight, scales, scheme.bits), torch.from_numpy(MATRICES[f"{name}.rtn_codes"]))
    for found, loss in zip((codes, round_to_codes(weight, scales, scheme.bits)), MATRICES[f"{name}.proxy_loss"], strict=True):
        error = weight - found * scales.float()[:, None]
        assert hessian_error(error, hessian) == pytest.approx(float(loss), rel=1e-5)


def test_ties_round_to_even():
    weight, hessian = torch.from_numpy(MATRICES["ties.weight"]).float(), torch.from_numpy(MATRICES["ties.hessian"])
    scales = sdclip(weight, hessian.diagonal(), SchemeConfig(bits=6, clip_sigmas=31.0))
    assert torch.equal(scales, torch.from_numpy(MATRICES["ties.scale"]))
    expected = torch.from_numpy(MATRICES["ties.codes"])
    assert set(expected.unique().tolist()) == {-2, 0, 2}
    assert torch.equal(gptq(weight, scales, factorize(hessian, DAMPING), 6), expected)


def test_worked_example_with_a_clamped_code():
    hessian = torch.tensor([[1.0, 0.9, 0.3], [0.9, 2.0, 1.2], [0.3, 1.2, 1.5]])
    weight = torch.tensor([[0.35, 0.74, 0.04], [-0.10, 0.34, -0.49]])
    scheme = SchemeConfig(bits=3, clip_sigmas=1.5)
    scales = sdclip(weight, None, scheme)
    torch.testing.assert_close(scales.float(), torch.tensor([0.175415, 0.207642]), rtol=0, atol=1e-6)
    factor = factorize(hessian, DAMPING)
    assert factor.order.tolist() == [1, 2, 0]
    upper = torch.tensor([[1.285251, -0.841608, -0.890880], [0, 0.837317, -0.247483], [0, 0, 0.992583]])
    torch.testing.assert_close(factor.upper, upper, rtol=0, atol=1e-5)
    codes = gptq(weight, scales, factor, 3)
    assert codes.tolist() == [[3, 3, 1], [-1, 2, -3]]
    assert round_to_codes(weight, scales, 3).tolist() == [[2, 3, 0], [0, 2, -2]]
    matrix, _ = damped(hessian, DAMPING)
    objectives = [
        hessian_error(weight - c * scales.float()[:, None], matrix) for c in (codes, round_to_codes(weight, scales, 3))
    ]
    assert objectives == pytest.approx([0.048346, 0.176235], abs=1e-6)


def test_worked_example_with_a_dead_input():
    hessian = torch.tensor([[4.0, 1, 0.5, 0], [1, 2, 0, 0], [0.5, 0, 1, 0], [0, 0, 0, 0]])
    weight = torch.tensor([[0.9, -0.4, 0.25, 0.1], [-0.3, 0.8, 0.55, -0.65]])
    scales = sdclip(weight, None, SchemeConfig(bits=4, clip_sigmas=3.0))
    torch.testing.assert_close(scales.float(), torch.tensor([0.229736, 0.294434]), rtol=0, atol=1e-6)
    assert damped(hessian, DAMPING)[0].diagonal().tolist() == pytest.approx([4.02, 2.02, 1.02, 1.02])
    assert gptq(weight, scales, factorize(hessian, DAMPING), 4).tolist() == [[4, -2, 1, 0], [-1, 3, 2, 0]]
    assert round_to_codes(weight, scales, 4)[1, 3] == -2


def test_the_error_is_the_product_of_column_errors_and_the_factor():
    weight, hessian = correlated(20, 150, seed=3)
    scales = sdclip(weight, None, SchemeConfig(bits=8, clip_sigmas=20.0))
    factor = factorize(hessian, DAMPING)
    error = (weight - gptq(weight, scales, factor, 8) * scales.float()[:, None])[:, factor.order].double()
    upper = factor.upper.double()
    column_errors = torch.linalg.solve_triangular(upper, error, upper=True, left=False)
    matrix = damped(hessian, DAMPING)[0].double()[factor.order][:, factor.order]
    torch.testing.assert_close(upper @ matrix @ upper.T, torch.eye(150, dtype=torch.float64), rtol=0, atol=1e-4)
    objective = ((error @ matrix) * error).sum()
    torch.testing.assert_close(objective, column_errors.square().sum(), rtol=1e-4, atol=0)
    # Nothing clamps here, so no column's error exceeds half a step over its pivot.
    bound = scales.double()[:, None] / (2 * upper.diagonal())
    assert bool((column_errors.abs() <= bound * (1 + 1e-3)).all())


@settings(deadline=None, max_examples=15)
@given(rows=st.integers(1, 6), columns=st.integers(1, 40), block=st.integers(1, 45), seed=st.integers(0, 2**31))
def test_blocks_and_the_plain_twin_agree(rows, columns, block, seed):
    weight, hessian = correlated(rows, columns, seed)
    scales = sdclip(weight, None, SchemeConfig())
    factor = factorize(hessian, DAMPING)
    codes = gptq(weight, scales, factor, 6, block)
    others = (gptq(weight, scales, factor, 6), gptq_plain(weight, scales, hessian, 6, DAMPING))
    for other in others:
        # A weight that lies on a rounding boundary to within float32 may fall on either side and take its row along.
        agree = (codes == other).all(dim=1)
        for row in (~agree).nonzero().flatten().tolist():
            losses = [hessian_error((weight - c * scales.float()[:, None])[row : row + 1], hessian) for c in (codes, other)]
            assert losses[0] == pytest.approx(losses[1], rel=0.2)
        assert int((~agree).sum()) <= 1


@settings(deadline=None, max_examples=15)
@given(rows=st.integers(1, 6), columns=st.integers(2, 40), scale=st.floats(0.01, 100), seed=st.integers(0, 2**31))
def test_an_identity_hessian_means_plain_rounding(rows, columns, scale, seed):
    weight, _ = correlated(rows, columns, seed)
    scales = sdclip(weight, None, SchemeConfig())
    codes = gptq(weight, scales, factorize(torch.eye(columns) * scale, DAMPING), 6)
    assert torch.equal(codes, round_to_codes(weight, scales, 6))


@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 2**31))
def test_rows_and_the_scale_of_the_hessian_and_the_order_of_inputs_have_no_say(seed):
    weight, hessian = correlated(5, 24, seed)
    # Distinct diagonal entries give one order of columns.
    hessian = hessian * torch.linspace(1, 2, 24)[:, None] * torch.linspace(1, 2, 24)
    scales = sdclip(weight, None, SchemeConfig())
    codes = gptq(weight, scales, factorize(hessian, DAMPING), 6)
    assert torch.equal(gptq(weight, scales, factorize(4 * hessian, DAMPING), 6), codes)
    single = [gptq(weight[row : row + 1], scales[row : row + 1], factorize(hessian, DAMPING), 6) for row in range(5)]
    assert torch.equal(torch.cat(single), codes)
    permutation = torch.randperm(24, generator=torch.Generator().manual_seed(seed))
    moved = factorize(hessian[permutation][:, permutation], DAMPING)
    assert torch.equal(gptq(weight[:, permutation], scales, moved, 6), codes[:, permutation])


@pytest.mark.parametrize("exponent", [0.5, 1.0])
def test_correlated_inputs_gain_about_the_ratio_of_the_means_of_the_spectrum(exponent):
    weight, hessian = correlated(256, 128, seed=1, exponent=exponent)
    scales = sdclip(weight, None, SchemeConfig())
    matrix, _ = damped(hessian, DAMPING)
    objective = [
        hessian_error(weight - codes * scales.float()[:, None], matrix)
        for codes in (gptq(weight, scales, factorize(hessian, DAMPING), 6), round_to_codes(weight, scales, 6))
    ]
    spectrum = torch.linalg.eigvalsh(matrix.double())
    expected = float(spectrum.log().mean().exp() / spectrum.mean())
    assert objective[0] / objective[1] == pytest.approx(expected, rel=0.06)
    assert expected < 0.9


def test_dead_inputs_get_code_zero_and_the_rest_is_untouched_by_their_weights():
    weight, hessian = correlated(4, 16, seed=5)
    hessian[3], hessian[:, 3] = 0.0, 0.0
    scales = sdclip(weight, None, SchemeConfig())
    codes = gptq(weight, scales, factorize(hessian, DAMPING), 6)
    other = weight.clone()
    other[:, 3] = 1000.0
    assert torch.equal(codes[:, 3], torch.zeros(4, dtype=torch.int8))
    assert torch.equal(gptq(other, scales, factorize(hessian, DAMPING), 6), codes)
    nothing = factorize(torch.zeros(16, 16), DAMPING)
    assert int(gptq(weight, scales, nothing, 6).abs().sum()) == 0


def test_a_failed_factorization_is_retried_with_more_damping_and_said(caplog):
    indefinite = torch.tensor([[1.0, 1.3], [1.3, 1.0]])
    with caplog.at_level("INFO", logger="fairway"):
        factor = factorize(indefinite, DAMPING)
    assert factor.damping == pytest.approx(1.0)
    assert "damping=1" in caplog.text
    weight = torch.randn(3, 2, generator=torch.Generator().manual_seed(0))
    assert gptq(weight, sdclip(weight, None, SchemeConfig()), factor, 6).shape == (3, 2)


def test_hopeless_hessians_are_refused():
    with pytest.raises(RecipeError, match="not positive definite"):
        factorize(torch.tensor([[1.0, 1e9], [1e9, 1.0]]), DAMPING)
    with pytest.raises(RecipeError, match="not finite"):
        factorize(torch.tensor([[1.0, 0.0], [0.0, float("nan")]]), DAMPING)

"""The trellis inside GPTQ, steps of rows and columns, and what configurations and tensors are refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from quant_samples import DAMPING, correlated
from trellis_samples import SPECTRA, gaussian, gptq_gain, hessian_of

from fairway.base.errors import ArtifactError, RecipeError
from fairway.base.values import from_dict
from fairway.config import ProtectionConfig, QuantConfig, SchemeConfig
from fairway.quant.clip import sdclip
from fairway.quant.columns import TrellisColumns
from fairway.quant.gptq import damped, factorize, quantize_columns, quantize_columns_plain
from fairway.quant.grid import grid_scales
from fairway.quant.matrix import Calibrated, quantize_matrix
from fairway.quant.rates import pilot
from fairway.quant.report import hessian_error, path_entropy
from fairway.quant.steps import column_factors, row_scales
from fairway.quant.trellis_states import path_parities
from fairway.quant.types import QuantizedTensor

TRELLIS = SchemeConfig(states=8, centroids=True, scale_grid=8)
FINE = replace(TRELLIS, column_steps="conditional")


def known(hessian: torch.Tensor, sensitivity: torch.Tensor | None = None) -> Calibrated:
    return Calibrated(hessian, factorize(hessian, DAMPING), sensitivity)


@pytest.mark.parametrize(
    "scheme", [TRELLIS, FINE, SchemeConfig(centroids=True), replace(FINE, states=0, bits=8, clip_sigmas=50.0)]
)
def test_the_error_is_the_product_of_column_errors_and_the_factor(scheme):
    weight, hessian = correlated(30, 150, seed=3)
    tensor, found = quantize_matrix(weight, scheme, known(hessian)), factorize(hessian, DAMPING)
    matrix, order = damped(hessian, DAMPING)[0].double()[found.order][:, found.order], found.order
    error = (weight.double() - tensor.dequantize().double())[:, order]
    column_errors = torch.linalg.solve_triangular(found.upper.double(), error, upper=True, left=False)
    torch.testing.assert_close(((error @ matrix) * error).sum(), column_errors.square().sum(), rtol=1e-4, atol=0)
    # What GPTQ propagated is what is stored: with the codes fixed, every column's own error stays within its cell.
    pivots = found.upper.diagonal().double()
    bound = tensor.steps()[:, order] * (2.5 if scheme.states else 0.75) / pivots
    assert bool((column_errors.abs() <= bound).all())


@settings(deadline=None, max_examples=15)
@given(rows=st.integers(1, 30), columns=st.integers(1, 40), states=st.sampled_from([4, 8, 64]), seed=st.integers(0, 2**31))
def test_an_identity_hessian_means_a_plain_path_in_every_column(rows, columns, states, seed):
    weight, scheme = gaussian(rows, columns, seed), replace(TRELLIS, states=states)
    tensor = quantize_matrix(weight, scheme, known(torch.eye(columns)))
    values = (weight / tensor.scales.double()[:, None]).numpy()
    gain, prices = pilot(values, tensor.scales.double().square().numpy(), states, centroids=True)
    quantizer = TrellisColumns(tensor.scales, states, prices, gain=gain)
    for index in range(columns):
        codes, restored = quantizer.quantize(weight[:, index], index)
        assert torch.equal(codes, tensor.codes[:, index])
        assert torch.equal(restored, tensor.dequantize()[:, index])
    assert tensor.gain == gain
    assert path_parities(tensor.codes.numpy(), states) is not None


@settings(deadline=None, max_examples=15)
@given(rows=st.integers(1, 12), columns=st.integers(2, 40), block=st.integers(1, 45), seed=st.integers(0, 2**31))
def test_blocks_and_the_plain_twin_agree_up_to_ties(rows, columns, block, seed):
    weight, hessian = correlated(rows, columns, seed)
    scales, factor = row_scales(weight, None, TRELLIS), factorize(hessian, DAMPING)
    gain, prices = pilot((weight / scales.double()[:, None]).numpy(), np.ones(rows), 8, centroids=True)
    quantizer = TrellisColumns(scales, 8, prices, gain=gain)
    codes = quantize_columns(weight, factor, quantizer, block)
    other = quantize_columns_plain(weight, hessian, DAMPING, quantizer)
    if not torch.equal(codes, other):
        losses = [hessian_error(weight - c * (gain * scales.float())[:, None], hessian) for c in (codes, other)]
        assert losses[0] == pytest.approx(losses[1], rel=0.3)


@pytest.mark.parametrize("spectrum", SPECTRA)
def test_eight_states_gain_a_decibel_inside_gptq(spectrum):
    assert 1.0 <= gptq_gain(8, gaussian(512, 512, 5), hessian_of(spectrum, 512)) <= 1.3


@pytest.mark.long
@pytest.mark.parametrize("spectrum", SPECTRA)
@pytest.mark.parametrize(("states", "least"), [(4, 0.98), (8, 1.08), (16, 1.15), (64, 1.25)])
def test_decibels_inside_gptq_at_the_size_of_an_mlp(spectrum, states, least):
    assert gptq_gain(states, gaussian(2048, 512, 5), hessian_of(spectrum, 512)) >= least


def test_dead_inputs_and_zeros_take_codes_of_zero():
    weight, hessian = correlated(20, 16, seed=5)
    hessian[3], hessian[:, 3] = 0.0, 0.0
    for scheme in (TRELLIS, FINE):
        tensor = quantize_matrix(weight, scheme, known(hessian))
        assert not tensor.codes[:, 3].any()
        far = weight.clone()
        far[:, 3] = 0.9
        assert torch.equal(
            quantize_matrix(far, replace(scheme, clip_sigmas=9.0), known(hessian)).codes[:, 3], tensor.codes[:, 3]
        )
        nothing = quantize_matrix(torch.zeros(20, 16), scheme, known(hessian))
        assert not nothing.dequantize().any()


@settings(deadline=None, max_examples=40)
@given(grid=st.integers(1, 64), size=st.floats(-2, 3), seed=st.integers(0, 2**31))
def test_all_scales_lie_on_the_grid_near_those_of_sdclip(grid, size, seed):
    weight = gaussian(12, 40, seed) * 10.0**size
    scheme = SchemeConfig(scale_grid=grid)
    scales, plain = row_scales(weight, None, scheme), sdclip(weight, None, scheme).double()
    exponents = scales.double().log2() * grid
    assert float((exponents - exponents.round()).abs().max()) < 0.05
    assert torch.equal(grid_scales(scales.double(), grid), scales)
    assert float((scales.double() / plain).log2().abs().max()) <= 0.5 / grid + 1e-3
    finer = row_scales(weight, None, replace(scheme, states=8))
    assert float((finer.double() / scales.double()).log2().abs().sub(1).abs().max()) <= 1 / grid + 1e-3
    assert torch.equal(row_scales(weight, None, SchemeConfig()), sdclip(weight, None, SchemeConfig()))


def test_column_steps_lower_the_error_by_the_ratio_of_the_means():
    weight, hessian = correlated(256, 128, seed=1, exponent=1.5)
    columns = torch.logspace(-0.5, 0.5, 128)
    hessian = hessian * columns[:, None] * columns
    found = factorize(hessian, DAMPING)
    factors = column_factors(found, 8).double()[found.order] / found.upper.diagonal().double()
    assert float(factors.log2().sub(factors.log2().mean()).abs().max()) <= 0.5 / 8 + 1e-3
    unexplained = found.upper.diagonal().double() ** -2
    expected = float(unexplained.log().mean().exp() / unexplained.mean())
    wide = [replace(scheme, clip_sigmas=3.0) for scheme in (TRELLIS, FINE)]
    tensors = [quantize_matrix(weight, scheme, known(hessian)) for scheme in wide]
    errors = [hessian_error(weight - tensor.dequantize(), damped(hessian, DAMPING)[0]) for tensor in tensors]
    assert errors[1] / errors[0] == pytest.approx(expected, rel=0.1)
    assert expected < 0.8


def test_centroids_lower_the_error_of_coarse_codes():
    weight, hessian = correlated(128, 256, seed=2)
    for scheme in (SchemeConfig(clip_sigmas=31.0), replace(TRELLIS, clip_sigmas=31.0)):
        pair = [quantize_matrix(weight, replace(scheme, centroids=on), known(hessian)) for on in (False, True)]
        errors = [hessian_error(weight - tensor.dequantize(), hessian) for tensor in pair]
        assert pair[0].gain == 1.0
        assert 0.8 < pair[1].gain < 1.0
        assert errors[1] < errors[0]
    plain = quantize_matrix(weight, SchemeConfig(method="round", clip_sigmas=31.0, centroids=True), None)
    assert 0.9 < plain.gain < 0.95


def test_the_entropy_of_paths_is_that_of_codes_whose_parity_is_known():
    codes = torch.tensor([[0, 0], [2, 0], [0, 0], [2, 0]], dtype=torch.int16)
    assert path_entropy(codes) == pytest.approx(0.8112781)
    assert path_entropy(torch.tensor([[1, 0]], dtype=torch.int16)) == 0.0


def path(**changes) -> QuantizedTensor:
    fields = {"codes": torch.zeros(2, 3, dtype=torch.int16), "scales": torch.ones(2).half(), "bits": 6, "trellis": 8}
    return QuantizedTensor(**{**fields, **changes})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: path(codes=torch.zeros(2, 3, dtype=torch.int8)), "must be a filled int16 matrix"),
        (lambda: path(trellis=5), "5 states is none of 4, 8, 16, 64, 256"),
        (lambda: path(codes=torch.ones(2, 3, dtype=torch.int16)), "no path of the trellis of 8 states"),
        (lambda: path(codes=torch.full((2, 3), 8192, dtype=torch.int16)), "codes reach 8192"),
        (lambda: path(gain=0.1), "gain of 0.1 is not"),
        (lambda: path(gain=float("nan")), "gain of nan is not"),
        (lambda: path(gain=-1.0), "gain of -1.0 is not"),
        (lambda: path(scales=torch.tensor([1.0, 1.5]).half(), scale_grid=8), "grid of 8 steps per octave"),
        (lambda: path(column_scales=torch.zeros(3).half()), "column scale is not a positive"),
        (lambda: path(column_scales=torch.tensor([1, 1.5, 1]).half(), scale_grid=8), "not on the grid"),
        (lambda: from_dict(SchemeConfig, {"states": 5}), "5 is not one of 0, 4, 8, 16, 64, 256"),
        (lambda: SchemeConfig(states=8, method="round"), "set method=gptq or states=0"),
        (lambda: SchemeConfig(column_steps="conditional"), "set method=gptq and scale_grid=8"),
        (lambda: SchemeConfig(scale_grid=65), "outside 0..64"),
        (lambda: QuantConfig(mlp=TRELLIS, protection=ProtectionConfig(groups=1)), "a trellis and column_steps"),
        (lambda: QuantConfig(sensitivity_batches=-1), "is negative"),
        (lambda: QuantConfig(target_bytes=-1), "is negative"),
        (lambda: QuantConfig(target_bytes=1000), "set states=8 for every class"),
    ],
)
def test_impossible_tensors_and_settings_are_refused(make, message):
    with pytest.raises((ArtifactError, RecipeError), match=message):
        make()

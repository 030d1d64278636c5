from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fairway.base.errors import ArtifactError
from fairway.config import SchemeConfig
from fairway.quant.clip import SMALLEST_SCALE, row_importance, sdclip
from fairway.quant.grid import max_code, round_to_codes
from fairway.quant.report import code_entropy
from fairway.quant.types import QuantizedTensor

INT6, INT8 = SchemeConfig(), SchemeConfig(bits=8, clip_sigmas=20.0)
AWARE = SchemeConfig(importance=0.175)


def gaussian(rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def restored(weight: torch.Tensor, scheme: SchemeConfig, diagonal: torch.Tensor | None = None) -> torch.Tensor:
    scales = sdclip(weight, diagonal, scheme)
    return QuantizedTensor(round_to_codes(weight, scales, scheme.bits), scales, scheme.bits).dequantize()


def test_the_grid_is_symmetric():
    assert [max_code(bits) for bits in (2, 6, 7, 8)] == [1, 31, 63, 127]


def test_rounding_is_half_to_even_and_clamps():
    codes = round_to_codes(torch.tensor([[0.5, 1.5, 2.5, -0.5, 900.0, -900.0]]), torch.ones(1), 6)
    assert codes.tolist() == [[0, 2, 2, 0, 31, -31]]


def test_the_spread_of_codes_is_known_in_advance():
    weight = gaussian(64, 512) * torch.logspace(-3, 1, 64)[:, None]
    codes = round_to_codes(weight, sdclip(weight, None, INT6), 6).float()
    expected = ((31 / 12.85) ** 2 + 1 / 12) ** 0.5
    torch.testing.assert_close(codes.std(dim=1).mean(), torch.tensor(expected), rtol=0.01, atol=0)


@pytest.mark.parametrize(("bits", "sigmas", "entropy"), [(6, 12.85, 3.328), (7, 14.0, 4.220), (8, 20.0, 4.715)])
def test_the_entropy_of_gaussian_codes(bits, sigmas, entropy):
    weight = gaussian(1024, 1024)
    scales = sdclip(weight, None, SchemeConfig(bits=bits, clip_sigmas=sigmas))
    assert code_entropy(round_to_codes(weight, scales, bits)) == pytest.approx(entropy, abs=0.002)


def test_one_more_bit_with_the_same_step_gives_the_same_codes():
    weight = gaussian(8, 256)
    wider = SchemeConfig(bits=7, clip_sigmas=12.85 * 63 / 31)
    assert torch.equal(
        round_to_codes(weight, sdclip(weight, None, INT6), 6), round_to_codes(weight, sdclip(weight, None, wider), 7)
    )


@settings(deadline=None, max_examples=30)
@given(rows=st.integers(1, 5), columns=st.integers(1, 30), size=st.floats(-5, 3), seed=st.integers(0, 2**31))
def test_a_restored_weight_is_within_half_a_step_and_quantizes_to_itself(rows, columns, size, seed):
    weight = gaussian(rows, columns, seed) * 10.0**size
    scales = sdclip(weight, None, INT8)
    codes = round_to_codes(weight, scales, 8)
    back = QuantizedTensor(codes, scales, 8).dequantize()
    inside = codes.abs() < 127
    limit = scales.float()[:, None] * (0.5 + 1e-5)
    assert bool(((weight - back).abs() <= limit)[inside].all())
    assert torch.equal(round_to_codes(back, scales, 8), codes)


@pytest.mark.parametrize("scheme", [INT6, AWARE])
def test_zero_constant_and_tiny_rows_survive(scheme):
    weight = torch.zeros(5, 16)
    weight[1], weight[2], weight[3] = 0.25, -3.0, 1e-7
    weight[4] = gaussian(1, 16)[0]
    scales = sdclip(weight, torch.ones(16), scheme)
    assert bool((scales >= SMALLEST_SCALE).all())
    back = restored(weight, scheme, torch.ones(16))
    torch.testing.assert_close(back[:3], weight[:3], rtol=2e-3, atol=0)
    assert bool((back[3].abs() <= SMALLEST_SCALE).all())


@st.composite
def measured(draw):
    """A matrix with rows and inputs of very different size, and the diagonal of its Hessian, some inputs dead."""
    rows, columns, seed = draw(st.integers(1, 8)), draw(st.integers(8, 40)), draw(st.integers(0, 2**31))
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, columns, generator=generator) * torch.randn(rows, 1, generator=generator).exp()
    diagonal = (2 * torch.randn(columns, generator=generator)).exp() * 10.0 ** draw(st.integers(-4, 4))
    diagonal[1:][torch.rand(columns - 1, generator=generator) < 0.2] = 0.0
    return weight, diagonal


@settings(deadline=None, max_examples=50)
@given(case=measured(), bits=st.integers(2, 8))
def test_no_importance_is_plain_whatever_the_hessian(case, bits):
    weight, diagonal = case
    scheme = SchemeConfig(bits=bits)
    assert torch.equal(sdclip(weight, diagonal, scheme), sdclip(weight, None, scheme))


@settings(deadline=None, max_examples=50)
@given(case=measured(), importance=st.floats(0.01, 0.5))
def test_importance_is_relative_to_the_mean_row(case, importance):
    weight, diagonal = case
    found = row_importance(weight, diagonal)
    assert float(found.mean()) == pytest.approx(1.0, rel=1e-5)
    torch.testing.assert_close(row_importance(weight * 3, diagonal * 5), found, rtol=1e-4, atol=0)
    slow = [sum(abs(w) * h for w, h in zip(row, diagonal.tolist(), strict=True)) for row in weight.tolist()]
    assert found.tolist() == pytest.approx([m * len(slow) / sum(slow) for m in slow], rel=1e-4)
    factor = 1 + importance * (found - 1)
    plain, aware = (sdclip(weight, diagonal, replace(INT8, importance=value)).float() for value in (0.0, importance))
    torch.testing.assert_close(aware, plain * factor, rtol=2**-9, atol=0)


@settings(deadline=None, max_examples=20)
@given(case=measured(), importance=st.floats(0.01, 0.99))
def test_one_row_alone_or_equal_rows_keep_the_plain_step(case, importance):
    weight, diagonal = case
    for same in (weight[:1], weight[:1].expand(4, -1)):
        aware = sdclip(same, diagonal, replace(INT8, importance=importance)).float()
        torch.testing.assert_close(aware, sdclip(same, diagonal, INT8).float(), rtol=2**-10, atol=0)


def test_a_hessian_of_zeros_makes_every_row_equally_unimportant():
    weight = gaussian(4, 8)
    scales = sdclip(weight, torch.zeros(8), AWARE).float()
    torch.testing.assert_close(scales, sdclip(weight, None, INT6).float() * (1 - AWARE.importance), rtol=2**-9, atol=0)


def test_a_single_column_and_a_huge_row_have_scales():
    assert restored(torch.tensor([[2.0], [-0.5], [0.0]]), INT6).flatten().tolist() == pytest.approx([2.0, -0.5, 0.0], rel=2e-3)
    assert bool(sdclip(gaussian(1, 8) * 1e9, None, INT6).isfinite().all())


@pytest.mark.parametrize(
    ("codes", "scales", "bits", "message"),
    [
        (torch.tensor([[32]]), torch.ones(1), 6, r"codes lie in \[32, 32\], outside \[-31, 31\]"),
        (torch.tensor([[-128]]), torch.ones(1), 8, r"outside \[-127, 127\]"),
        (torch.tensor([[1]]), torch.zeros(1), 6, "positive finite"),
        (torch.tensor([[1]]), torch.tensor([float("inf")]), 6, "positive finite"),
        (torch.tensor([[1]]), torch.ones(1), 9, "outside 2..8"),
    ],
)
def test_impossible_tensors_are_refused(codes, scales, bits, message):
    with pytest.raises(ArtifactError, match=message):
        QuantizedTensor(codes.to(torch.int8), scales.to(torch.float16), bits)

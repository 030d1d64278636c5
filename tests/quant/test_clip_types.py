import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fairway.base.errors import ArtifactError
from fairway.config import SchemeConfig
from fairway.quant.clip import SMALLEST_SCALE, sdclip
from fairway.quant.grid import max_code, round_to_codes
from fairway.quant.quantize import code_entropy
from fairway.quant.types import QuantizedTensor

INT6, INT8 = SchemeConfig(), SchemeConfig(bits=8, clip_sigmas=20.0)


def gaussian(rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def restored(weight: torch.Tensor, scheme: SchemeConfig) -> torch.Tensor:
    scales = sdclip(weight, None, scheme)
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


def test_zero_constant_and_tiny_rows_survive():
    weight = torch.zeros(5, 16)
    weight[1], weight[2], weight[3] = 0.25, -3.0, 1e-7
    weight[4] = gaussian(1, 16)[0]
    scales = sdclip(weight, None, INT6)
    assert bool((scales >= SMALLEST_SCALE).all())
    back = restored(weight, INT6)
    torch.testing.assert_close(back[:3], weight[:3], rtol=2e-3, atol=0)
    assert bool((back[3].abs() <= SMALLEST_SCALE).all())


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

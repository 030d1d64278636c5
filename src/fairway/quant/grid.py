"""The integer grid: symmetric codes of 2 to 8 bits, held as int8; and the logarithmic grid of scales."""

import torch
from jaxtyping import Float, Float16, Float64, Int8
from torch import Tensor

LARGEST_CODE = 8191
"""Largest code of a trellis, which has no width: the entropy coder makes a large code dear enough."""


def max_code(bits: int) -> int:
    """Largest code ``c = 2**(bits - 1) - 1``; codes lie in ``[-c, c]``, so ``-2**(bits - 1)`` is never used."""
    return 2 ** (bits - 1) - 1


def round_to_codes(
    weight: Float[Tensor, "rows columns"], scales: Float[Tensor, "rows"], bits: int
) -> Int8[Tensor, "rows columns"]:
    """Nearest codes, ``clamp(round_half_even(w / s), -c, c)``, each weight on its own.

    Args:
        weight: Values to quantize.
        scales: Step of each row, > 0.
        bits: Width of a code.
    """
    limit = max_code(bits)
    return (weight / scales.float()[:, None]).round_().clamp_(-limit, limit).to(torch.int8)


def grid_scales(scales: Float64[Tensor, "scales"], steps_per_octave: int) -> Float16[Tensor, "scales"]:
    """The nearest numbers ``2**(k / steps_per_octave)``, k an integer, each rounded to float16; `grid_exponents` inverts it.

    Args:
        scales: Positive numbers in the range of normal float16.
        steps_per_octave: Fineness of the grid, at most 64, where float16 still tells its numbers apart.
    """
    return torch.exp2(grid_exponents(scales, steps_per_octave) / steps_per_octave).to(torch.float16)


def grid_exponents(scales: Float64[Tensor, "scales"], steps_per_octave: int) -> Float64[Tensor, "scales"]:
    """``k`` of the grid number nearest to each scale, on the logarithmic scale."""
    return (scales.log2() * steps_per_octave).round()

"""Steps of rows and columns by scheme, before any code is known."""

import torch
from jaxtyping import Float, Float16
from torch import Tensor

from fairway.config import SchemeConfig
from fairway.quant.clip import sdclip
from fairway.quant.gptq import Factor
from fairway.quant.grid import grid_scales

LEAST_SCALE, MOST_SCALE = 2.0**-14, 2.0**15
"""Smallest and largest scale that float16 holds at full precision and that are on every grid."""

MOST_COLUMN_FACTOR = 2.0**6
"""Largest factor on the step in a column, and the inverse of the smallest."""


def row_scales(
    weight: Float[Tensor, "rows columns"],
    diagonal: Float[Tensor, "columns"] | None,
    scheme: SchemeConfig,
    factor: float = 1.0,
) -> Float16[Tensor, "rows"]:
    """Step of each row: SDClip's, times ``factor``, on the scheme's grid. The grid of a trellis is twice as fine.

    A scheme without grid and trellis has SDClip's steps, bit for bit.

    Args:
        weight: The original matrix.
        diagonal: ``H_jj`` as it was measured; read only where the scheme has importance.
        scheme: Bits, sigmas, importance, states and grid.
        factor: On all steps.
    """
    steps = sdclip(weight, diagonal, scheme).double()
    return _stored(steps * (factor / 2 if scheme.states else factor), scheme.scale_grid)


def column_factors(factor: Factor, scale_grid: int) -> Float16[Tensor, "columns"]:
    """Factor on the step in each column, in proportion to ``U_jj``, with geometric mean 1 before the rounding to the grid.

    The error that column j adds to ``tr(E H E^T)`` is ``step_j^2 / U_jj^2``, and ``U_jj^-2`` is the part of input j's mean
    square that the inputs after it in GPTQ's order leave unexplained. At high rate the bits of all columns depend on the
    product of the steps alone, so equal errors give the smallest sum: it falls from the arithmetic to the geometric mean of
    ``U_jj^-2``. Dead inputs have factor 1.
    """
    found = torch.ones(len(factor.order), dtype=torch.float64)
    found[factor.order] = factor.upper.diagonal().double()
    live = ~factor.dead
    if bool(live.any()):
        found = (found / _geometric_mean(found[live])).clamp(1 / MOST_COLUMN_FACTOR, MOST_COLUMN_FACTOR)
    return _stored(found.masked_fill(factor.dead, 1.0), scale_grid)


def _geometric_mean(numbers: Tensor) -> Tensor:
    return numbers.log().mean().exp()


def _stored(scales: Tensor, scale_grid: int) -> Tensor:
    if not scale_grid:
        return scales.clamp(torch.finfo(torch.float16).tiny, torch.finfo(torch.float16).max).to(torch.float16)
    return grid_scales(scales.clamp(LEAST_SCALE, MOST_SCALE), scale_grid)

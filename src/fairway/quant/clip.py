"""Row scales: from a weight, its scheme and, where rows differ in importance, the diagonal of its Hessian."""

import torch
from jaxtyping import Float, Float16
from torch import Tensor

from fairway.config import SchemeConfig
from fairway.quant.grid import max_code

SMALLEST_SCALE = torch.finfo(torch.float16).tiny
"""Smallest normal float16: below it a scale loses its precision and then becomes 0, and 0 / 0 is no code."""

LARGEST_SCALE = torch.finfo(torch.float16).max

SMALLEST_MEAN = 1e-12
"""Least mean, of a Hessian's diagonal or of importance, that anything is divided by. PR #1557."""


def sdclip(
    weight: Float[Tensor, "rows columns"], diagonal: Float[Tensor, "columns"] | None, scheme: SchemeConfig
) -> Float16[Tensor, "rows"]:
    """Step of each row from its standard deviation: ``clip_sigmas * sigma_i * f_i / c`` with ``c`` the largest code (SDClip).

    ``f_i = 1 + importance * (r_i - 1)`` with r from `row_importance`; a scheme without importance has ``f_i = 1``. With the
    published 12.85 sigmas nothing Gaussian is ever clipped; the rule sets the step, hence rate and error. Rows whose step
    would fall below the smallest normal float16 (all zero, constant, or of tiny spread) take their largest magnitude as the
    end of the grid instead, so that a constant row survives; PR #1394 turns such rows to zeros.

    Args:
        weight: The original matrix; the deviation is unbiased and over all columns.
        diagonal: ``H_jj`` as it was measured, before any damping; read only where the scheme has importance.
        scheme: Bits, sigmas and importance.

    Source: PR #1394; importance: PR #1557, after PR #1412, which read the damped diagonal.
    """
    limit = max_code(scheme.bits)
    # A single column has no spread, and torch warns when asked for it.
    sigma = weight.std(dim=1) if weight.shape[1] > 1 else weight.new_zeros(weight.shape[0])
    steps = scheme.clip_sigmas * sigma
    if scheme.importance:
        assert diagonal is not None, "importance needs a Hessian"
        steps = steps * (1.0 + scheme.importance * (row_importance(weight, diagonal) - 1.0))
    steps = steps / limit
    by_magnitude = weight.abs().amax(dim=1) / limit
    steps = torch.where(steps < SMALLEST_SCALE, by_magnitude, steps)
    return steps.clamp(SMALLEST_SCALE, LARGEST_SCALE).to(torch.float16)


def row_maximum(weight: Float[Tensor, "rows columns"], bits: int) -> Float16[Tensor, "rows"]:
    """Step of each row that puts its largest magnitude at the end of the grid: ``max_j |W_ij| / c``; nothing is clipped.

    A row whose step would fall below the smallest normal float16, a row of zeros among them, takes that: its codes are
    0, or few, where the published rule divides by 0.

    Source: gates of PR #2140.
    """
    steps = weight.abs().amax(dim=1) / max_code(bits)
    return steps.clamp(SMALLEST_SCALE, LARGEST_SCALE).to(torch.float16)


def row_importance(weight: Float[Tensor, "rows columns"], diagonal: Float[Tensor, "columns"]) -> Float[Tensor, "rows"]:
    """Importance of each row against the mean row: ``r_i = m_i / mean(m)``, ``m_i = mean_j |W_ij| H_jj / mean(H_jj)``.

    The mean of r is 1, a single row has 1, and the scale of W or H has no say. Large rows count as important and get the
    *coarser* step: rows are coupled through the mean, and a row far above it may take a step many times its own.

    Args:
        weight: The original matrix.
        diagonal: ``H_jj`` as it was measured; columns of dead inputs count as zero.
    """
    columns = diagonal / diagonal.mean().clamp_min(SMALLEST_MEAN)
    rows = (weight.abs() * columns).mean(dim=1)
    return rows / rows.mean().clamp_min(SMALLEST_MEAN)

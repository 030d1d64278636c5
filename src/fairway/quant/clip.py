"""Row scales. A clip rule maps a weight, the diagonal of its Hessian and its scheme to one float16 step per row."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Float16
from torch import Tensor

from fairway.config import SchemeConfig
from fairway.quant.grid import max_code

ClipRule = Callable[[Tensor, Tensor | None, SchemeConfig], Tensor]
"""``(weight [rows, columns], Hessian diagonal [columns] or None, scheme) -> float16 scales [rows]``."""

SMALLEST_SCALE = torch.finfo(torch.float16).tiny
"""Smallest normal float16: below it a scale loses its precision and then becomes 0, and 0 / 0 is no code."""

LARGEST_SCALE = torch.finfo(torch.float16).max


def sdclip(
    weight: Float[Tensor, "rows columns"], diagonal: Float[Tensor, "columns"] | None, scheme: SchemeConfig
) -> Float16[Tensor, "rows"]:
    """Step of each row from its standard deviation: ``clip_sigmas * sigma_i / c`` with ``c`` the largest code (SDClip).

    With the published 12.85 sigmas nothing Gaussian is ever clipped; the rule sets the step, hence rate and error.
    Rows whose step would fall below the smallest normal float16 (all zero, constant, or of tiny spread) take their
    largest magnitude as the end of the grid instead, so that a constant row survives; PR #1394 turns such rows to zeros.

    Args:
        weight: The original matrix; the deviation is unbiased and over all columns.
        diagonal: Not used by this rule.
        scheme: Bits and sigmas.

    Source: PR #1394.
    """
    del diagonal
    limit = max_code(scheme.bits)
    # A single column has no spread, and torch warns when asked for it.
    sigma = weight.std(dim=1) if weight.shape[1] > 1 else weight.new_zeros(weight.shape[0])
    steps = scheme.clip_sigmas * sigma / limit
    by_magnitude = weight.abs().amax(dim=1) / limit
    steps = torch.where(steps < SMALLEST_SCALE, by_magnitude, steps)
    return steps.clamp(SMALLEST_SCALE, LARGEST_SCALE).to(torch.float16)

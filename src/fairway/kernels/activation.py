"""The activation of the MLP with a backward pass of its own: one kept tensor and two passes over memory."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


def plain_leaky_relu_squared(x: Float[Tensor, "..."], slope: float) -> Float[Tensor, "..."]:
    """``leaky_relu(x, slope)**2``, written out: the twin of ``leaky_relu_squared``."""
    return nn.functional.leaky_relu(x, slope).square()


def leaky_relu_squared(x: Float[Tensor, "..."], slope: float) -> Float[Tensor, "..."]:
    """Square of LeakyReLU: ``x**2`` for x > 0 and ``(slope * x)**2`` otherwise; never negative, smooth at 0.

    With ``y = leaky_relu(x, slope**2)`` the value is ``x * y`` and the derivative ``2 * y``.

    Args:
        x: Pre-activation.
        slope: Slope of the negative side before squaring; 0 is ReLU squared (arXiv 2109.08668).

    Source: PR #1394 (0.5), PR #2140 (0.3).
    """
    return _LeakyReluSquared.apply(x, slope)  # pyright: ignore[reportReturnType]


class _LeakyReluSquared(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, slope: float) -> Tensor:
        leaky = nn.functional.leaky_relu(x, slope * slope)
        ctx.save_for_backward(leaky)
        return leaky * x

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (leaky,) = ctx.saved_tensors
        return (grads[0] * leaky).mul_(2), None

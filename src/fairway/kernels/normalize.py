"""Root-mean-square normalisation of rows with a backward pass of its own: half the memory traffic of the recorded one."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable


def plain_normalize_rows(x: Float[Tensor, "... channels"], scale: float, epsilon: float) -> Float[Tensor, "... channels"]:
    """``scale * x / sqrt(mean(x**2) + epsilon)`` in float32 or wider, written out: the twin of ``normalize_rows``."""
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    return (wide * (torch.rsqrt(wide.square().mean(-1, keepdim=True) + epsilon) * scale)).to(x.dtype)


def normalize_rows(x: Float[Tensor, "... channels"], scale: float, epsilon: float) -> Float[Tensor, "... channels"]:
    """``scale * x / sqrt(mean(x**2) + epsilon)``: arithmetic in float32 or wider, result in the dtype of ``x``.

    With ``r = 1 / sqrt(mean(x**2) + epsilon)`` the gradient is ``scale * r * (g - x * r**2 * mean(g * x))``, so only ``x``
    and one number per row are kept for the backward pass.

    Args:
        x: Rows to normalise over the last axis.
        scale: Constant factor of the result.
        epsilon: Added to the mean square, > 0.
    """
    return _NormalizeRows.apply(x, scale, epsilon)  # pyright: ignore[reportReturnType]


class _NormalizeRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: float, epsilon: float) -> Tensor:
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        mean_square = torch.linalg.vector_norm(wide, dim=-1, keepdim=True).square() / x.shape[-1]
        inverse = torch.rsqrt(mean_square + epsilon)
        ctx.save_for_backward(x, inverse)
        ctx.scale = scale
        return (wide * (inverse * scale)).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        x, inverse = ctx.saved_tensors
        wide, grad = x.to(inverse.dtype), grads[0].to(inverse.dtype)
        factor = inverse * ctx.scale
        along = (grad * wide).sum(-1, keepdim=True) * inverse.square() * factor / x.shape[-1]
        return torch.addcmul(grad * factor, wide, along, value=-1).to(x.dtype), None, None

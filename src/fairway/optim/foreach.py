"""The same operation on many tensors in a few kernel launches. The only place that touches torch's ``_foreach`` names."""

# pyright: reportPrivateImportUsage=false

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor


def multiply_(tensors: Sequence[Tensor], factor: float | Tensor) -> None:
    """``t <- factor t`` for every tensor; a tensor factor has no dimensions and stays on its device."""
    torch._foreach_mul_(list(tensors), factor)


def add_(tensors: Sequence[Tensor], others: Sequence[Tensor], factor: float = 1.0) -> None:
    """``t <- t + factor o`` for every pair."""
    torch._foreach_add_(list(tensors), list(others), alpha=factor)


def move_towards_(tensors: Sequence[Tensor], targets: Sequence[Tensor], share: float) -> None:
    """``t <- t + share (target - t)`` for every pair of one type; share 1 gives the target exactly."""
    torch._foreach_lerp_(list(tensors), list(targets), share)


def joint_norm(tensors: Sequence[Tensor]) -> Float[Tensor, ""]:
    """L2 norm of all tensors together, in float32, or float64 where one of them is."""
    dtype = torch.float64 if any(tensor.dtype == torch.float64 for tensor in tensors) else torch.float32
    norms = torch._foreach_norm(list(tensors), 2, dtype=dtype)
    return torch.linalg.vector_norm(torch.stack(list(norms)))

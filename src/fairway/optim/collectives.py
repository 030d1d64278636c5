"""Exchanges between ranks that the optimizers need, in place on tensors of any device; the process group exists already."""

from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Shaped
from torch import Tensor

Work = Any
"""Handle of an exchange under way; ``wait()`` makes its result usable, on a GPU for what is launched afterwards."""

# torch 2.13 renamed both and warns at the old names.
_reduce_scatter = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor
_all_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor


def start_reduce_scatter(whole: Shaped[Tensor, "padded *rest"], shard: Shaped[Tensor, "share *rest"]) -> Work:
    """Begin to add ``whole`` over all ranks; rank ``r`` receives the ``r``-th of the equal parts in ``shard``."""
    return _reduce_scatter(shard, whole, async_op=True)


def start_all_gather(shard: Shaped[Tensor, "share *rest"], whole: Shaped[Tensor, "padded *rest"]) -> Work:
    """Begin to lay every rank's ``shard`` into ``whole``, in the order of the ranks."""
    return _all_gather(whole, shard, async_op=True)


def finish(work: Work | None) -> None:
    """Make the result of an exchange usable; ``None`` stands for an exchange that one rank alone does not need."""
    if work is not None:
        work.wait()


def sum_gradients_(parameters: Iterable[torch.nn.Parameter]) -> None:
    """Add gradients over all ranks, in place, as one flat transfer per type; a missing gradient counts as zero."""
    by_type: dict[torch.dtype, list[torch.nn.Parameter]] = {}
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        by_type.setdefault(parameter.grad.dtype, []).append(parameter)
    for group in by_type.values():
        gradients = [parameter.grad for parameter in group if parameter.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        pieces = flat.split([gradient.numel() for gradient in gradients])
        for gradient, piece in zip(gradients, pieces, strict=True):
            gradient.copy_(piece.view_as(gradient))

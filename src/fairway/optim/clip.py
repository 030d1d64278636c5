"""Joint clipping of all gradients by their common length."""

from collections.abc import Iterable, Sequence

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor

from fairway.optim import foreach


@torch.no_grad()
def clip_gradients(
    parameters: Iterable[torch.nn.Parameter], limit: float, shards: Sequence[Tensor] = (), world_size: int = 1
) -> Float[Tensor, ""]:
    """Scale all gradients in place by ``min(1, limit / (norm + 1e-6))`` and return the norm before it.

    The norm is the joint L2 norm of all gradients, float32 also where a gradient is bfloat16. The result stays on the
    device, so nothing waits for it. With several ranks the gradients must be summed first, so that all ranks clip alike.

    Args:
        parameters: Parameters whose gradients every rank has whole; those without a gradient are left out.
        limit: Largest joint norm; 0 measures and does not clip.
        shards: This rank's part of the gradients that are spread over the ranks, with as many tensors on every rank.
        world_size: Ranks that hold a part of ``shards``.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norm = foreach.joint_norm(gradients)
    if shards:
        squares = foreach.joint_norm(shards).square()
        if world_size > 1:
            dist.all_reduce(squares)
        norm = (norm.square() + squares).sqrt()
    if limit > 0:
        foreach.multiply_([*gradients, *shards], (limit / (norm + 1e-6)).clamp(max=1.0))
    return norm

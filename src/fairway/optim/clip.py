"""Joint clipping of all gradients by their common length."""

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor

from fairway.optim import foreach


@torch.no_grad()
def clip_gradients(parameters: Iterable[torch.nn.Parameter], limit: float) -> Float[Tensor, ""]:
    """Scale all gradients in place by ``min(1, limit / (norm + 1e-6))`` and return the norm before it.

    The norm is the joint L2 norm of all gradients, float32 also where a gradient is bfloat16. The result stays on the
    device, so nothing waits for it. With several ranks the gradients must be averaged first.

    Args:
        parameters: Parameters; those without a gradient are left out.
        limit: Largest joint norm; 0 measures and does not clip.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norm = foreach.joint_norm(gradients)
    if limit > 0:
        foreach.multiply_(gradients, (limit / (norm + 1e-6)).clamp(max=1.0))
    return norm

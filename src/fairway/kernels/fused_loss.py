"""Softcapped cross-entropy of a chunk of logits together with its gradient, in one pass over memory.

With ``s = sigmoid(2 l / cap)`` is ``cap tanh(l / cap) = 2 cap s - cap``; the shift cancels in the softmax, so that with
``z = 2 cap s``

    loss           = logsumexp(z) - z[target]
    d loss / d l   = (softmax(z) - onehot(target)) 4 s (1 - s)

Written out this reads and writes a float32 table of logits about ten times; the kernel reads the logits as the product left
them, keeps a row in the cache, and writes the gradient in their type. Source: PR #2140.
"""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from fairway.kernels.fused import interpreted

LossAndGradient = tuple[Float[Tensor, " rows"], Float[Tensor, "rows vocab"]]


def plain_loss_and_gradient(
    logits: Float[Tensor, "rows vocab"], targets: Int64[Tensor, " rows"], cap: float, scale: float
) -> LossAndGradient:
    """Losses of the rows and ``scale`` times their gradients, in torch operations: the twin of `fused_loss_and_gradient`.

    Logits of 32 bits or more are overwritten, which saves a pass over memory.

    Args:
        logits: Raw logits, not yet capped.
        targets: Wanted column of every row.
        cap: Bound of the logits in nats, > 0.
        scale: Factor of the gradient; one over the number of rows makes it that of the mean.

    Returns:
        Losses in nats, float32 or wider, and the gradient in the type of ``logits``.
    """
    wanted = targets[:, None]
    squashed = logits.to(torch.promote_types(logits.dtype, torch.float32)).mul_(2 / cap).sigmoid_()
    scores = squashed * (2 * cap)
    top, hit = scores.amax(-1, keepdim=True), scores.gather(1, wanted)
    error = scores.sub_(top).exp_()
    mass = error.sum(-1, keepdim=True)
    losses = (top + mass.log() - hit).squeeze(-1)
    error.div_(mass).scatter_add_(1, wanted, torch.full_like(hit, -1.0))
    error.mul_(squashed.sub(squashed.square())).mul_(4 * scale)
    return losses, error.to(logits.dtype)


def fused_loss_and_gradient(
    logits: Float[Tensor, "rows vocab"], targets: Int64[Tensor, " rows"], cap: float, scale: float
) -> LossAndGradient:
    """`plain_loss_and_gradient` by one Triton kernel on a GPU, float32 inside; ``logits`` stay as they are.

    A target outside the vocabulary makes the loss NaN, at which training stops.
    """
    return _loss_and_gradient(logits, targets, cap, scale)


@torch.library.custom_op("fairway::loss_and_gradient", mutates_args=(), device_types="cpu")
def _loss_and_gradient(logits: Tensor, targets: Tensor, cap: float, scale: float) -> tuple[Tensor, Tensor]:
    if interpreted():
        return _launch(logits, targets, cap, scale)
    return plain_loss_and_gradient(logits.clone(), targets, cap, scale)


@_loss_and_gradient.register_kernel("cuda")
def _launch(logits: Tensor, targets: Tensor, cap: float, scale: float) -> tuple[Tensor, Tensor]:
    from fairway.kernels.triton_loss import launch

    return launch(logits, targets, cap, scale)


@_loss_and_gradient.register_fake
def _shapes(logits: Tensor, targets: Tensor, cap: float, scale: float) -> tuple[Tensor, Tensor]:
    del targets, cap, scale
    wide = torch.promote_types(logits.dtype, torch.float32)
    return logits.new_empty(len(logits), dtype=wide), torch.empty_like(logits, memory_format=torch.contiguous_format)

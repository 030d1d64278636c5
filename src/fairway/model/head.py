"""The tied output head: logits, softcap, and the training loss without the whole table of logits in memory."""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from fairway.kernels.fused_loss import fused_loss_and_gradient, plain_loss_and_gradient

CHUNK_LOGITS = {"cpu": 2**18, "cuda": 2**27}
"""Logits of one chunk of the loss: about one megabyte of cache on a CPU, half a gigabyte of float32 on a GPU."""


class Caps(NamedTuple):
    """Bounds in nats of positive and of negative logits, > 0."""

    positive: Float[Tensor, ""]
    negative: Float[Tensor, ""]


class Softcaps(nn.Module):
    """Two learned bounds in place of one; equal ones are the symmetric softcap.

    Args:
        trained: Whether an optimizer moves them; otherwise a checkpoint alone can make them unequal.

    Source: PR #2140, where no optimizer owned them.
    """

    def __init__(self, *, trained: bool) -> None:
        super().__init__()
        self.positive = nn.Parameter(torch.zeros(()), requires_grad=trained)
        self.negative = nn.Parameter(torch.zeros(()), requires_grad=trained)

    def forward(self) -> Caps:
        """The bounds."""
        return Caps(self.positive, self.negative)


def softcap(logits: Float[Tensor, "... vocab"], cap: float | Caps) -> Float[Tensor, "... vocab"]:
    """Bound logits smoothly to (-cap, cap): ``cap * tanh(logits / cap)``.

    One wrong but very confident token then costs at most about ``2 * cap`` nats.

    Args:
        logits: Unnormalised log-probabilities; the result has the same dtype.
        cap: Bound in nats, > 0 (checked when the recipe is built), or one for each sign.

    Source: arXiv 2408.00118, PR #1394.
    """
    if not isinstance(cap, Caps):
        return cap * torch.tanh(logits / cap)
    bound = torch.where(logits > 0, cap.positive.to(logits.dtype), cap.negative.to(logits.dtype))
    return bound * torch.tanh(logits / bound)


def raw_logits(hidden: Float[Tensor, "... width"], embedding: Float[Tensor, "vocab width"]) -> Float[Tensor, "... vocab"]:
    """``hidden @ embedding.T``, in the dtype of ``hidden``."""
    return nn.functional.linear(hidden, embedding.to(hidden.dtype))


def capped_logits(
    hidden: Float[Tensor, "... width"], embedding: Float[Tensor, "vocab width"], cap: float | Caps
) -> Float[Tensor, "... vocab"]:
    """Logits ``softcap(hidden @ embedding.T, cap)``: product in the dtype of ``hidden``, softcap in float32 or wider."""
    return wide_softcap(raw_logits(hidden, embedding), cap)


def wide_softcap(logits: Float[Tensor, "... vocab"], cap: float | Caps) -> Float[Tensor, "... vocab"]:
    """`softcap` in float32 or wider."""
    return softcap(logits.to(torch.promote_types(logits.dtype, torch.float32)), cap)


def plain_cross_entropy(
    hidden: Float[Tensor, "rows width"],
    embedding: Float[Tensor, "vocab width"],
    targets: Int[Tensor, " rows"],
    cap: float | Caps,
) -> Float[Tensor, ""]:
    """Mean of ``-log softmax(capped_logits)[target]`` in nats per token, written out: the twin of ``cross_entropy``."""
    return nn.functional.cross_entropy(capped_logits(hidden, embedding, cap), targets.long())


def cross_entropy(
    hidden: Float[Tensor, "rows width"],
    embedding: Float[Tensor, "vocab width"],
    targets: Int[Tensor, " rows"],
    cap: float | Caps,
    chunk_rows: int | None = None,
    *,
    fused: bool = False,
) -> Float[Tensor, ""]:
    """Mean of ``-log softmax(capped_logits)[target]`` in nats per token, computed chunk by chunk.

    While gradients are recorded each chunk also leaves its gradient behind, so that its logits can be dropped at once:
    memory is one chunk instead of rows x vocab, and no logit is computed twice.

    Args:
        hidden: Normalised output of the last layer.
        embedding: Tied embedding, one row per token id.
        targets: Next token of every row.
        cap: Bound of the logits in nats. With one for each sign, which have gradients too, the logits of a chunk are computed
            again on the way back.
        chunk_rows: Rows of a chunk; None fits a chunk to the device.
        fused: Whether one kernel makes loss and gradient of a chunk; of no effect with a cap for each sign, or while no
            gradients are recorded.
    """
    rows, vocab = len(hidden), len(embedding)
    if chunk_rows is None:
        chunk_rows = max(1, CHUNK_LOGITS.get(hidden.device.type, CHUNK_LOGITS["cuda"]) // vocab)
    targets = targets.long()
    recording = torch.is_grad_enabled() and (hidden.requires_grad or embedding.requires_grad)
    if recording and not isinstance(cap, Caps):
        return _ChunkedCrossEntropy.apply(hidden, embedding, targets, cap, chunk_rows, fused)  # pyright: ignore[reportReturnType]

    def summed(rows: Tensor, wanted: Tensor) -> Tensor:
        return nn.functional.cross_entropy(capped_logits(rows, embedding, cap), wanted, reduction="sum")

    total = torch.zeros((), dtype=torch.promote_types(hidden.dtype, torch.float32), device=hidden.device)
    for part, wanted in zip(hidden.split(chunk_rows), targets.split(chunk_rows), strict=True):
        loss: Any = checkpoint(summed, part, wanted, use_reentrant=False) if recording else summed(part, wanted)
        total = total + loss
    return total / rows


class _ChunkedCrossEntropy(torch.autograd.Function):
    """``cross_entropy`` with the gradients of hidden rows and embedding made in the forward pass."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, embedding: Tensor, targets: Tensor, cap: float, chunk_rows: int, fused: bool
    ) -> Tensor:
        loss_and_gradient = fused_loss_and_gradient if fused else plain_loss_and_gradient
        matrix = embedding.to(hidden.dtype)
        wide = torch.promote_types(hidden.dtype, torch.float32)
        grad_hidden = torch.empty_like(hidden)
        grad_matrix = torch.zeros(embedding.shape, dtype=wide, device=embedding.device)
        total = torch.zeros((), dtype=wide, device=hidden.device)
        for start in range(0, len(hidden), chunk_rows):
            part = slice(start, start + chunk_rows)
            rows = hidden[part]
            losses, error = loss_and_gradient(rows @ matrix.T, targets[part], cap, 1 / len(hidden))
            total = total + losses.sum()
            grad_hidden[part] = error @ matrix
            grad_matrix += error.T @ rows
        ctx.save_for_backward(grad_hidden, grad_matrix.to(embedding.dtype))
        return total / len(hidden)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None, None, None]:
        grad_hidden, grad_matrix = ctx.saved_tensors
        (grad,) = grads
        return grad_hidden * grad.to(grad_hidden.dtype), grad_matrix * grad.to(grad_matrix.dtype), None, None, None, None

"""The Triton kernel of ``fused_loss``; imported when it first runs."""

from typing import no_type_check

import torch
import triton  # pyright: ignore[reportMissingImports]
import triton.language as tl  # pyright: ignore[reportMissingImports]
from torch import Tensor

from fairway.kernels.fused import DTYPES, interpreted

# The interpreter takes one shape, which splits the small rows of tests; on a GPU the fastest is found at the first call.
CONFIGS = (
    [triton.Config({"BLOCK": 32})]
    if interpreted()
    else [triton.Config({"BLOCK": block}, num_warps=warps) for block, warps in ((1024, 4), (2048, 4), (4096, 8), (8192, 8))]
)


# Checking of annotations would wrap what Triton compiles from its source.
@triton.autotune(configs=CONFIGS, key=["vocab"])
@triton.jit
@no_type_check
def _kernel(logits, targets, losses, gradient, vocab, cap, scale, BLOCK: tl.constexpr):
    """One row: largest score and mass in a first walk over the columns, gradients in a second, from the cache."""
    row = tl.program_id(0).to(tl.int64)
    logits += row * vocab
    gradient += row * vocab
    # Scores lie in (0, 2 cap), so 0 is a lower bound of their largest.
    top = 0.0
    mass = 0.0
    for start in range(0, vocab, BLOCK):
        columns = start + tl.arange(0, BLOCK)
        inside = columns < vocab
        logit = tl.load(logits + columns, mask=inside, other=0.0).to(tl.float32)
        scores = tl.where(inside, 2 * cap * tl.sigmoid(logit * (2 / cap)), float("-inf"))
        higher = tl.maximum(top, tl.max(scores, 0))
        mass = mass * tl.exp(top - higher) + tl.sum(tl.exp(scores - higher), 0)
        top = higher
    target = tl.load(targets + row)
    known = (target >= 0) & (target < vocab)
    hit = tl.load(logits + target, mask=known, other=0.0).to(tl.float32)
    loss = top + tl.log(mass) - 2 * cap * tl.sigmoid(hit * (2 / cap))
    tl.store(losses + row, tl.where(known, loss, float("nan")))
    for start in range(0, vocab, BLOCK):
        columns = start + tl.arange(0, BLOCK)
        inside = columns < vocab
        squashed = tl.sigmoid(tl.load(logits + columns, mask=inside, other=0.0).to(tl.float32) * (2 / cap))
        share = tl.exp(2 * cap * squashed - top) / mass
        error = tl.where(columns == target, share - 1, share) * (4 * scale) * (squashed - squashed * squashed)
        tl.store(gradient + columns, error.to(gradient.dtype.element_ty), mask=inside)


def launch(logits: Tensor, targets: Tensor, cap: float, scale: float) -> tuple[Tensor, Tensor]:
    """Run the kernel, one program for each row; losses are float32."""
    assert logits.dtype in DTYPES, f"the kernel adds in float32, too little for {logits.dtype}"
    rows, vocab = logits.shape
    logits = logits.contiguous()
    losses, gradient = logits.new_empty(rows, dtype=torch.float32), torch.empty_like(logits)
    if rows:
        with torch.cuda.device_of(logits):
            run = _kernel[(rows,)]  # pyright: ignore[reportIndexIssue]
            run(logits, targets.contiguous(), losses, gradient, vocab, cap, scale)
    return losses, gradient

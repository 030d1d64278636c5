"""The only code that walks the text: cut, predict, pick the target's probability, commit, reveal."""

from collections.abc import Callable, Iterable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from fairway.base.errors import ValidityError
from fairway.score.ledger import Ledger
from fairway.score.plan import Block, Windows
from fairway.score.predictor import Predictor, Revealed, WindowBatch
from fairway.train.distributed import ONE_RANK, Ranks

NORMALISATION_TOLERANCE = 1e-3
"""Largest accepted |ln(sum of probabilities)|; float32 log-softmax over 8,192 entries stays below 1e-5."""


def score(
    predictor: Predictor,
    tokens: Int[Tensor, " targets_plus_1"],
    ledger: Ledger,
    plan: Iterable[Block],
    *,
    windows_per_forward: int = 32,
    ranks: Ranks = ONE_RANK,
    progress: Callable[[int], None] = lambda targets: None,
) -> Ledger:
    """Score every target of ``tokens`` once, block by block: all of a block is committed before any of it is revealed.

    Args:
        predictor: Gets windows without their last target; gets a block's targets only after they are in the ledger.
        tokens: The stream, on the CPU; token 0 is given, the rest are targets.
        ledger: Empty ledger of ``len(tokens) - 1`` targets; filled on every rank alike.
        plan: Blocks in the order of coding.
        windows_per_forward: Rows per call of ``predict``.
        ranks: Ranks that share each block's windows; the result does not depend on their number.
        progress: Called with the number of targets committed so far.

    Raises:
        ValidityError: a distribution is not normalised, a target is scored twice, or revealed too early.
    """
    for block in plan:
        inputs = _scored_inputs(block.windows)
        nats = np.zeros(len(inputs), dtype=np.float32)
        first, stop = ranks.share(len(block.windows))
        mine = block.windows.part(first, stop)
        done = len(_scored_inputs(block.windows.part(0, first)))
        for windows in mine.uniform_runs(windows_per_forward):
            part = _target_nats(predictor, tokens, windows)
            nats[done : done + len(part)] = part
            done += len(part)
        ranks.sum_(torch.from_numpy(nats))
        ledger.commit(inputs, nats)
        progress(ledger.committed)
        if block.reveal is not None:
            begin, end = block.reveal
            ledger.require_scored(begin, end)
            predictor.observe(Revealed(tokens[begin : end + 1], begin))
    return ledger


def _scored_inputs(windows: Windows) -> np.ndarray:
    """Stream positions of the scored inputs, window by window."""
    begins, ends = windows.starts + windows.first_scored, windows.starts + windows.lengths
    counts = ends - begins
    offsets = np.repeat(begins - np.concatenate([[0], np.cumsum(counts)[:-1]]), counts) if len(counts) else begins
    return (np.arange(counts.sum()) + offsets).astype(np.int64)


def _target_nats(predictor: Predictor, tokens: Int[Tensor, " n"], windows: Windows) -> np.ndarray:
    """``-ln p(target)`` at the scored positions of windows of equal shape, in order."""
    length, first = int(windows.lengths[0]), int(windows.first_scored[0])
    starts = torch.from_numpy(windows.starts)
    columns = starts[:, None] + torch.arange(length)
    batch = WindowBatch(inputs=tokens[columns], first_scored=first, starts=starts)
    log_probabilities = predictor.predict(batch)
    _require_normalised(log_probabilities, predictor.vocab_size)
    targets = tokens[columns[:, first:] + 1].to(log_probabilities.device)
    picked = log_probabilities.gather(-1, targets[..., None])
    # A probability that rounds to one may come out a few units in the last place above it.
    return (-picked).clamp_min(0.0).flatten().float().cpu().numpy()


def _require_normalised(log_probabilities: Float[Tensor, "rows scored vocab"], vocab_size: int) -> None:
    if log_probabilities.shape[-1] != vocab_size:
        raise ValidityError(f"a distribution has {log_probabilities.shape[-1]} entries; the vocabulary has {vocab_size}")
    excess = log_probabilities.logsumexp(-1).abs().max().item()
    if not excess <= NORMALISATION_TOLERANCE:
        raise ValidityError(
            f"a distribution sums to exp({excess:.3g}) instead of 1 (tolerance {NORMALISATION_TOLERANCE}); "
            "normalise over the whole vocabulary before the target is looked at"
        )

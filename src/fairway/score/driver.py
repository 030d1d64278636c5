"""The only code that walks the text: cut, predict, pick the target's probability, commit, reveal.

A list of blocks is walked in the order of the stream. A lane plan (``lanes.py``) makes its steps on the way, from what is
coded; its text, ledger and entries are in the order of coding throughout.

Where the text comes from is a ``Source``: it is known when it is scored, and comes out of a file symbol by symbol when it is
decoded (``codec.py``). Plan, order, predictor and checks are the same lines for both, which is why decoding proves a score.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Float32, Int
from torch import Tensor

from fairway.base.errors import ValidityError
from fairway.score.lanes import LanePlan, LaneRow, LaneRows, LaneStep, coding_order, cut_rows, in_coding_order, reveal_step
from fairway.score.ledger import Ledger
from fairway.score.plan import Block, Windows
from fairway.score.predictor import Predictor, Revealed, RevealedText, WindowBatch
from fairway.train.distributed import ONE_RANK, Ranks

NORMALISATION_TOLERANCE = 1e-3
"""Largest accepted |ln(sum of probabilities)|; float32 log-softmax over 8,192 entries stays below 1e-5."""


@runtime_checkable
class Source(Protocol):
    """Where targets come from."""

    @property
    def tokens(self) -> Int[Tensor, " targets_plus_1"]:
        """The text; valid up to the last target that ``price`` has gone over."""
        ...

    def price(self, predictor: Predictor, windows: Windows, frontier: int) -> Float32[np.ndarray, " targets"]:
        """Nats of the targets of windows of equal shape, in order, each under a distribution made before it was looked at.

        Args:
            predictor: What is asked.
            windows: Windows in the order of coding.
            frontier: First input that no ``observe`` has covered.
        """
        ...

    def price_rows(
        self, predictor: Predictor, rows: LaneRows, before: LaneRows, frontier: int
    ) -> Float32[np.ndarray, " targets"]:
        """The same for rows of equal shape of a lane plan; there are as many targets as the rows turn out to have.

        Args:
            predictor: What is asked.
            rows: Rows in the order of coding.
            before: The rows of their step that were priced before them.
            frontier: First entry of the step.
        """
        ...


class KnownText:
    """Text that lies before us: every target of a batch of windows is priced from one forward pass."""

    def __init__(self, tokens: Int[Tensor, " targets_plus_1"]) -> None:
        """Args: tokens: the stream, on the CPU; token 0 is given, the rest are targets."""
        self.tokens = tokens

    def price(self, predictor: Predictor, windows: Windows, frontier: int) -> Float32[np.ndarray, " targets"]:
        """Nats of the targets; the last target of each window is not among what the predictor gets."""
        batch = cut(self.tokens, windows, frontier)
        log_probabilities = checked_distributions(predictor, batch)
        columns = batch.starts[:, None] + torch.arange(batch.first_scored, batch.inputs.shape[1])
        return target_costs(log_probabilities, self.tokens[columns + 1]).flatten().numpy()

    def price_rows(
        self, predictor: Predictor, rows: LaneRows, before: LaneRows, frontier: int
    ) -> Float32[np.ndarray, " targets"]:
        """Nats of the targets; columns behind the end of a document have none."""
        batch, inside = cut_rows(self.tokens, rows, before, frontier)
        log_probabilities = checked_distributions(predictor, batch)
        columns = batch.starts[:, None] + torch.arange(batch.first_scored, batch.inputs.shape[1])
        targets = self.tokens[torch.where(inside, columns + 1, 0)]
        return target_costs(log_probabilities, targets)[inside].numpy()


def score(
    predictor: Predictor,
    text: Int[Tensor, " targets_plus_1"] | Source,
    ledger: Ledger,
    plan: Iterable[Block] | LanePlan,
    *,
    windows_per_forward: int = 32,
    ranks: Ranks = ONE_RANK,
    strict: bool = True,
    progress: Callable[[int], None] = lambda targets: None,
) -> Ledger:
    """Score every target once, block by block: all of a block is committed before any of it is revealed.

    Args:
        predictor: Gets windows without their last target; gets a block's targets only after they are in the ledger.
        text: The stream, or where it comes from; for a lane plan, in the order of coding.
        ledger: Empty ledger of one entry per target; filled on every rank alike.
        plan: Blocks in the order of coding, or a lane plan.
        windows_per_forward: Rows per call of ``predict``.
        ranks: Ranks that share each block's windows, or the lanes; the result does not depend on their number.
        strict: Refuse a plan that reveals a target before it is scored; False only to reproduce a published system that does.
        progress: Called with the number of targets committed so far.

    Raises:
        ValidityError: a distribution is not normalised, a target is scored twice, or revealed too early.
    """
    source = KnownText(text) if isinstance(text, Tensor) else text
    if isinstance(plan, LanePlan):
        return _score_lanes(predictor, source, ledger, plan, windows_per_forward, ranks, progress)
    frontier = 0
    for block in plan:
        inputs = scored_inputs(block.windows)
        nats = np.zeros(len(inputs), dtype=np.float32)
        for place, windows in _share(block.windows, windows_per_forward, ranks):
            part = source.price(predictor, windows, frontier)
            nats[place : place + len(part)] = part
        ranks.sum_(torch.from_numpy(nats))
        ledger.commit(inputs, nats)
        progress(ledger.committed)
        begin, end = block.reveal
        if strict:
            ledger.require_scored(begin, end)
        predictor.observe(Revealed(source.tokens[begin : end + 1], begin))
        frontier = end
    return ledger


def _score_lanes(
    predictor: Predictor,
    source: Source,
    ledger: Ledger,
    plan: LanePlan,
    windows_per_forward: int,
    ranks: Ranks,
    progress: Callable[[int], None],
) -> Ledger:
    """The same walk along a lane plan, where a step reaches as far as its rows turn out to have targets."""

    def reach(row: LaneRow, begin: int) -> tuple[int, bool]:
        return row.reach(source.tokens, begin)

    first, stop = ranks.share(plan.lanes)
    for step in plan.steps(reach):
        frontier = ledger.committed
        if not isinstance(step, LaneStep):
            predictor.observe(RevealedText(source.tokens[torch.from_numpy(step.text)], frontier))
            continue
        parts, begin, done = [], frontier, 0
        for run in LaneRows(step.rows, frontier).uniform_runs(windows_per_forward, (first, stop)):
            rows, before = LaneRows(run, begin), LaneRows(step.rows[:done], frontier)
            if first <= run[0].lane < stop:
                part = source.price_rows(predictor, rows, before, frontier)
            else:
                part = np.zeros(rows.begins(source.tokens)[-1] - begin, dtype=np.float32)
            parts.append(part)
            begin, done = begin + len(part), done + len(run)
        nats = np.concatenate(parts)
        ranks.sum_(torch.from_numpy(nats))
        ledger.commit(np.arange(frontier, begin), nats)
        progress(ledger.committed)
        predictor.observe(reveal_step(source.tokens, step, frontier))
    return ledger


AnySource = TypeVar("AnySource", bound=Source)


def walk(
    predictor: Predictor,
    tokens: Int[Tensor, " targets_plus_1"],
    ledger: Ledger,
    plan: Iterable[Block] | LanePlan,
    source: Callable[[Tensor], AnySource] = KnownText,
    **options: Any,
) -> AnySource:
    """`score` for known text and any plan: ``tokens`` and ``ledger`` are in the order of the stream.

    Args:
        predictor: What is asked.
        tokens: The stream.
        ledger: Empty ledger of the stream.
        plan: Blocks or a lane plan.
        source: Makes the source of the text in the order of coding.
        options: As for `score`.

    Returns:
        What ``source`` made.

    Raises:
        ValidityError: as `score`; or a lane plan was made for another text.
    """
    if not isinstance(plan, LanePlan):
        text = source(tokens)
        score(predictor, text, ledger, plan, **options)
        return text
    order = coding_order(plan, tokens)
    text, walked = source(in_coding_order(tokens, order)), Ledger(ledger.byte_costs[order])
    score(predictor, text, walked, plan, **options)
    ledger.commit(order, walked.nats)
    return text


def cut(tokens: Int[Tensor, " targets_plus_1"], windows: Windows, frontier: int, coded_stop: int | None = None) -> WindowBatch:
    """Windows of equal shape as rows, with the coded text that came after the last ``observe``.

    Args:
        tokens: The stream.
        windows: Windows of equal shape.
        frontier: First input that no ``observe`` has covered.
        coded_stop: Number of leading tokens that are coded, where the rows reach beyond them; by default all of the rows are.
    """
    starts = torch.from_numpy(windows.starts)
    length = int(windows.lengths[0])
    return WindowBatch(
        inputs=tokens[starts[:, None] + torch.arange(length)],
        first_scored=int(windows.first_scored[0]),
        starts=starts,
        coded=tokens[frontier : int(windows.starts[-1]) + length if coded_stop is None else coded_stop],
        coded_start=frontier,
    )


def checked_distributions(predictor: Predictor, batch: WindowBatch) -> Float[Tensor, "rows scored vocab"]:
    """The predictor's log-probabilities, refused unless each covers the vocabulary and sums to one.

    Raises:
        ValidityError: wrong number of entries, or a sum that is not one.
    """
    log_probabilities = predictor.predict(batch)
    if log_probabilities.shape[-1] != predictor.vocab_size:
        raise ValidityError(
            f"a distribution has {log_probabilities.shape[-1]} entries; the vocabulary has {predictor.vocab_size}"
        )
    excess = log_probabilities.logsumexp(-1).abs().max().item()
    if not excess <= NORMALISATION_TOLERANCE:
        raise ValidityError(
            f"a distribution sums to exp({excess:.3g}) instead of 1 (tolerance {NORMALISATION_TOLERANCE}); "
            "normalise over the whole vocabulary before the target is looked at"
        )
    return log_probabilities


def cost(log_probability: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """``-ln p`` in float32; a probability that rounds to a few units in the last place above one costs nothing."""
    return (-log_probability).clamp_min(0.0).float()


def target_costs(log_probabilities: Float[Tensor, "*shape vocab"], targets: Int[Tensor, "*shape"]) -> Float32[Tensor, "*shape"]:
    """`cost` of the targets under their distributions, on the CPU."""
    picked = log_probabilities.gather(-1, targets.to(log_probabilities.device)[..., None])
    return cost(picked).squeeze(-1).cpu()


def scored_inputs(windows: Windows) -> np.ndarray:
    """Stream positions of the scored inputs, window by window."""
    begins, ends = windows.starts + windows.first_scored, windows.starts + windows.lengths
    counts = ends - begins
    offsets = np.repeat(begins - np.concatenate([[0], np.cumsum(counts)[:-1]]), counts) if len(counts) else begins
    return (np.arange(counts.sum()) + offsets).astype(np.int64)


def _share(windows: Windows, largest: int, ranks: Ranks) -> Iterator[tuple[int, Windows]]:
    """This rank's windows in batches of one shape, each with the place of its first target within the block."""
    first, stop = ranks.share(len(windows))
    place = len(scored_inputs(windows.part(0, first)))
    for batch in windows.part(first, stop).uniform_runs(largest):
        yield place, batch
        place += len(scored_inputs(batch))

"""Lanes: documents that are scored side by side, in an order of coding that is not that of the stream.

Let ``y`` be the tokens in the order of coding, ``y[0]`` the document marker that opens the stream and is given. Entry ``k`` of
that order is the target ``y[k + 1]``. A row is one window of one document: its known inputs lie at known places of ``y``,
whatever was coded between them, and its targets are the next entries. The first input of every document is a document marker,
for which place 0 stands.

A lane plan is a generator. It is told how many targets each row had as soon as that is known, which is after they were coded,
and makes the next rows from that alone; so a decoder can follow it.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Int, Int64
from torch import Tensor

from fairway.base.errors import ValidityError
from fairway.data.tokenizer import BOS
from fairway.score.predictor import LaneBatch, RevealedLanes, Turn

RECENT = 32
"""Tokens of its document that a row shows to an n-gram scan; the longest context of a tilt."""


@dataclass(frozen=True, eq=False)
class LaneRow:
    """One chunk of one document."""

    lane: int
    document: int
    """Number of the document in the stream."""
    position: int
    """Inputs of the document before the first scored one."""
    history: Int64[np.ndarray, " known"]
    """Places in ``y`` of the window's known inputs; the last of them predicts the first target."""
    recent: Int64[np.ndarray, " recent"]
    """Places of the document's last `RECENT` inputs, of which the window may hold fewer."""
    most: int
    """Targets at most."""
    open_ended: bool
    """Whether a document marker among the targets ends the row and its document; otherwise it has ``most`` targets."""
    final: bool
    """Whether this is known to be the document's last row."""

    @property
    def shape(self) -> tuple[int, int]:
        """Known inputs and most targets; rows of equal shape can be computed together."""
        return len(self.history), self.most

    def reach(self, tokens: Int[Tensor, " tokens"], begin: int) -> tuple[int, bool]:
        """Number of the row's targets if they begin at entry ``begin``, and whether its document ends with them.

        ``tokens`` holds ``y`` as far as the row reaches.
        """
        if not self.open_ended:
            return self.most, self.final
        targets = tokens[begin + 1 : begin + 1 + self.most]
        ends = (targets == BOS).nonzero()
        # A text that is damaged may end inside a document that a marker should end.
        return (int(ends[0]) + 1, True) if len(ends) else (len(targets), begin + 1 + len(targets) == len(tokens))


@dataclass(frozen=True, eq=False)
class LaneRows:
    """Consecutive rows of a step."""

    rows: tuple[LaneRow, ...]
    begin: int
    """Entry of the first target of the first row."""

    def __len__(self) -> int:
        return len(self.rows)

    def begins(self, tokens: Int[Tensor, " tokens"]) -> list[int]:
        """Entry of the first target of every row, then the entry after the last."""
        begins = [self.begin]
        for row in self.rows:
            begins.append(begins[-1] + row.reach(tokens, begins[-1])[0])
        return begins

    def uniform_runs(self, largest: int, share: tuple[int, int]) -> Iterator[tuple[LaneRow, ...]]:
        """Consecutive rows of equal shape, at most ``largest`` at a time, with lanes all in ``[share)`` or all outside."""
        run: list[LaneRow] = []
        for row in self.rows:
            if run and (_kind(row, share) != _kind(run[0], share) or len(run) == largest):
                yield tuple(run)
                run = []
            run.append(row)
        if run:
            yield tuple(run)


def _kind(row: LaneRow, share: tuple[int, int]) -> tuple[tuple[int, int], bool]:
    return row.shape, share[0] <= row.lane < share[1]


@dataclass(frozen=True, eq=False)
class LaneStep:
    """One chunk of every document at work: scored with one state of the predictor, lane by lane, then revealed."""

    rows: tuple[LaneRow, ...]


@dataclass(frozen=True, eq=False)
class Renewal:
    """Adapters are drawn anew, after the network was trained on text that is coded already."""

    text: Int64[np.ndarray, " text"]
    """Places in ``y`` of what the network is trained on; none where only the adapters change."""


Reach = Callable[[LaneRow, int], tuple[int, bool]]
"""How many targets a row had whose targets begin at an entry, and whether its document ended; asked after it was coded."""


@runtime_checkable
class LanePlan(Protocol):
    """Which documents are scored when."""

    @property
    def targets(self) -> int:
        """Number of targets of the text."""
        ...

    @property
    def lanes(self) -> int:
        """Lanes are numbered below this."""
        ...

    def starts(self, tokens: Int[Tensor, " targets_plus_1"]) -> Int64[np.ndarray, " documents"]:
        """Positions in the stream of the documents' first inputs."""
        ...

    def steps(self, reach: Reach) -> Iterator[LaneStep | Renewal]:
        """The steps in the order of coding; ``reach`` is asked for the rows of a step after it was coded."""
        ...


def coding_order(plan: LanePlan, tokens: Int[Tensor, " targets_plus_1"]) -> Int64[np.ndarray, " targets"]:
    """Stream entry of every target in the order of coding, for known text.

    Raises:
        ValidityError: the plan does not cover the text; it was made for another number of targets or documents.
    """
    starts = plan.starts(tokens)
    lengths = np.diff(np.append(starts, len(tokens) - 1))
    order: list[np.ndarray] = []

    def reach(row: LaneRow, begin: int) -> tuple[int, bool]:
        if not row.open_ended:
            return row.most, row.final
        if row.document >= len(lengths):
            return 0, True
        left = int(lengths[row.document]) - row.position
        return min(row.most, left), left <= row.most

    for step in plan.steps(reach):
        if isinstance(step, LaneStep):
            for row in step.rows:
                count, _ = reach(row, 0)
                first = int(starts[row.document]) + row.position if row.document < len(starts) else len(tokens)
                order.append(np.arange(first, first + count))
    entries = np.concatenate(order) if order else np.zeros(0, np.int64)
    if not np.array_equal(np.sort(entries), np.arange(len(tokens) - 1)):
        raise ValidityError(
            f"the plan codes {len(entries)} targets of a text of {len(tokens) - 1} targets and {len(starts)} documents; "
            "make it for this text"
        )
    return entries


def decoded_order(plan: LanePlan, coded: Int[Tensor, " targets_plus_1"]) -> Int64[np.ndarray, " targets"]:
    """As `coding_order`, from the tokens in the order of coding alone."""
    places: list[tuple[int, int]] = []
    for step in plan.steps(lambda row, begin: row.reach(coded, begin)):
        if isinstance(step, LaneStep):
            for row in step.rows:
                count, _ = row.reach(coded, len(places))
                places += [(row.document, row.position + offset) for offset in range(count)]
    stream = sorted(range(len(places)), key=places.__getitem__)
    order = np.empty(len(places), np.int64)
    order[stream] = np.arange(len(places))
    return order


def document_starts(tokens: Int[Tensor, " targets_plus_1"]) -> Int64[np.ndarray, " documents"]:
    """Position 0, where the given token stands, and those of the document markers after it.

    The last may be that of the last token; its document has no targets then.
    """
    return np.concatenate([np.zeros(1, np.int64), 1 + (tokens[1:] == BOS).nonzero().flatten().numpy()])


def in_coding_order(
    tokens: Int[Tensor, " targets_plus_1"], order: Int64[np.ndarray, " targets"]
) -> Int[Tensor, " targets_plus_1"]:
    """``y``: the given token, then the targets in the order of coding."""
    return torch.cat([tokens[:1], tokens[1:][torch.from_numpy(order)]])


def in_stream_order(
    coded: Int[Tensor, " targets_plus_1"], order: Int64[np.ndarray, " targets"]
) -> Int[Tensor, " targets_plus_1"]:
    """The inverse of `in_coding_order`."""
    tokens = torch.empty_like(coded)
    tokens[0] = coded[0]
    tokens[1 + torch.from_numpy(order)] = coded[1:]
    return tokens


def cut_rows(
    tokens: Int[Tensor, " tokens"], rows: LaneRows, before: LaneRows, frontier: int, coded_stop: int | None = None
) -> tuple[LaneBatch, Bool[Tensor, "rows scored"]]:
    """Rows of equal shape as a batch, and which of its scored columns have a target.

    Inputs behind the end of a document are token 0, as are those that are not coded yet.

    Args:
        tokens: ``y``.
        rows: Rows of equal shape.
        before: The rows of the step before them.
        frontier: First entry of the step.
        coded_stop: Number of leading tokens of ``y`` that are coded, where the last row reaches beyond; by default all are.
    """
    begins = rows.begins(tokens)
    known, most = rows.rows[0].shape
    inputs = torch.zeros(len(rows), known + most - 1, dtype=tokens.dtype)
    inside = torch.zeros(len(rows), most, dtype=torch.bool)
    for index, (row, begin, end) in enumerate(zip(rows.rows, begins, begins[1:], strict=False)):
        inputs[index, :known] = tokens[torch.from_numpy(row.history)]
        within = tokens[begin + 1 : end]
        inputs[index, known : known + len(within)] = within
        inside[index, : end - begin] = True
    turns = [*_turns(tokens, before), *_turns(tokens, rows)]
    batch = LaneBatch(
        inputs=inputs,
        first_scored=known - 1,
        starts=torch.tensor(begins[:-1]) - (known - 1),
        coded=tokens[frontier : begins[-1] if coded_stop is None else coded_stop],
        coded_start=frontier,
        lanes=tuple(row.lane for row in rows.rows),
        turns=tuple(turns),
    )
    return batch, inside


def reveal_step(tokens: Int[Tensor, " tokens"], step: LaneStep, frontier: int) -> RevealedLanes:
    """What a predictor learns after a step was coded: its text, and the windows of the documents that go on."""
    rows = LaneRows(step.rows, frontier)
    begins = rows.begins(tokens)
    going = [(row, begin) for row, begin in zip(rows.rows, begins, strict=False) if not row.reach(tokens, begin)[1]]
    first = going[0][0].shape if going else (1, 1)
    assert all(row.shape == first for row, _ in going), "documents that go on are at the same chunk"
    inputs = torch.zeros(len(going), first[0] + first[1] - 1, dtype=tokens.dtype)
    targets = torch.zeros(len(going), first[1], dtype=tokens.dtype)
    for index, (row, begin) in enumerate(going):
        inputs[index, : first[0]] = tokens[torch.from_numpy(row.history)]
        inputs[index, first[0] :] = tokens[begin + 1 : begin + first[1]]
        targets[index] = tokens[begin + 1 : begin + 1 + first[1]]
    lanes = tuple(row.lane for row, _ in going)
    return RevealedLanes(
        tokens=tokens[frontier : begins[-1] + 1],
        start=frontier,
        inputs=inputs,
        targets=targets,
        lanes=lanes,
        ended=tuple(row.lane for row in step.rows if row.lane not in lanes),
        turns=tuple(_turns(tokens, rows)),
    )


def _turns(tokens: Int[Tensor, " tokens"], rows: LaneRows) -> list[Turn]:
    begins = rows.begins(tokens)
    return [
        Turn(begin, tokens[torch.from_numpy(row.recent)].numpy(), row.document, row.position)
        for row, begin in zip(rows.rows, begins, strict=False)
    ]


class Lane:
    """A document that is being coded."""

    def __init__(self, lane: int, document: int, keep: int) -> None:
        """Begin a document.

        Args:
            lane: Which adapters it has.
            document: Its number in the stream.
            keep: Number of its last inputs that windows may still need.
        """
        self.lane, self.document, self.keep = lane, document, max(keep, RECENT)
        self.position = 0
        self.places = np.zeros(1, np.int64)
        self.chunks: list[tuple[int, int]] = []

    def row(self, start: int, most: int, *, open_ended: bool, final: bool) -> LaneRow:
        """The next row, whose window begins at input ``start`` of the document."""
        history, recent = self.places[start - self.position - 1 :], self.places[-RECENT:]
        return LaneRow(self.lane, self.document, self.position, history, recent, most, open_ended, final)

    def advance(self, begin: int, count: int) -> None:
        """Take in ``count`` targets that begin at entry ``begin``."""
        self.places = np.concatenate([self.places, np.arange(begin + 1, begin + 1 + count)])[-self.keep :]
        self.chunks.append((begin + 1, begin + 1 + count))
        self.position += count

    @property
    def text(self) -> list[np.ndarray]:
        """Places of all targets that the document has had."""
        return [np.arange(*chunk) for chunk in self.chunks]

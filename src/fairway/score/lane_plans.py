"""Which documents are scored side by side: in the order of the stream, or as PR #2140 published it."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Int, Int64
from torch import Tensor

from fairway.config import DocumentAdaptationConfig
from fairway.score.lanes import Lane, LaneRow, LaneStep, Reach, Renewal, document_starts


def phase_bounds(config: DocumentAdaptationConfig) -> list[int]:
    """Numbers of documents after which the network is trained: ``floor(P k / phases)`` for k = 1 .. phases; none for 0."""
    bounds = [config.prefix_documents * (k + 1) // max(config.phases, 1) for k in range(config.phases)]
    return sorted({bound for bound in bounds if bound > 0})


def chunk_size(config: DocumentAdaptationConfig, position: int) -> int:
    """Size of the chunk that begins ``position`` inputs into a document: the limits that it has reached decide."""
    return config.chunk_sizes[sum(position >= edge for edge in config.chunk_limits)]


class StrictPlan:
    """Documents in the order of the stream, ``lanes`` at a time; nothing is decided by a length that is not coded yet.

    A round takes the next documents. Step after step, one chunk of each is scored, lane by lane, until all have coded the
    marker of the next document, which is a document's last target. Sizes of chunks depend on the position in the document, and
    windows begin where a whole chunk would have them begin. A round never crosses the end of a phase's documents, so that the
    network is trained on exactly those. The last document of the text, which no marker ends, is a round of its own: the number
    of targets says where it ends. The number of targets and that of documents are side information.
    """

    def __init__(self, targets: int, documents: int, config: DocumentAdaptationConfig, context: int) -> None:
        """Plan a text.

        Args:
            targets: Number of targets.
            documents: Number of document markers, the given first token included.
            config: Lanes, chunks and phases.
            context: Longest window.
        """
        self.targets, self.documents, self.config, self.context = targets, documents, config, context
        self.lanes = config.lanes

    def starts(self, tokens: Int[Tensor, " targets_plus_1"]) -> Int64[np.ndarray, " documents"]:
        """Where markers open the documents; the last one goes on to the end of the text."""
        return document_starts(tokens)[: self.documents]

    def steps(self, reach: Reach) -> Iterator[LaneStep | Renewal]:
        """The steps, made from what ``reach`` has told of earlier ones."""
        coded, first, last = 0, 0, self.documents - 1
        bounds = [bound for bound in phase_bounds(self.config) if bound <= last]
        prefix: list[np.ndarray] = [np.zeros(1, np.int64)]
        while first < last:
            stop = min(first + self.config.lanes, last, *(bound for bound in bounds if bound > first))
            lanes = [Lane(number, document, self.context) for number, document in enumerate(range(first, stop))]
            active = lanes
            while active:
                rows = [self._row(lane) for lane in active]
                yield LaneStep(tuple(rows))
                coded, active = advance(active, rows, coded, reach)
            first = stop
            if bounds and first <= bounds[-1]:
                prefix += [part for lane in lanes for part in lane.text]
            if first in bounds:
                yield Renewal(np.concatenate(prefix))
        lane, left = Lane(0, last, self.context), self.targets - coded
        while left > 0:
            row = self._row(lane, left)
            yield LaneStep((row,))
            coded, _ = advance([lane], [row], coded, reach)
            left = self.targets - coded

    def _row(self, lane: Lane, left: int | None = None) -> LaneRow:
        """The next row of a document; ``left`` is the number of its targets where that is known."""
        size = chunk_size(self.config, lane.position)
        start = max(0, lane.position + size - self.context)
        if left is None:
            return lane.row(start, size, open_ended=True, final=False)
        return lane.row(start, min(size, left), open_ended=False, final=left <= size)


class PublishedPlan:
    """The order of PR #2140 on one device: batches of documents of similar length, the longest first.

    Documents are sorted by length and cut into batches of ``lanes``; the last batch, of the longest, may be smaller and has
    adapters of its own. The longest document of a batch decides the size of its chunks; the window of a document's last chunk
    begins ``context`` inputs before its end. After the batch with which the number of scored documents reaches a bound of the
    phases, the network is trained on that many of them, the shortest. Everything here is decided by the lengths of all
    documents, which no decoder knows.
    """

    def __init__(
        self, starts: Int64[np.ndarray, " documents"], targets: int, config: DocumentAdaptationConfig, context: int
    ) -> None:
        """Plan a text.

        Args:
            starts: Positions of the document markers; a marker that is the last token begins no document.
            targets: Number of targets.
            config: Lanes, chunks and phases.
            context: Longest window.
        """
        self.targets, self.config, self.context = targets, config, context
        self.lanes = config.lanes
        self.begins = starts[starts < targets]
        self.lengths = np.diff(np.append(self.begins, targets))

    def starts(self, tokens: Int[Tensor, " targets_plus_1"]) -> Int64[np.ndarray, " documents"]:
        """Those that the plan was made from."""
        return self.begins

    def steps(self, reach: Reach) -> Iterator[LaneStep | Renewal]:
        """The steps; ``reach`` is asked nothing that the lengths do not tell."""
        order = np.argsort(self.lengths, kind="stable")
        batches = [order[first : first + self.config.lanes] for first in range(0, len(order), self.config.lanes)]
        done: dict[int, list[np.ndarray]] = {}
        coded, bounds = 0, phase_bounds(self.config)
        for number in reversed(range(len(batches))):
            lanes = [Lane(lane, int(document), self.context) for lane, document in enumerate(batches[number])]
            longest = int(self.lengths[batches[number]].max()) + 1
            size = self.config.chunk_sizes[sum(longest > edge for edge in self.config.chunk_limits)]
            active = lanes
            while active:
                rows = [self._row(lane, size) for lane in active]
                yield LaneStep(tuple(rows))
                coded, active = advance(active, rows, coded, reach)
            done |= {lane.document: [np.zeros(1, np.int64), *lane.text] for lane in lanes} if bounds else {}
            passed = [bound for bound in bounds if bound <= len(done)]
            if passed and number:
                bounds = [bound for bound in bounds if bound > passed[-1]]
                kept = [document for document in order.tolist() if document in done][: passed[-1]]
                yield Renewal(np.concatenate([part for document in kept for part in done[document]]))
            elif len(lanes) < self.config.lanes and self.config.warm_start and number:
                yield Renewal(np.zeros(0, np.int64))

    def _row(self, lane: Lane, size: int) -> LaneRow:
        length = int(self.lengths[lane.document])
        end = min(lane.position + size, length)
        return lane.row(max(0, end - self.context), end - lane.position, open_ended=False, final=end == length)


def advance(lanes: list[Lane], rows: list[LaneRow], coded: int, reach: Reach) -> tuple[int, list[Lane]]:
    """Take in a step that was coded; the number of coded targets after it, and the documents that go on."""
    going = []
    for lane, row in zip(lanes, rows, strict=True):
        count, ended = reach(row, coded)
        lane.advance(coded, count)
        coded += count
        if not ended:
            going.append(lane)
    return coded, going

"""Figures that the plots show, computed from a run's records: pure NumPy, long ledgers in pieces of bounded memory."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

from fairway.report.records import Ledger

BITS_PER_NAT = 1.0 / math.log(2.0)
PIECE = 1 << 20
"""Targets held in temporaries at a time."""


@dataclass(frozen=True)
class PositionCurve:
    """Mean cost by position, in bins whose width grows with the position."""

    first: Int64[np.ndarray, " bins"]
    """First position of each bin, counted from 1."""
    last: Int64[np.ndarray, " bins"]
    count: Int64[np.ndarray, " bins"]
    """Targets in each bin."""
    mean: dict[str, Float64[np.ndarray, " bins"]]
    """Nats per target, pass by pass."""
    error: dict[str, Float64[np.ndarray, " bins"]]
    """Standard error of the mean, taking targets as independent."""

    @property
    def centre(self) -> Float64[np.ndarray, " bins"]:
        """Geometric middle of each bin."""
        return np.sqrt(self.first * self.last.astype(np.float64))


@dataclass(frozen=True)
class RunningCurve:
    """Bits per byte of everything up to a point of the stream."""

    bytes: Int64[np.ndarray, " points"]
    bits_per_byte: dict[str, Float64[np.ndarray, " points"]]


@dataclass(frozen=True)
class DocumentScores:
    """Bits per byte of each document that has bytes."""

    bytes: Int64[np.ndarray, " documents"]
    bits_per_byte: dict[str, Float64[np.ndarray, " documents"]]


def log_edges(longest: int, per_octave: int = 2) -> Int64[np.ndarray, " edges"]:
    """Borders of bins over positions 1..longest: ``unique(round(2 ** (k / per_octave)))``, the last beyond ``longest``."""
    octaves = math.ceil(math.log2(longest + 1)) * per_octave
    borders = np.unique(np.rint(2.0 ** (np.arange(octaves + 1) / per_octave)).astype(np.int64))
    return np.append(borders[borders <= longest], longest + 1)


def by_window_position(ledger: Ledger) -> PositionCurve:
    """Cost by position inside consecutive chunks of ``context`` targets, the windows of a plain pass."""
    context = min(ledger.context, len(ledger))
    edges = log_edges(context)
    whole = len(ledger) // context * context

    def sums(values: np.ndarray, power: int) -> np.ndarray:
        total = np.zeros(context)
        step = max(1, PIECE // context) * context
        for begin in range(0, whole, step):
            total += (values[begin : min(begin + step, whole)].astype(np.float64) ** power).reshape(-1, context).sum(axis=0)
        tail = values[whole:].astype(np.float64) ** power
        total[: len(tail)] += tail
        return np.add.reduceat(total, edges[:-1] - 1)

    counts = sums(np.ones(len(ledger), dtype=np.uint8), 1).astype(np.int64)
    return _position_curve(edges, counts, {name: (sums(nats, 1), sums(nats, 2)) for name, nats in ledger.nats.items()})


def by_document_position(ledger: Ledger) -> PositionCurve:
    """Cost by position inside the document of the target."""
    targets = len(ledger)
    starts = ledger.documents
    longest = int(np.diff(np.append(starts, targets)).max())
    edges = log_edges(longest)
    bin_of = np.repeat(np.arange(len(edges) - 1), np.diff(edges))
    counts = np.zeros(len(edges) - 1, dtype=np.int64)
    moments = {name: np.zeros((2, len(counts))) for name in ledger.nats}
    for begin in range(0, targets, PIECE):
        place = np.arange(begin, min(begin + PIECE, targets))
        bins = bin_of[place - starts[np.searchsorted(starts, place, side="right") - 1]]
        counts += np.bincount(bins, minlength=len(counts))
        for name, nats in ledger.nats.items():
            values = nats[begin : begin + PIECE].astype(np.float64)
            moments[name][0] += np.bincount(bins, values, len(counts))
            moments[name][1] += np.bincount(bins, values * values, len(counts))
    return _position_curve(edges, counts, {name: (pair[0], pair[1]) for name, pair in moments.items()})


def _position_curve(edges: np.ndarray, counts: np.ndarray, moments: dict[str, tuple[np.ndarray, np.ndarray]]) -> PositionCurve:
    """Means and standard errors of the bins that hold at least two targets."""
    kept = counts >= 2
    number = counts[kept].astype(np.float64)
    mean, error = {}, {}
    for name, (total, squares) in moments.items():
        mean[name] = total[kept] / number
        spread = np.maximum(squares[kept] / number - mean[name] ** 2, 0.0) * number / (number - 1)
        error[name] = np.sqrt(spread / number)
    return PositionCurve(edges[:-1][kept], (edges[1:] - 1)[kept], counts[kept].astype(np.int64), mean, error)


def running(ledger: Ledger, points: int = 400) -> RunningCurve:
    """Bits per byte of the first ``k`` targets at ``points`` places, equally spaced over the stream."""
    stops = np.unique(np.linspace(0, len(ledger), min(points, len(ledger)) + 1).astype(np.int64))
    text = np.cumsum(np.add.reduceat(ledger.bytes.astype(np.int64), stops[:-1]))
    kept = text > 0
    return RunningCurve(
        text[kept],
        {
            name: np.cumsum(np.add.reduceat(nats, stops[:-1], dtype=np.float64))[kept] * BITS_PER_NAT / text[kept]
            for name, nats in ledger.nats.items()
        },
    )


def by_document(ledger: Ledger) -> DocumentScores:
    """Bits per byte of each document; one without any bytes has none and is left out."""
    text = np.add.reduceat(ledger.bytes.astype(np.int64), ledger.documents)
    kept = text > 0
    return DocumentScores(
        text[kept],
        {
            name: np.add.reduceat(nats, ledger.documents, dtype=np.float64)[kept] * BITS_PER_NAT / text[kept]
            for name, nats in ledger.nats.items()
        },
    )


def smoothed(values: Float64[np.ndarray, " events"], share: float = 0.03) -> Float64[np.ndarray, " events"]:
    """Centred running mean over ``share`` of the events, narrower towards both ends so that it stays centred."""
    reach = max(1, round(len(values) * share / 2))
    place = np.arange(len(values))
    half = np.minimum(reach, np.minimum(place, len(values) - 1 - place))
    total = np.concatenate([[0.0], np.cumsum(values)])
    return (total[place + half + 1] - total[place - half]) / (2 * half + 1)

"""What codes of a trellis cost: bits by parity and by the spread of row and column, estimated from codes and refined in rounds.

A code costs ``-log2 p(j | parity of j, class)``. The class of a weight is the sum of one number for its row and one for its
column, the logarithms of how widely both spread in steps of the grid, a quarter octave apart. In each class the shares of the
codes that occur are mixed with those of a Gaussian of its spread, with a little of a two-sided exponential so that an outlier
is not bent towards zero. Positive and negative codes share their counts.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int16, Int64, Num, UInt8

from fairway.quant.grid import LARGEST_CODE
from fairway.quant.trellis import PathEncoder, Prices

RATE_WEIGHT = 0.36
"""mu, in squared steps per bit: ``2 ln 2 D`` with the mean squared error ``D = 0.26`` of a path, the exchange of error for
rate at high rate, where ``D`` falls by a factor of 4 with one more bit."""

CLASSES_PER_OCTAVE = 4
LEAST_SPREAD, MOST_SPREAD = -6.0, 12.0
"""Ends of the logarithms of spreads; a row of zeros has none."""

PRIOR_CODES = 32.0
"""Weight of the Gaussian in a class, in codes."""
TAIL = 0.05
"""Share of the exponential in it."""

ROUNDS = 2
"""Times that the prices are estimated anew."""
PILOT_CODES = 1 << 17
"""Codes that the estimates come from, at most; columns beyond are left out."""


@dataclass(frozen=True, eq=False)
class Spreads:
    """Classes of rows and columns.

    Attributes:
        rows: Class of each row, from 0.
        columns: Class of each column, from 0; both add up to the class of a weight.
        first: Base-2 logarithm of the spread of class 0, in steps of the grid.
    """

    rows: UInt8[np.ndarray, "rows"]
    columns: UInt8[np.ndarray, "columns"]
    first: float

    @property
    def count(self) -> int:
        """Number of classes."""
        return int(self.rows.max()) + int(self.columns.max()) + 1

    @classmethod
    def of(cls, values: Float64[np.ndarray, "rows columns"]) -> "Spreads":
        """Spreads of ``values``, in steps: root mean squares of the rows, and of the columns of what these leave."""
        rows = np.sqrt(np.square(values).mean(axis=1))
        columns = np.sqrt(np.square(values / np.maximum(rows, 2**LEAST_SPREAD)[:, None]).mean(axis=0))
        row, column = (np.rint(_logarithms(part) * CLASSES_PER_OCTAVE).astype(np.int64) for part in (rows, columns))
        first = int(row.min() + column.min()) / CLASSES_PER_OCTAVE
        return cls((row - row.min()).astype(np.uint8), (column - column.min()).astype(np.uint8), first)

    def classes(self) -> Int64[np.ndarray, "rows columns"]:
        """Class of every weight."""
        return self.rows.astype(np.int64)[:, None] + self.columns


@dataclass(frozen=True, eq=False)
class PriceList:
    """Prices of all columns: ``table[class]`` holds the price of code j at ``j + limit``, in squared steps."""

    table: Float64[np.ndarray, "classes codes"]
    spreads: Spreads

    def of_column(self, index: int) -> Prices:
        """Prices for the rows of one column."""
        return Prices(self.table[self.spreads.columns[index] :], self.spreads.rows)


def price_list(spreads: Spreads, limit: int, codes: Int16[np.ndarray, "rows seen"] | None = None, every: int = 1) -> PriceList:
    """Prices from a Gaussian of each class's spread, mixed with the codes that occurred in it.

    Args:
        spreads: Classes of the rows and columns of the matrix.
        limit: Largest code that gets a price.
        codes: What was seen; None leaves the Gaussian alone.
        every: Of how many columns one was seen, from the first.
    """
    magnitudes = np.arange(limit + 1)
    counts = np.zeros((spreads.count, limit + 1))
    if codes is not None:
        cells = spreads.classes()[:, ::every] * (limit + 1) + np.abs(codes)
        counts = np.bincount(cells.ravel(), minlength=counts.size).reshape(counts.shape).astype(np.float64)
    logs = spreads.first + np.arange(spreads.count) / CLASSES_PER_OCTAVE
    # A code and its negative share a count; 0 has one of its own.
    twins = np.where(magnitudes == 0, 1.0, 2.0)
    bits = np.empty_like(counts)
    for parity in (0, 1):
        own = magnitudes % 2 == parity
        prior = _prior(np.exp2(logs)[:, None], magnitudes[own], twins[own])
        seen = counts[:, own]
        shares = (seen + PRIOR_CODES * prior) / (seen.sum(axis=1, keepdims=True) + PRIOR_CODES)
        bits[:, own] = -np.log2(shares / twins[own])
    prices = RATE_WEIGHT * bits
    return PriceList(np.concatenate([prices[:, :0:-1], prices], axis=1), spreads)


def pilot(
    values: Float64[np.ndarray, "rows columns"], weights: Float64[np.ndarray, "rows"], states: int, *, centroids: bool
) -> tuple[float, PriceList]:
    """Gain and prices for a matrix, from paths through some of its columns; errors of other columns are not yet in them.

    Args:
        values: The matrix in steps of the grid without a gain.
        weights: What a squared error counts in each row.
        states: Of the trellis.
        centroids: Whether to fit the gain; otherwise it is 1.
    """
    limit = min(LARGEST_CODE, int(np.ceil(1.5 * np.abs(values).max())) + 16)
    every = -(-values.size // PILOT_CODES)
    spreads, sample = Spreads.of(values), np.ascontiguousarray(values[:, ::every].T)
    encoder, prices, gain = PathEncoder(states, len(values)), price_list(spreads, limit), 1.0
    for _ in range(ROUNDS):
        codes = np.stack([encoder.encode(x / gain, prices.of_column(every * index)) for index, x in enumerate(sample)], axis=1)
        prices = price_list(spreads, limit, codes, every)
        gain = centroid_gain(sample.T, codes, weights) if centroids else 1.0
    return gain, prices


def centroid_gain(
    values: Float64[np.ndarray, "rows columns"], codes: Num[np.ndarray, "rows columns"], weights: Float64[np.ndarray, "rows"]
) -> float:
    """The factor on the codes with the least squared error, ``sum w x j / sum w j^2``, a float16 number; 1 for no codes.

    Args:
        values: The matrix in steps of the grid without a gain.
        codes: What stands for it.
        weights: What a squared error counts in each row.
    """
    size = float((weights[:, None] * np.square(codes, dtype=np.float64)).sum())
    gain = float(np.float16((weights[:, None] * values * codes).sum() / size)) if size else 1.0
    return gain if gain > 0 else 1.0


def _prior(spread: np.ndarray, magnitudes: np.ndarray, twins: np.ndarray) -> np.ndarray:
    """Shares of the magnitudes of one parity: a Gaussian of the spread, wider by the error of a path, and its long tail."""
    spread = np.sqrt(np.square(spread) + 0.25)
    shapes = (-np.square(magnitudes / spread) / 2, -np.sqrt(2.0) * magnitudes / spread)
    parts = []
    for exponent in shapes:
        part = twins * np.exp(np.maximum(exponent - exponent.max(axis=1, keepdims=True), -600.0))
        parts.append(part / part.sum(axis=1, keepdims=True))
    return (1 - TAIL) * parts[0] + TAIL * parts[1]


def _logarithms(spreads: np.ndarray) -> np.ndarray:
    return np.clip(np.log2(np.maximum(spreads, 2**LEAST_SPREAD)), LEAST_SPREAD, MOST_SPREAD)

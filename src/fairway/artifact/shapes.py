"""Frequency tables from a formula: a bell of integers that a few bytes describe, where counts would take forty.

The weight of symbol s depends on its distance ``u = |2 s - c|`` from the centre ``c / 2`` in half steps. With
``r = 1 - T / 2**40`` it is the Gaussian ``r**(u**2)``, in fixed point by the recursion

    g[0] = 2**40, ratio = r, step = r**2;   g[u + 1] = g[u] * ratio;   ratio = ratio * step

where every product is shifted down by 40 bits. A mix of three such bells, of rates ``T``, ``T (4 + h) / 4`` and
``4 T / (4 + h)``, has heavier tails the larger h is. Integers only, so the table is the same on every machine.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Float64, Int64

from fairway.artifact.frequencies import FrequencyTable, normalise
from fairway.artifact.tables import StoredTable, fit_table, from_levels, stored_bits, to_levels

RATE_BITS = 40
RATE_MANTISSA = 6
MAX_RATE_LEVEL = (RATE_BITS - RATE_MANTISSA) << RATE_MANTISSA
"""Rates below it stay below ``2**40``."""
MAX_TAIL = 15
MAX_REACH = 1 << 13
"""Symbols lie in ``[-2**13, 2**13)``."""
WEIGHT_SHIFT = 20
SHAPED_BITS = 40.0
"""Estimate of what such a table costs in the file."""


@lru_cache(maxsize=1024)
def bell(rate: int, length: int) -> tuple[int, ...]:
    """``g[0]``, ..., until it is 0 or has ``length`` entries.

    Args:
        rate: ``T``, at most ``2**40``.
        length: Most entries.
    """
    one = 1 << RATE_BITS
    ratio = one - rate
    step = ratio * ratio >> RATE_BITS
    value, out = one, []
    while value and len(out) < length:
        out.append(value)
        value = value * ratio >> RATE_BITS
        ratio = ratio * step >> RATE_BITS
    return tuple(out)


@dataclass(frozen=True)
class ShapedTable:
    """A frequency table that follows from five integers.

    Attributes:
        low: Smallest symbol.
        span: Number of symbols.
        centre: Twice the symbol in the middle of the bell.
        level: The rate ``T`` as a level of 6 mantissa bits, 1 to ``MAX_RATE_LEVEL - 1``.
        tail: ``h``, 0 for a Gaussian, at most 15.
    """

    low: int
    span: int
    centre: int
    level: int
    tail: int

    @property
    def high(self) -> int:
        """Largest symbol."""
        return self.low + self.span - 1

    @property
    def table(self) -> FrequencyTable:
        """The exact integer frequencies that the coder uses."""
        return _frequencies(self)


@lru_cache(maxsize=4096)
def _frequencies(shape: ShapedTable) -> FrequencyTable:
    distances = np.abs(2 * np.arange(shape.low, shape.low + shape.span) - shape.centre)
    length = int(distances.max()) + 1
    weights = np.zeros(length, np.int64)
    for rate, share in _mix(int(from_levels(np.array([shape.level]), RATE_MANTISSA)[0]), shape.tail):
        values = np.array(bell(min(rate, 1 << RATE_BITS), length), np.int64)
        weights[: len(values)] += values * share
    return FrequencyTable(shape.low, normalise((weights >> (WEIGHT_SHIFT + 2))[distances]))


AnyTable = StoredTable | ShapedTable


def _mix(rate: int, tail: int) -> tuple[tuple[int, int], ...]:
    return (rate * (4 + tail) // 4, 1), (rate, 2), (rate * 4 // (4 + tail), 1)


def fit_shape(counts: Int64[np.ndarray, "symbols"], low: int, centre: int | None = None) -> ShapedTable | None:
    """The bell with the fewest bits for ``counts``, or None where there are not two symbols within reach.

    Args:
        counts: Occurrences of the symbols ``low``, ``low + 1``, ...; zeros at both ends are cut off.
        low: Symbol of ``counts[0]``.
        centre: Twice the middle; None takes the mean.
    """
    used = np.flatnonzero(counts)
    if used.size < 2 or low + int(used[0]) < -MAX_REACH or low + int(used[-1]) >= MAX_REACH:
        return None
    counts, low = counts[used[0] : used[-1] + 1], low + int(used[0])
    symbols = np.arange(low, low + len(counts))
    middle = round(2 * float(counts @ symbols) / float(counts.sum())) if centre is None else centre
    squares = (2.0 * symbols - middle) ** 2
    moment = max(float(counts @ squares) / float(counts.sum()), 1e-3)
    start = _rate_level(-np.expm1(-1 / (2 * moment)))
    level, tail = _best(counts, squares, np.arange(start - 64, start + 97, 8), (0, 2, 6, 15))
    level, tail = _best(counts, squares, np.arange(level - 7, level + 8, 2), tuple(range(max(0, tail - 3), tail + 4)))
    return ShapedTable(low, len(counts), middle, level, tail)


def _rate_level(rate: float) -> int:
    return int(to_levels(np.array([max(1, int(rate * (1 << RATE_BITS)))]), RATE_MANTISSA)[0])


def _best(
    counts: Int64[np.ndarray, "symbols"], squares: Float64[np.ndarray, "symbols"], levels: np.ndarray, tails: tuple[int, ...]
) -> tuple[int, int]:
    """The pair of level and tail with the fewest bits, in floating point: a choice of the writer, not a probability."""
    levels = np.clip(levels, 1, MAX_RATE_LEVEL - 1)
    rates = from_levels(levels, RATE_MANTISSA) / (1 << RATE_BITS)
    total, found = float(counts.sum()), []
    for tail in tails:
        if tail > MAX_TAIL:
            continue
        weights = np.zeros((len(levels), len(counts)))
        for factor, share in (((4 + tail) / 4, 1), (1.0, 2), (4 / (4 + tail), 1)):
            decay = np.log1p(-np.minimum(rates * factor, 1 - 1e-9))
            weights += share * np.exp(np.maximum(decay[:, None] * squares[None], -700.0))
        shares = weights / weights.sum(axis=1, keepdims=True) + 2.0**-24
        bits = total * np.log2(shares.sum(axis=1)) - np.log2(shares) @ counts
        place = int(np.argmin(bits))
        found.append((float(bits[place]), int(levels[place]), tail))
    return min(found)[1:]


def table_cost(table: AnyTable) -> float:
    """Estimate in bits of what a table costs in the file."""
    return SHAPED_BITS if isinstance(table, ShapedTable) else stored_bits(table)


def choose_table(counts: Int64[np.ndarray, "symbols"], low: int, centre: int | None = None) -> AnyTable:
    """The smaller of counts and formula for these symbols, table and coded symbols together.

    Args:
        counts: Occurrences of the symbols ``low``, ``low + 1``, ....
        low: Symbol of ``counts[0]``.
        centre: Twice the middle of a bell, if it is known.
    """
    stored = fit_table(counts, low)
    shaped = fit_shape(counts, low, centre)
    candidates: list[AnyTable] = [stored] if shaped is None else [stored, shaped]
    return min(candidates, key=lambda table: table.table.bits(counts, low) + table_cost(table))

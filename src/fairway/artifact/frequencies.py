"""One frequency table of an entropy coder: positive integers that sum to ``2**24``."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import constriction
import numpy as np
from jaxtyping import Int64

stream: Any = vars(constriction)["stream"]
"""Stream coders of the library, which ships no type stubs for its submodules."""

PRECISION = 24
TOTAL = 1 << PRECISION


def normalise(weights: Int64[np.ndarray, "symbols"]) -> Int64[np.ndarray, "symbols"]:
    """Integer frequencies ``1 + floor(weight * (2**24 - symbols) / sum(weights))``; the first largest takes the remainder.

    Every symbol keeps at least frequency 1, so any symbol of the alphabet can be coded. Integers only.

    Args:
        weights: Non-negative, below ``2**21``, at most 65,536 of them; all zeros count as all ones.
    """
    total = int(weights.sum())
    if total == 0:
        weights, total = np.ones_like(weights), len(weights)
    frequencies = 1 + weights * (TOTAL - len(weights)) // total
    frequencies[int(np.argmax(weights))] += TOTAL - int(frequencies.sum())
    return frequencies


@dataclass(frozen=True, eq=False)
class FrequencyTable:
    """Probabilities of the symbols ``low``, ``low + 1``, ... as integers over ``2**24``.

    Attributes:
        low: Smallest symbol.
        frequencies: int64 [symbols], each at least 1, with sum ``2**24``.
    """

    low: int
    frequencies: Int64[np.ndarray, "symbols"]

    @cached_property
    def model(self) -> Any:
        """The same table for constriction's coders.

        With ``perfect=False`` the library gives symbol ``i`` the frequency ``1 + floor(C[i+1] * r) - floor(C[i] * r)``,
        where ``C`` are the cumulative sums of its input and ``r = (2**24 - symbols) / sum(input)``. For the input
        ``frequencies - 1`` every ``C`` is an integer below ``2**24`` and ``r`` is exactly 1, so no rounding happens
        and the model equals the table. ``tests/artifact/test_ans.py`` proves it against a decoder on integers.
        """
        assert len(self.frequencies) > 1
        return stream.model.Categorical((self.frequencies - 1).astype(np.float64), lazy=False, perfect=False)

    @property
    def high(self) -> int:
        """Largest symbol."""
        return self.low + len(self.frequencies) - 1

    def bits(self, counts: Int64[np.ndarray, "symbols"], low: int) -> float:
        """Ideal code length ``sum(counts * (24 - log2(frequencies)))`` in bits of symbols counted from ``low`` upwards."""
        used = np.flatnonzero(counts)
        positions = used + (low - self.low)
        assert used.size == 0 or (positions[0] >= 0 and positions[-1] < len(self.frequencies))
        return float(np.sum(counts[used] * (PRECISION - np.log2(self.frequencies[positions]))))


def uniform_table(bits: int) -> FrequencyTable:
    """Equal frequencies for the ``2**bits`` symbols from 0 upwards, ``bits`` at most 16."""
    return FrequencyTable(0, np.full(1 << bits, TOTAL >> bits, np.int64))


def entropy_bits(counts: Int64[np.ndarray, "... symbols"]) -> Any:
    """Order-0 entropy ``n log2 n - sum(counts log2 counts)`` in bits of all counted symbols, over the last axis."""
    values = counts.astype(np.float64)
    total = values.sum(axis=-1)
    return total * np.log2(np.maximum(total, 1)) - np.sum(values * np.log2(np.maximum(values, 1)), axis=-1)

"""What a row-by-row reader knows before each row: the number of the table of every code, from integers alone.

The columns of all tensors of a stream lie side by side. A code of a trellis tensor is ``2 m + p``, where p is the parity that
the state of its column allows and m is what is coded; without a trellis m is the code itself. The key of a code is

    levels:   base = level of its row + level of its column, as transmitted
    running:  base = bucket of the running magnitude of its column; ``base = 3 base + class of the code above`` if that is asked
    key = 2 base + p with a trellis, base without

The running magnitude ``a`` counts in steps of ``2**-12`` of a code. After row i with code x

    a = a + ((|x| * 2**12 - a + 2**(e - 1)) >> e),   e = min(window, bit_length(i + 2**prior) - 1)

which is a mean of all rows at first and forgets with ``2**-window`` later. Its bucket is the number of bounds ``b[0] = 16``,
``b[k+1] = b[k] + max(1, b[k] >> 4)`` that are at most ``a >> 6``, cut to the buckets that have tables. The code above has
class 0 where ``2 |x| * 2**12 <= a``, 2 where ``2 |x| * 2**12 > 3 a``, else 1; a is the one that the row above left behind.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from jaxtyping import Int16, Int32, UInt8, UInt16

from fairway.quant.trellis_states import trellis

MAGNITUDE_BITS = 12
START_SHIFT = 6
"""Starts and buckets count in steps of ``2**-6``."""
MAX_START = (1 << 20) - 1
FIRST_BOUND, BOUND_SHIFT = 16, 4
MAX_WINDOW, MAX_PRIOR = 15, 15
ABOVE_CLASSES = 3


@cache
def bucket_table() -> UInt8[np.ndarray, "magnitudes"]:
    """Bucket of every ``a >> 6``."""
    bounds, bound = [], FIRST_BOUND
    while bound <= MAX_START:
        bounds.append(bound)
        bound += max(1, bound >> BOUND_SHIFT)
    return np.searchsorted(np.array(bounds), np.arange(MAX_START + 1), side="right").astype(np.uint8)


@dataclass(frozen=True)
class Running:
    """Settings of the running magnitude.

    Attributes:
        window: Logarithm of the longest memory in rows, at most 15.
        prior: Logarithm of the rows that the start counts for, at most 15.
        above: Whether the code above counts too.
        first: First bucket with tables.
        buckets: Number of buckets with tables.
    """

    window: int
    prior: int
    above: bool
    first: int = 0
    buckets: int = 256

    @property
    def bases(self) -> int:
        """Number of different bases."""
        return self.buckets * (ABOVE_CLASSES if self.above else 1)


class RunningBases:
    """The base of every column from the rows already read.

    Args:
        settings: Of the running magnitude.
        starts: First magnitude of each column in steps of ``2**-6``.
    """

    def __init__(self, settings: Running, starts: Int32[np.ndarray, "columns"]) -> None:
        self._settings = settings
        self._cut = (np.clip(np.arange(256) - settings.first, 0, settings.buckets - 1)).astype(np.uint16)
        self._magnitude = starts << (MAGNITUDE_BITS - START_SHIFT)
        self._above = np.ones(len(starts), np.uint16)
        self._row = 0

    def bases(self) -> UInt16[np.ndarray, "columns"]:
        """Bases of the next row."""
        buckets = self._cut[bucket_table()[self._magnitude >> START_SHIFT]]
        return buckets * np.uint16(ABOVE_CLASSES) + self._above if self._settings.above else buckets

    def take(self, codes: Int16[np.ndarray, "columns"]) -> None:
        """Go on to the row after ``codes``."""
        sizes = np.abs(codes.astype(np.int32)) << MAGNITUDE_BITS
        shift = min(self._settings.window, (self._row + (1 << self._settings.prior)).bit_length() - 1)
        self._magnitude += (sizes - self._magnitude + (1 << shift >> 1)) >> shift
        if self._settings.above:
            doubled = 2 * sizes
            self._above = (doubled > self._magnitude).astype(np.uint16) + (doubled > 3 * self._magnitude)
        self._row += 1


class LevelBases:
    """The base of every column from transmitted levels.

    Args:
        rows: Level of every row of every tensor, one column per tensor.
        columns: Level of every column.
        tensor_of: Which tensor a column belongs to.
    """

    def __init__(
        self, rows: UInt16[np.ndarray, "rows tensors"], columns: UInt16[np.ndarray, "columns"], tensor_of: np.ndarray
    ) -> None:
        self._rows, self._columns, self._tensor_of = rows, columns, tensor_of
        self._row = 0

    def bases(self) -> UInt16[np.ndarray, "columns"]:
        """Bases of the next row."""
        return self._columns + self._rows[self._row][self._tensor_of]

    def take(self, codes: Int16[np.ndarray, "columns"]) -> None:
        """Go on to the next row."""
        self._row += 1


class Walk:
    """Keys of row after row, with the states of the trellis where there is one.

    Args:
        source: Where the bases come from.
        states: States of the trellis; 0 without one.
        columns: Columns of all tensors together.
    """

    def __init__(self, source: RunningBases | LevelBases, states: int, columns: int) -> None:
        self._source = source
        self._states = states
        if states:
            machine = trellis(states)
            self._parity_of = machine.parity.astype(np.uint16)
            state, codes = np.repeat(np.arange(states), 2), np.tile(np.array([0, 2], np.int16), states)
            self._next = machine.step(state, codes).astype(np.uint8)
            self._state = np.zeros(columns, np.uint8)

    def keys(self) -> UInt16[np.ndarray, "columns"]:
        """Keys of the next row."""
        bases = self._source.bases()
        return 2 * bases + self._parity_of[self._state] if self._states else bases

    def take(self, symbols: Int16[np.ndarray, "columns"], keys: UInt16[np.ndarray, "columns"]) -> Int16[np.ndarray, "columns"]:
        """Go on to the row after these symbols; returns its codes."""
        if not self._states:
            self._source.take(symbols)
            return symbols
        codes = 2 * symbols + (keys & np.uint16(1)).astype(np.int16)
        # The bit of the code above its parity is the lowest one of m.
        self._state = self._next[2 * self._state.astype(np.int32) + (symbols & np.int16(1))]
        self._source.take(codes)
        return codes

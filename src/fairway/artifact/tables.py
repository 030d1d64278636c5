"""Integer frequency tables: every probability is ``frequency / 2**24``, so decoding is the same on every machine.

A table is stored as levels: each count is rounded to a few mantissa bits (a tiny floating-point number, exact below
``2**mantissa_bits``), because a relative error ``e`` of a probability costs only about ``e**2 / 2`` nats per symbol.
The levels of neighbouring symbols lie on a smooth curve, so their first or second differences are small and are coded
with one geometric table. All arithmetic that a decoder needs is on integers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from operator import itemgetter

import numpy as np
from jaxtyping import Int64

from fairway.artifact.ans import AnsDecoder, encode_sections
from fairway.artifact.frequencies import FrequencyTable, entropy_bits, normalise
from fairway.artifact.wire import Cursor, damaged, unzigzag, varint, zigzag

WEIGHT_BITS = 20
MAX_MANTISSA_BITS = 7
MAX_SPAN = 1 << 16
MAX_ENTRIES = 1 << 20
RESIDUAL_SYMBOLS = 1 << 14
ORDERS = (1, 2)


def to_levels(weights: Int64[np.ndarray, "symbols"], mantissa_bits: int) -> Int64[np.ndarray, "symbols"]:
    """Round weights down to ``mantissa_bits`` binary digits after the leading one, as consecutive integers.

    ``level = (e << mantissa_bits) + (weight >> e)`` with ``e = max(0, bit_length(weight) - 1 - mantissa_bits)``.
    """
    lengths = np.frexp(weights.astype(np.float64))[1].astype(np.int64)
    exponents = np.maximum(0, lengths - 1 - mantissa_bits)
    return (exponents << mantissa_bits) + (weights >> exponents)


def from_levels(levels: Int64[np.ndarray, "symbols"], mantissa_bits: int) -> Int64[np.ndarray, "symbols"]:
    """Weights at the middle of each level's interval; exact for levels below ``2**(mantissa_bits + 1)``."""
    exponents = np.maximum(0, (levels >> mantissa_bits) - 1)
    return ((levels - (exponents << mantissa_bits)) << exponents) + ((1 << exponents) >> 1)


@dataclass(frozen=True, eq=False)
class StoredTable:
    """A frequency table in its stored form.

    Attributes:
        low: Smallest symbol.
        mantissa_bits: Precision of the levels, 0 to 7.
        levels: int64 [symbols], one per symbol from ``low`` upwards; level 0 still has frequency 1.
    """

    low: int
    mantissa_bits: int
    levels: Int64[np.ndarray, "symbols"]

    @cached_property
    def table(self) -> FrequencyTable:
        """The exact integer frequencies that the coder uses."""
        return FrequencyTable(self.low, normalise(from_levels(self.levels, self.mantissa_bits)))

    @property
    def high(self) -> int:
        """Largest symbol."""
        return self.low + len(self.levels) - 1


def fit_table(counts: Int64[np.ndarray, "symbols"], low: int) -> StoredTable:
    """The stored table with the fewest bits for ``counts``: coded symbols plus an estimate of the table itself.

    Args:
        counts: Occurrences of the symbols ``low``, ``low + 1``, ...; zeros at both ends are cut off.
        low: Symbol of ``counts[0]``.
    """
    used = np.flatnonzero(counts)
    if used.size == 0:
        return StoredTable(0, 0, np.ones(1, np.int64))
    counts, low = counts[used[0] : used[-1] + 1], low + int(used[0])
    if len(counts) == 1:
        return StoredTable(low, 0, np.ones(1, np.int64))
    weights = counts >> max(0, int(counts.max()).bit_length() - WEIGHT_BITS)
    entropy = float(entropy_bits(counts))
    best, best_bits = StoredTable(low, 0, np.ones(len(counts), np.int64)), float("inf")
    for mantissa_bits in range(1, MAX_MANTISSA_BITS + 1):
        stored = StoredTable(low, mantissa_bits, to_levels(weights, mantissa_bits))
        own_bits = stored_bits(stored)
        if entropy + own_bits < best_bits:
            best, best_bits = min((best, best_bits), (stored, stored.table.bits(counts, low) + own_bits), key=itemgetter(1))
    return best


def stored_bits(stored: StoredTable) -> float:
    """Estimate in bits of what a table costs in the file: 24 fixed and about ``2 log2(1 + |difference|) + 1`` per symbol."""
    return 24 + float(np.sum(2 * np.log2(1 + np.abs(np.diff(stored.levels, prepend=0))) + 1))


def residuals(levels: Int64[np.ndarray, "symbols"], order: int) -> Int64[np.ndarray, "symbols"]:
    """Differences of first or second order, starting from 0, in zigzag form."""
    for _ in range(order):
        levels = np.diff(levels, prepend=0)
    return np.where(levels >= 0, levels * 2, -levels * 2 - 1)


@cache
def geometric_table(decay: int) -> FrequencyTable:
    """Weights ``w[0] = 2**20``, ``w[i + 1] = floor(w[i] * decay / 256)`` over the residual alphabet."""
    weights = np.zeros(RESIDUAL_SYMBOLS, np.int64)
    weight = 1 << WEIGHT_BITS
    for index in range(RESIDUAL_SYMBOLS):
        weights[index] = weight
        weight = weight * decay >> 8
        if weight == 0:
            break
    return FrequencyTable(0, normalise(weights))


def pack_tables(tables: Sequence[StoredTable]) -> bytes:
    """All tables of an artifact as one payload: lows, spans and precisions, then the coded differences of the levels."""
    out = bytearray(varint(len(tables)))
    for stored in tables:
        out += varint(zigzag(stored.low)) + varint(len(stored.levels) - 1) + bytes([stored.mantissa_bits])
    choices = []
    for order in ORDERS:
        values = np.concatenate([residuals(stored.levels, order) for stored in tables] or [np.zeros(0, np.int64)])
        counts = np.bincount(values, minlength=1)
        for decay in range(3, 256, 4):
            table = geometric_table(decay)
            choices.append((table.bits(counts, 0), order, decay))
    _, order, decay = min(choices)
    values = np.concatenate([residuals(stored.levels, order) for stored in tables] or [np.zeros(0, np.int64)])
    return bytes(out) + bytes([order, decay]) + encode_sections([(values, geometric_table(decay))])


def unpack_tables(payload: bytes) -> list[StoredTable]:
    """Inverse of ``pack_tables``.

    Raises:
        ArtifactError: a field is outside its limit, or bytes are missing or left over.
    """
    cursor = Cursor(payload, "frequency tables")
    shapes = []
    entries = 0
    for _ in range(cursor.varint()):
        low, span, mantissa_bits = unzigzag(cursor.varint()), cursor.varint() + 1, cursor.byte()
        entries += span
        if span > MAX_SPAN or entries > MAX_ENTRIES or mantissa_bits > MAX_MANTISSA_BITS or abs(low) > MAX_SPAN:
            raise damaged(f"frequency table {len(shapes)} has {span} symbols from {low} with {mantissa_bits} mantissa bits")
        shapes.append((low, span, mantissa_bits))
    order, decay = cursor.byte(), cursor.byte()
    if order not in ORDERS or decay == 0:
        raise damaged(f"frequency tables use difference order {order} with decay {decay}")
    decoder = AnsDecoder(cursor.rest(), "frequency tables")
    values = decoder.take(entries, geometric_table(decay)).astype(np.int64)
    decoder.finish()
    values = np.where(values % 2 == 0, values >> 1, -((values + 1) >> 1))
    tables = []
    for low, span, mantissa_bits in shapes:
        levels, values = values[:span], values[span:]
        for _ in range(order):
            levels = np.cumsum(levels)
        largest = (WEIGHT_BITS - mantissa_bits) << mantissa_bits
        largest += 1 << mantissa_bits
        if levels.min() < 0 or levels.max() > largest:
            raise damaged(f"frequency table {len(tables)} has a level outside [0, {largest}]")
        tables.append(StoredTable(low, mantissa_bits, levels))
    return tables

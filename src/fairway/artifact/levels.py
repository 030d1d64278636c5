"""Levels of rows and columns: how much larger the codes of a row or column are than those of others, on a logarithmic scale.

Codes of row i and column j come from a distribution of width ``2**((row[i] + column[j]) / 16)``, so their sum names a table
of one bank that all tensors of a grid share. Levels are transmitted; one that saves less than it costs becomes the common one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64, Int64

from fairway.artifact.code_tensors import CodeTensor
from fairway.artifact.frequencies import PRECISION, entropy_bits
from fairway.artifact.shapes import AnyTable, ShapedTable, choose_table, table_cost

PER_OCTAVE = 16
NARROW, WIDE = -96, 64
"""Levels of a column that are tried, against its own tensor: dead columns are far below, outliers above."""
LOWEST, HIGHEST = -64, 208
"""Widths from a sixteenth of a code to 2**13."""
ROUNDS = 4
MISSING_BITS = 40.0
"""Charged while levels move for a symbol that a table lacks; the table gets it before anything is coded."""


@dataclass(frozen=True, eq=False)
class Levels:
    """Levels of one tensor.

    Attributes:
        rows: int64 [rows].
        columns: int64 [columns]; the sum of both is the absolute level.
    """

    rows: Int64[np.ndarray, "rows"]
    columns: Int64[np.ndarray, "columns"]

    @property
    def lowest(self) -> int:
        """The lowest absolute level."""
        return int(self.rows.min() + self.columns.min())

    def from_zero(self) -> tuple[Int64[np.ndarray, "rows"], Int64[np.ndarray, "columns"]]:
        """Both maps as they are transmitted, from 0 upwards."""
        return self.rows - self.rows.min(), self.columns - self.columns.min()

    def keys(self) -> Int64[np.ndarray, "rows columns"]:
        """Absolute level of every code."""
        return self.rows[:, None] + self.columns[None]

    def map_bits(self) -> float:
        """Entropy of both maps, with the tables that they need."""
        maps = [np.bincount(values) for values in self.from_zero()]
        return float(sum(float(entropy_bits(counts)) + 64.0 for counts in maps if len(counts) > 1))


def rounded(levels: Levels, step: int) -> Levels:
    """Every level moved to the nearest multiple of ``step``."""
    rows, columns = (np.rint(own / step).astype(np.int64) * step for own in (levels.rows, levels.columns))
    return Levels(rows, columns)


@dataclass(frozen=True, eq=False)
class Bank:
    """Tables for neighbouring levels.

    Attributes:
        first: Absolute level of the first one.
        tables: One per level; with a trellis two, for both parities.
        low: Symbol of the first column of ``lengths``.
        lengths: float32 [tables, symbols], bits of every symbol under every table.
        bits: Estimate of what the tables cost in the file.
    """

    first: int
    tables: list[AnyTable]
    low: int
    lengths: Float32[np.ndarray, "tables symbols"]
    bits: float


def fit_levels(tensor: CodeTensor) -> Levels:
    """Levels that code a tensor in the fewest bits if its codes are Gaussian.

    Columns at level l with energy ``E = sum_i x**2 / 4**(row_i / 16)`` cost ``n l / 16 + E 4**(-l / 16) / (2 ln 2)`` bits and
    the entropy of the level itself; rows likewise. Both are assigned in turn.
    """
    squares = tensor.codes.astype(np.float32) ** 2
    middle = round(PER_OCTAVE / 2 * float(np.log2(max(float(squares.mean()), 1e-3))))
    rows, columns = np.full(squares.shape[0], middle), np.zeros(squares.shape[1], np.int64)
    row_rates = column_rates = None
    for _ in range(ROUNDS):
        columns, column_rates = _assign(_power(-rows) @ squares, squares.shape[0], 0, column_rates)
        rows, row_rates = _assign(squares @ _power(-columns), squares.shape[1], middle, row_rates)
    return Levels(np.clip(rows, LOWEST - int(columns.min()), HIGHEST - int(columns.max())), columns)


def _power(levels: Int64[np.ndarray, "_"]) -> Float32[np.ndarray, "_"]:
    return np.exp2(levels * (2 / PER_OCTAVE)).astype(np.float32)


def _assign(
    energies: Float32[np.ndarray, "_"], count: int, middle: int, rates: Float64[np.ndarray, "levels"] | None
) -> tuple[Int64[np.ndarray, "_"], Float64[np.ndarray, "levels"]]:
    """Best level of every row or column, and what a level costs by how often it was taken."""
    levels = np.arange(NARROW, WIDE + 1) + middle
    decay = np.exp2(-levels * (2 / PER_OCTAVE)) / (2 * np.log(2))
    cost = energies.astype(np.float64)[:, None] * decay[None] + count * levels[None] / PER_OCTAVE
    if rates is not None:
        common = int(np.argmin(cost.sum(axis=0)))
        one_for_all = float(cost[:, common].sum())
        cost += rates
        if one_for_all <= float(cost.min(axis=1).sum()):
            rates = np.where(np.arange(len(levels)) == common, 0.0, np.log2(count + 1.0) + MISSING_BITS)
            return np.full(len(cost), levels[common]), rates
    best = np.argmin(cost, axis=1)
    counts = np.bincount(best, minlength=len(levels)) + 0.02
    return levels[best], np.log2(counts.sum()) - np.log2(counts)


def level_counts(tensor: CodeTensor, levels: Levels, first: int, count: int, low: int, span: int) -> np.ndarray:
    """How often each symbol from ``low`` on occurs under each of ``count`` levels from ``first`` on, [tables, symbols]."""
    flat = _places(tensor, levels, first) * span
    flat += tensor.symbols()
    return np.bincount((flat - low).ravel(), minlength=count * tensor.classes * span).reshape(-1, span)


def _places(tensor: CodeTensor, levels: Levels, first: int) -> Int64[np.ndarray, "rows columns"]:
    """Position in the bank of the table of every code."""
    places = (levels.keys() - first) * tensor.classes
    parities = tensor.parities()
    if parities is not None:
        places += parities
    return places


def build_bank(tensors: Sequence[CodeTensor], plans: Sequence[Levels]) -> Bank:
    """Tables for all levels between the lowest and the highest of these tensors, which are filled and of one grid."""
    first = min(plan.lowest for plan in plans)
    count = max(int(plan.rows.max() + plan.columns.max()) for plan in plans) - first + 1
    low = min(int(tensor.codes.min()) for tensor in tensors) // tensors[0].classes
    span = max(int(tensor.codes.max()) for tensor in tensors) // tensors[0].classes - low + 1
    parts = zip(tensors, plans, strict=True)
    counts = sum(level_counts(tensor, plan, first, count, low, span) for tensor, plan in parts)
    assert isinstance(counts, np.ndarray)
    tables = fit_bank(counts, low, tensors[0].classes)
    return Bank(first, tables, low, code_lengths(tables, low, span), bank_bits(tables))


def fit_bank(counts: Int64[np.ndarray, "tables symbols"], low: int, classes: int) -> list[AnyTable]:
    """The best table for every row of counts; a row without any gets one that costs next to nothing.

    Args:
        counts: Occurrences of the symbols from ``low`` on.
        low: First symbol.
        classes: 2 where rows alternate between even and odd codes, the bell of which lies half a symbol lower; else 1.
    """
    tables: list[AnyTable] = []
    for position, row in enumerate(counts):
        if row.any():
            tables.append(choose_table(row, low, -(position % classes)))
        else:
            # In the pool a bell that repeats the one before takes a few bits.
            last = tables[-1] if tables else None
            tables.append(last if isinstance(last, ShapedTable) else ShapedTable(0, 2, 0, 1, 0))
    return tables


def bank_bits(tables: Sequence[AnyTable]) -> float:
    """Estimate of what the tables cost in the file; one object that occurs twice costs once."""
    return sum(table_cost(table) for table in {id(table): table for table in tables}.values())


def code_lengths(tables: Sequence[AnyTable], low: int, span: int) -> Float32[np.ndarray, "tables symbols"]:
    """Bits of ``span`` symbols from ``low`` on under each table; ``MISSING_BITS`` for those that it lacks."""
    out = np.full((len(tables), span), MISSING_BITS, np.float32)
    for row, table in zip(out, tables, strict=True):
        start, stop = max(low, table.low), min(low + span - 1, table.high) + 1
        if start < stop:
            row[start - low : stop - low] = PRECISION - np.log2(table.table.frequencies[start - table.low : stop - table.low])
    return out


def code_bits(tensor: CodeTensor, levels: Levels, bank: Bank) -> float:
    """Ideal bits of the codes of a tensor under a bank, without its maps."""
    counts = level_counts(tensor, levels, bank.first, len(bank.tables) // tensor.classes, bank.low, bank.lengths.shape[1])
    return float(np.sum(counts * bank.lengths))


def polish(tensor: CodeTensor, levels: Levels, bank: Bank) -> Levels:
    """Move every column, then every row, to the neighbouring level that is cheapest under the tables of a bank."""
    columns = levels.columns + _moves(tensor, levels, bank, levels.columns, axis=0)
    moved = Levels(levels.rows, columns)
    return Levels(levels.rows + _moves(tensor, moved, bank, moved.rows, axis=1), columns)


def _moves(tensor: CodeTensor, levels: Levels, bank: Bank, own: Int64[np.ndarray, "_"], axis: int) -> Int64[np.ndarray, "_"]:
    if (own == own[0]).all():
        return np.zeros_like(own)
    span, last = bank.lengths.shape[1], len(bank.tables) // tensor.classes - 1
    offsets = own - own.min()
    counts = np.bincount(offsets + 1, minlength=int(offsets.max()) + 3) + 0.02
    rates = np.log2(counts.sum()) - np.log2(counts)
    keys, symbols, parities = levels.keys() - bank.first, tensor.symbols() - np.int64(bank.low), tensor.parities()
    costs = []
    for move in (-1, 0, 1):
        places = np.clip(keys + move, 0, last) * tensor.classes
        places = places if parities is None else places + parities
        outside = ((keys + move < 0) | (keys + move > last)).any(axis=axis)
        lengths = bank.lengths.ravel()[places * span + symbols].sum(axis=axis, dtype=np.float64)
        costs.append(np.where(outside, np.inf, lengths + rates[offsets + 1 + move]))
    return np.argmin(np.stack(costs), axis=0) - 1

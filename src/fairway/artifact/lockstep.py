"""Codes of tensors of one height, row by row: each code under the table that the rows already read name.

One call of the coder reads, for one row, all codes of one table across the columns of all tensors of the stream, so a row
costs a few calls however wide it is. ``contexts`` says which table a code has; ``docs/format.md`` is the law.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int16, Int32, Int64, UInt16

from fairway.artifact.ans import AnsDecoder, AnsEncoder, Models
from fairway.artifact.code_tensors import CodeTensor, Trace, bank_at, check_tables, table_at
from fairway.artifact.contexts import (
    ABOVE_CLASSES,
    MAX_PRIOR,
    MAX_START,
    MAX_WINDOW,
    START_SHIFT,
    LevelBases,
    Running,
    RunningBases,
    Walk,
    bucket_table,
)
from fairway.artifact.levels import Levels
from fairway.artifact.shapes import AnyTable
from fairway.artifact.streams import Stream
from fairway.artifact.wire import Cursor, damaged, varint

LEVELS, RUNNING, RUNNING_ABOVE = 0, 1, 2
MAX_CALLS = 1 << 23
"""Rows times the lesser of columns and tables, of all streams together: bounds the time of a reader."""
MAX_LEVEL = 1023


@dataclass(frozen=True, eq=False)
class Keyed:
    """Tensors side by side with the key of every code.

    Attributes:
        tensors: In the order of their columns.
        symbols: int16 [rows, columns of all].
        keys: uint16 of the same shape.
    """

    tensors: Sequence[CodeTensor]
    symbols: Int16[np.ndarray, "rows columns"]
    keys: UInt16[np.ndarray, "rows columns"]

    def counts(self, low: int, span: int, columns: slice = slice(None)) -> Int64[np.ndarray, "keys symbols"]:
        """How often each symbol from ``low`` on occurs under each key, in some of the columns."""
        total = np.zeros((int(self.keys.max(initial=0)) + 1) * span, np.int64)
        for start in range(0, len(self.keys), 256):
            rows = slice(start, start + 256)
            flat = self.keys[rows, columns].astype(np.int64) * span + (self.symbols[rows, columns].astype(np.int64) - low)
            total += np.bincount(flat.ravel(), minlength=len(total))
        return total.reshape(-1, span)


def running_starts(tensors: Sequence[CodeTensor]) -> list[int]:
    """Mean magnitude of the codes of each tensor, where its columns start, in steps of ``2**-6``."""
    means = [float(np.abs(tensor.codes.astype(np.int32)).mean()) for tensor in tensors]
    return [round(mean * (1 << START_SHIFT)) for mean in means]


def running_bases(tensors: Sequence[CodeTensor], settings: Running, starts: Sequence[int]) -> RunningBases:
    """The source of bases for these tensors."""
    widths = [tensor.codes.shape[1] for tensor in tensors]
    return RunningBases(settings, np.repeat(np.array(starts, np.int32), widths))


def level_bases(plans: Sequence[Levels], firsts: Sequence[int]) -> LevelBases:
    """The source of bases for tensors with these levels.

    Args:
        plans: Levels of each tensor.
        firsts: For each, the position in the bank of the sum of its lowest levels.
    """
    maps = [plan.from_zero() for plan in plans]
    rows = np.stack([own + first for (own, _), first in zip(maps, firsts, strict=True)], axis=1)
    columns = np.concatenate([own for _, own in maps])
    tensor_of = np.repeat(np.arange(len(plans)), [len(plan.columns) for plan in plans])
    return LevelBases(rows.astype(np.uint16), columns.astype(np.uint16), tensor_of)


def keyed(tensors: Sequence[CodeTensor], source: RunningBases | LevelBases) -> Keyed:
    """The key of every code of tensors of one height and grid."""
    symbols = np.concatenate([tensor.symbols() for tensor in tensors], axis=1)
    keys = np.empty(symbols.shape, np.uint16)
    walk = Walk(source, tensors[0].trellis, symbols.shape[1])
    for row, taken in zip(keys, symbols, strict=True):
        row[:] = walk.keys()
        walk.take(taken, row)
    return Keyed(tensors, symbols, keys)


def used_buckets(settings: Running, keys: UInt16[np.ndarray, "rows columns"], trellis: int) -> tuple[int, int]:
    """First bucket and number of buckets that occur in keys made with all buckets."""
    bases = np.unique(keys) // (2 if trellis else 1) // (ABOVE_CLASSES if settings.above else 1)
    return settings.first + int(bases.min()), int(bases.max() - bases.min()) + 1


def encode_rows(encoder: AnsEncoder, found: Keyed, tables: Sequence[AnyTable]) -> None:
    """Push all rows, the last one first.

    Args:
        encoder: Takes them.
        found: Symbols and keys.
        tables: One per key.
    """
    models, lows = Models(tables), np.array([table.low for table in tables], np.int32)
    for keys, symbols in zip(found.keys[::-1], found.symbols[::-1], strict=True):
        order = keys.argsort(kind="stable")
        indices = symbols[order] - lows[keys[order]]
        encoder.push_groups(indices, np.bincount(keys, minlength=len(models)), models)


def calls(rows: int, columns: int, tables: int) -> int:
    """Bound of the calls of the coder that a stream needs."""
    return rows * min(columns, tables)


@dataclass(frozen=True, eq=False)
class Shape:
    """What a reader knows of a stream before its parameters.

    Attributes:
        rows: Height of all its tensors.
        columns: Width of each.
        trellis: States, or 0.
        bits: Width of the codes.
        what: Name in messages.
    """

    rows: int
    columns: Sequence[int]
    trellis: int
    bits: int
    what: str

    @property
    def classes(self) -> int:
        """Tables per base."""
        return 2 if self.trellis else 1


def unpack_lockstep(
    stream: Stream, shape: Shape, pool: Sequence[AnyTable], budget: int, trace: Trace | None = None
) -> tuple[list[np.ndarray], int]:
    """Codes of every tensor of a stream, int8 or with a trellis int16 [rows, columns], and the calls that it took.

    Args:
        stream: Its parameters name the tables.
        shape: Sizes, checked against the caps before.
        pool: Tables of the artifact.
        budget: Calls that may be made.
        trace: Notes which table each code had.

    Raises:
        ArtifactError: a field is outside its limits, or data is missing or left over.
    """
    cursor = Cursor(stream.parameters, f"parameters of {shape.what}")
    decoder = AnsDecoder(stream.payload, f"codes of {shape.what}")
    mode, start = cursor.byte(), cursor.varint()
    if mode == LEVELS:
        source, bases = _read_levels(cursor, MapReader(cursor, decoder, pool, shape.what, trace), shape)
    elif mode in (RUNNING, RUNNING_ABOVE):
        source, bases = _read_running(cursor, shape, above=mode == RUNNING_ABOVE)
    else:
        raise damaged(f"{shape.what} is read in mode {mode}, which format 1 does not define")
    cursor.finish()
    tables = bank_at(start, bases * shape.classes, pool, shape.what)
    check_tables(tables, shape.trellis, shape.bits, shape.what)
    needed = calls(shape.rows, sum(shape.columns), len(tables))
    if needed > budget:
        raise damaged(f"{shape.what} needs {needed} calls of the coder where {budget} are left of {MAX_CALLS}")
    keys = None if trace is None else np.empty((shape.rows, sum(shape.columns)), np.uint16)
    codes = _read_rows(decoder, Walk(source, shape.trellis, sum(shape.columns)), tables, shape, keys)
    decoder.finish()
    ends = np.cumsum(shape.columns)[:-1]
    if trace is not None and keys is not None:
        for position, own in enumerate(np.split(keys, ends, axis=1)):
            trace.note_codes(position, own.astype(np.int32) + start)
    return [np.ascontiguousarray(part) for part in np.split(codes, ends, axis=1)], needed


def _read_rows(
    decoder: AnsDecoder, walk: Walk, tables: Sequence[AnyTable], shape: Shape, seen: UInt16[np.ndarray, "rows columns"] | None
) -> np.ndarray:
    models, lows = Models(tables), np.array([table.low for table in tables], np.int16)
    codes = np.empty((shape.rows, sum(shape.columns)), np.int16 if shape.trellis else np.int8)
    symbols = np.empty(codes.shape[1], np.int16)
    for place, row in enumerate(codes):
        keys = walk.keys()
        if seen is not None:
            seen[place] = keys
        symbols[keys.argsort(kind="stable")] = decoder.take_groups(np.bincount(keys, minlength=len(models)), models)
        symbols += lows[keys]
        row[:] = walk.take(symbols, keys)
    return codes


def _read_running(cursor: Cursor, shape: Shape, *, above: bool) -> tuple[RunningBases, int]:
    window, prior, first, buckets = (cursor.varint() for _ in range(4))
    starts = [cursor.varint() for _ in shape.columns]
    last = int(bucket_table()[-1])
    if window > MAX_WINDOW or prior > MAX_PRIOR or not 1 <= buckets <= last + 1 - first or max(starts) > MAX_START:
        raise damaged(
            f"{shape.what} has windows {window} and {prior}, {buckets} buckets from {first} and starts up to {max(starts)}"
        )
    settings = Running(window, prior, above, first, buckets)
    return RunningBases(settings, np.repeat(np.array(starts, np.int32), shape.columns)), settings.bases


def _read_levels(cursor: Cursor, maps: "MapReader", shape: Shape) -> tuple[LevelBases, int]:
    rows, columns, bases = [], [], 0
    for position, width in enumerate(shape.columns):
        first = cursor.varint()
        if first > MAX_LEVEL:
            raise damaged(f"{shape.what} starts at level {first}, above {MAX_LEVEL}")
        row_map, row_top = maps.next(position, shape.rows)
        column_map, column_top = maps.next(position, width)
        rows.append(row_map.astype(np.uint16) + np.uint16(first))
        columns.append(column_map)
        bases = max(bases, first + row_top + column_top + 1)
    tensor_of = np.repeat(np.arange(len(shape.columns)), shape.columns)
    return LevelBases(np.stack(rows, axis=1), np.concatenate(columns).astype(np.uint16), tensor_of), bases


class MapReader:
    """Reads levels of rows and columns.

    Args:
        cursor: Parameters of the stream.
        decoder: Its payload.
        pool: Tables of the artifact.
        what: Name in messages.
        trace: Notes the bits of the maps.
    """

    def __init__(
        self, cursor: Cursor, decoder: AnsDecoder, pool: Sequence[AnyTable], what: str, trace: Trace | None = None
    ) -> None:
        self._cursor, self._decoder, self._pool, self._what, self._trace = cursor, decoder, pool, what, trace

    def next(self, position: int, count: int) -> tuple[Int32[np.ndarray, "count"], int]:
        """The next levels and the highest of them; without a table (0) all are 0.

        Args:
            position: Which part of the stream they belong to.
            count: Number of rows or columns.

        Raises:
            ArtifactError: the kind of map is unknown, or its table is missing or reaches outside the levels.
        """
        present = self._cursor.byte()
        if present > 1:
            raise damaged(f"{self._what} has a map of kind {present}")
        if not present:
            return np.zeros(count, np.int32), 0
        table = table_at(self._cursor, self._pool, 0, MAX_LEVEL, self._what)
        values = self._decoder.take(count, table.table)
        if self._trace is not None:
            self._trace.note_map(position, values, table)
        return values, int(values.max(initial=0))


def level_parameters(start: int, firsts: Sequence[int], maps: Sequence[tuple[int | None, int | None]]) -> bytes:
    """Parameters of a stream with transmitted levels."""
    out = bytes([LEVELS]) + varint(start)
    for first, pair in zip(firsts, maps, strict=True):
        out += varint(first) + b"".join(map_parameter(table) for table in pair)
    return out


def map_parameter(table: int | None) -> bytes:
    """How a map is announced: whether there is one, and the number of its table."""
    return b"\0" if table is None else b"\1" + varint(table)


def running_parameters(start: int, settings: Running, starts: Sequence[int]) -> bytes:
    """Parameters of a stream with running magnitudes."""
    out = bytes([RUNNING_ABOVE if settings.above else RUNNING]) + varint(start)
    out += b"".join(map(varint, (settings.window, settings.prior, settings.first, settings.buckets)))
    return out + b"".join(map(varint, starts))

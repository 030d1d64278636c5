"""All frequency tables of an artifact as one payload: those with counts, and those that follow from a formula."""

from collections.abc import Sequence

import numpy as np

from fairway.artifact.shapes import MAX_RATE_LEVEL, MAX_REACH, MAX_TAIL, AnyTable, ShapedTable
from fairway.artifact.streams import Coder, Stream
from fairway.artifact.tables import StoredTable, pack_tables, unpack_tables
from fairway.artifact.wire import Cursor, brotli_pack, brotli_unpack, damaged, unzigzag, varint, zigzag

MAX_SHAPED = 1 << 16
MAX_HEAD_BYTES = 1 << 20
FIELDS = 5


def pack_pool(pool: Sequence[AnyTable]) -> Stream:
    """The first stream of an artifact; without a table of a formula it is what it was before there were formulas."""
    stored = [table for table in pool if isinstance(table, StoredTable)]
    if len(stored) == len(pool):
        return Stream(Coder.TABLES, b"", (), pack_tables(stored))
    shaped = [table for table in pool if isinstance(table, ShapedTable)]
    head = bytearray(varint(len(pool)))
    head += np.packbits([isinstance(table, ShapedTable) for table in pool]).tobytes()
    rows = np.array([(table.low, table.span, table.centre, table.level, table.tail) for table in shaped], np.int64)
    # Field by field as differences: neighbouring tables differ by little, and brotli sees runs.
    for field in np.diff(rows, axis=0, prepend=0).T:
        head += b"".join(varint(zigzag(int(value))) for value in field)
    packed = brotli_pack(bytes(head))
    return Stream(Coder.MIXED_TABLES, b"", (), varint(len(head)) + varint(len(packed)) + packed + pack_tables(stored))


def unpack_pool(stream: Stream) -> list[AnyTable]:
    """Inverse of ``pack_pool``.

    Raises:
        ArtifactError: a field is outside its limit, or bytes are missing or left over.
    """
    if stream.coder is Coder.TABLES:
        return list(unpack_tables(stream.payload))
    cursor = Cursor(stream.payload, "frequency tables")
    size, packed = cursor.varint(), cursor.varint()
    if size > MAX_HEAD_BYTES:
        raise damaged(f"the head of the frequency tables has {size} bytes, above {MAX_HEAD_BYTES}")
    head = Cursor(brotli_unpack(cursor.take(packed), size, "head of the frequency tables"), "head of the frequency tables")
    stored = iter(unpack_tables(cursor.rest()))
    count = head.varint()
    if count > MAX_SHAPED:
        raise damaged(f"the artifact announces {count} frequency tables, above {MAX_SHAPED}")
    flags = np.unpackbits(np.frombuffer(head.take((count + 7) // 8), np.uint8))
    if flags[count:].any():
        raise damaged("the kinds of the frequency tables go on behind the last one")
    shaped = iter(_unpack_shaped(head, int(flags.sum())))
    head.finish()
    pool: list[AnyTable] = []
    for flag in flags[:count]:
        table = next(shaped if flag else stored, None)
        if table is None:
            raise damaged("fewer frequency tables are stored than announced")
        pool.append(table)
    if next(stored, None) is not None:
        raise damaged("more frequency tables are stored than announced")
    return pool


def _unpack_shaped(head: Cursor, count: int) -> list[ShapedTable]:
    fields = []
    for _ in range(FIELDS):
        value, column = 0, []
        for _ in range(count):
            value += unzigzag(head.varint())
            column.append(value)
        fields.append(column)
    tables = [ShapedTable(*row) for row in zip(*fields, strict=True)]
    for table in tables:
        reach = table.low >= -MAX_REACH and table.span >= 2 and table.high < MAX_REACH and abs(table.centre) <= 2 * MAX_REACH
        if not reach or not 0 < table.level < MAX_RATE_LEVEL or not 0 <= table.tail <= MAX_TAIL:
            raise damaged(f"a frequency table has the shape {table}")
    return tables

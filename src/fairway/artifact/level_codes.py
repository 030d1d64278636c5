"""Codes of one tensor under the tables that the levels of its rows and columns name, all codes of one table in one go."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int8

from fairway.artifact.ans import AnsDecoder, AnsEncoder, Models
from fairway.artifact.code_tensors import CodeTensor, Trace, bank_at, check_tables
from fairway.artifact.levels import Levels
from fairway.artifact.lockstep import MapReader, map_parameter
from fairway.artifact.shapes import AnyTable
from fairway.artifact.streams import Coder, Stream
from fairway.artifact.wire import Cursor, varint


def pack_level_codes(
    tensor: CodeTensor, levels: Levels, start: int, maps: tuple[int | None, int | None], pool: Sequence[AnyTable]
) -> Stream:
    """The stream of a tensor without a trellis.

    Args:
        tensor: Filled codes.
        levels: Of its rows and columns.
        start: Number of the table of the sum of its lowest levels.
        maps: Numbers of the tables of the levels of its rows and of its columns; None where all are the same.
        pool: Tables of the artifact.
    """
    rows, columns = levels.from_zero()
    keys = (rows[:, None] + columns[None]).astype(np.uint16).ravel()
    order = keys.argsort(kind="stable")
    counts = np.bincount(keys)
    tables = pool[start : start + len(counts)]
    lows = np.array([table.low for table in tables], np.int32)
    encoder = AnsEncoder()
    encoder.push_groups(tensor.codes.ravel()[order] - lows[keys[order]], counts, Models(tables))
    for values, table in ((columns, maps[1]), (rows, maps[0])):
        if table is not None:
            encoder.push(values, pool[table].table)
    parameters = varint(start) + b"".join(map_parameter(table) for table in maps)
    return Stream(Coder.LEVEL_CODES, parameters, (tensor.part,), encoder.payload())


def unpack_level_codes(
    stream: Stream, shape: tuple[int, ...], bits: int, pool: Sequence[AnyTable], what: str, trace: Trace | None = None
) -> Int8[np.ndarray, "rows columns"]:
    """Inverse of ``pack_level_codes``; no table reaches outside [-c, c].

    Raises:
        ArtifactError: a table is missing or reaches outside the range, or data is missing or left over.
    """
    cursor = Cursor(stream.parameters, f"parameters of {what}")
    decoder = AnsDecoder(stream.payload, f"codes of {what}")
    start = cursor.varint()
    read = MapReader(cursor, decoder, pool, what, trace)
    (rows, row_top), (columns, column_top) = (read.next(0, count) for count in shape)
    cursor.finish()
    bank = bank_at(start, row_top + column_top + 1, pool, what)
    check_tables(bank, 0, bits, what)
    keys = (rows[:, None] + columns[None]).astype(np.uint16).ravel()
    indices = decoder.take_groups(np.bincount(keys, minlength=len(bank)), Models(bank))
    codes = np.empty(keys.shape, np.int8)
    codes[keys.argsort(kind="stable")] = indices
    codes += np.array([table.low for table in bank], np.int8)[keys]
    decoder.finish()
    if trace is not None:
        trace.note_codes(0, start + keys.reshape(shape))
    return codes.reshape(shape)

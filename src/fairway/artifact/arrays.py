"""All arrays but the codes of matrices, bit for bit, each in the smallest of several codings.

They are raw, brotli, brotli of byte planes, split float16, and for small integers one frequency table.

A float16 becomes the order-preserving integer ``bits ^ 0x8000`` (sign clear) or ``bits ^ 0xFFFF`` (sign set). Its high
bits say how large the number is, and follow a smooth histogram that a frequency table captures; its low bits are close
to noise and are coded uniformly. The number of low bits, 0 to 10, is chosen by size.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float16, Int8, Int16, Int64, UInt16

from fairway.artifact.ans import AnsDecoder, encode_sections
from fairway.artifact.frequencies import uniform_table
from fairway.artifact.scale_grid import exponent_range, exponents_of, scales_of
from fairway.artifact.shapes import AnyTable, ShapedTable, choose_table, table_cost
from fairway.artifact.streams import INTEGER_PLANES, Coder, Part, Stream
from fairway.artifact.tables import StoredTable, fit_table, stored_bits
from fairway.artifact.wire import Cursor, brotli_pack, brotli_unpack, damaged, varint

MAX_LOW_BITS = 10
LIKELY_LOW_BITS = 7
"""Where the search starts; it goes down, then up, while the size falls."""
GRID_LEAD, GRID_LEAD_BITS = 1 << 12, 13
"""Exponents of the finest grid lie within 2**12 of 0; the first one of a stream of differences is coded uniformly."""
STREAM_OVERHEAD = 8
SLOW_BROTLI_LIMIT = 1 << 21
FAST_BROTLI_QUALITY = 5
FAST_BROTLI_MARGIN = 1.08


@dataclass(frozen=True, eq=False)
class ArrayPart:
    """An array to be packed, as little-endian elements of one type.

    Attributes:
        part: Which array of which tensor.
        kind: Arrays of one kind may share a stream.
        values: Its elements, one dimension.
        scale_grid: Points per octave of the grid that they lie on; 0 without one.
    """

    part: Part
    kind: str
    values: np.ndarray
    scale_grid: int = 0


@dataclass(frozen=True, eq=False)
class Candidate:
    """A stream with the table that it needs, and its size in bytes with everything that it adds to the file.

    ``setting`` is the number of low bits of split numbers, or whether exponents of scales are coded as differences (1) or not.
    """

    coder: Coder
    setting: int
    table: AnyTable | None
    payload: bytes
    size: float


Coded = tuple[list[ArrayPart], Candidate]


def ordered(values: Float16[np.ndarray, "_"]) -> UInt16[np.ndarray, "_"]:
    """Map numbers to integers in the same order: ``key(a) < key(b)`` where ``a < b``; NaNs keep all their bits too."""
    bits = values.view(np.uint16)
    return np.where(bits & 0x8000, bits ^ 0xFFFF, bits ^ 0x8000).astype(np.uint16)


def unordered(keys: UInt16[np.ndarray, "_"]) -> Float16[np.ndarray, "_"]:
    """Inverse of ``ordered``."""
    bits = np.where(keys & 0x8000, keys ^ 0x8000, keys ^ 0xFFFF).astype(np.uint16)
    return bits.view(np.float16)


def pack_arrays(arrays: Sequence[ArrayPart], pool: list[AnyTable]) -> list[Stream]:
    """Streams for all arrays; element types never share a stream.

    For each type the smallest of three partitions wins: everything in one stream, one stream per kind, or per kind the
    smaller of one stream and one per array.
    """
    streams = []
    for same_type in dict.fromkeys((array.values.dtype.str, array.scale_grid) for array in arrays):
        members = [array for array in arrays if (array.values.dtype.str, array.scale_grid) == same_type]
        split: list[Coded] = []
        for kind in dict.fromkeys(array.kind for array in members):
            same = [array for array in members if array.kind == kind]
            split += min([_code(same)], [_code([array]) for array in same], key=_size) if len(same) > 1 else [_code(same)]
        for coded in min([_code(members)], split, key=_size) if len(split) > 1 else split:
            streams.append(_to_stream(coded, pool))
    return streams


def _code(group: list[ArrayPart]) -> Coded:
    values = np.concatenate([array.values for array in group])
    first = group[0]
    return group, best_candidate(values, integers=first.part.plane in INTEGER_PLANES, scale_grid=first.scale_grid)


def _size(partition: list[Coded]) -> float:
    return sum(STREAM_OVERHEAD + candidate.size for _, candidate in partition)


def _to_stream(coded: Coded, pool: list[AnyTable]) -> Stream:
    group, best = coded
    parameters = b""
    if best.table is not None:
        pool.append(best.table)
        setting = varint(best.setting) if best.coder in (Coder.SPLIT_FLOAT16, Coder.GRID_SCALES) else b""
        parameters = setting + varint(len(pool) - 1)
    return Stream(best.coder, parameters, tuple(array.part for array in group), best.payload)


def best_candidate(values: np.ndarray, *, integers: bool = False, scale_grid: int = 0) -> Candidate:
    """The smallest coding of a one-dimensional array.

    Args:
        values: The elements.
        integers: Whether they are small integers, int8 or int16, for which a table may pay.
        scale_grid: Points per octave if they are scales on a grid, else 0.
    """
    raw = values.tobytes()
    candidates = [Candidate(Coder.RAW, 0, None, raw, float(len(raw)))]
    if raw:
        if values.dtype == np.float16:
            candidates.append(split_candidate(values))
        if integers:
            candidates.append(integer_candidate(values))
        if scale_grid:
            candidates += [grid_candidate(exponents_of(values, scale_grid), order) for order in (0, 1)]
        smallest = min(candidate.size for candidate in candidates)
        candidates.append(_brotli_candidate(Coder.BROTLI, raw, smallest))
        if values.itemsize > 1:
            candidates.append(_brotli_candidate(Coder.BROTLI_PLANES, to_planes(raw, values.itemsize), smallest))
    return min(candidates, key=lambda candidate: candidate.size)


def _brotli_candidate(coder: Coder, data: bytes, rival: float) -> Candidate:
    """Brotli at a fast setting; at the slow one, 30 times slower, where that may beat ``rival`` bytes."""
    packed = brotli_pack(data, FAST_BROTLI_QUALITY)
    if len(packed) < rival * FAST_BROTLI_MARGIN and len(data) <= SLOW_BROTLI_LIMIT:
        packed = min(packed, brotli_pack(data), key=len)
    return Candidate(coder, 0, None, packed, float(len(packed)))


def split_candidate(values: Float16[np.ndarray, "_"]) -> Candidate:
    """The best number of low bits for split coding, and the coded words."""
    keys = ordered(values).astype(np.int64)
    best_bits, best_low, best_table = _split_bits(keys, LIKELY_LOW_BITS)
    for direction in (range(LIKELY_LOW_BITS - 1, -1, -1), range(LIKELY_LOW_BITS + 1, MAX_LOW_BITS + 1)):
        for low_bits in direction:
            found = _split_bits(keys, low_bits)
            if found[0] >= best_bits:
                break
            best_bits, best_low, best_table = found
    sections = [(keys >> best_low, best_table.table), (keys & ((1 << best_low) - 1), uniform_table(best_low))]
    payload = encode_sections(sections)
    return Candidate(Coder.SPLIT_FLOAT16, best_low, best_table, payload, len(payload) + stored_bits(best_table) / 8)


def integer_candidate(values: Int8[np.ndarray, "_"] | Int16[np.ndarray, "_"]) -> Candidate:
    """Coding of small integers under one table."""
    low = int(values.min())
    stored = choose_table(np.bincount(values.astype(np.int64) - low), low)
    payload = encode_sections([(values, stored.table)])
    return Candidate(Coder.STATIC_INTEGERS, 0, stored, payload, len(payload) + table_cost(stored) / 8)


def grid_candidate(exponents: Int16[np.ndarray, "_"], order: int) -> Candidate:
    """Coding of scales on a grid by their exponents (order 0) or by the differences of neighbours, from 0 on (order 1)."""
    values = np.diff(exponents.astype(np.int64), prepend=0) if order else exponents.astype(np.int64)
    # The first difference is the exponent itself, far from the others: it must not stretch the table.
    values, lead = (values[1:], values[:1]) if order else (values, values[:0])
    stored = choose_table(np.bincount(values - values.min()), int(values.min())) if values.size else ShapedTable(0, 2, 0, 1, 0)
    payload = encode_sections([(lead + GRID_LEAD, uniform_table(GRID_LEAD_BITS)), (values, stored.table)])
    return Candidate(Coder.GRID_SCALES, order, stored, payload, len(payload) + table_cost(stored) / 8)


def _split_bits(keys: Int64[np.ndarray, "_"], low_bits: int) -> tuple[float, int, StoredTable]:
    """Size in bits with the table, the number of low bits, and the table of the high bits."""
    counts = np.bincount(keys >> low_bits)
    stored = fit_table(counts, 0)
    return stored.table.bits(counts, 0) + stored_bits(stored) + len(keys) * low_bits, low_bits, stored


def unpack_array(
    coder: Coder, parameters: bytes, payload: bytes, dtype: np.dtype, count: int, pool: Sequence[AnyTable], what: str
) -> np.ndarray:
    """The ``count`` elements of a stream, one dimension, in fresh memory.

    Raises:
        ArtifactError: parameters are wrong, or the payload does not decode to exactly these elements.
    """
    if coder is Coder.SPLIT_FLOAT16:
        return _unpack_split(parameters, payload, dtype, count, pool, what)
    if coder is Coder.STATIC_INTEGERS:
        return _unpack_integers(parameters, payload, dtype, count, pool, what)
    if parameters:
        raise damaged(f"{what} carries {len(parameters)} bytes of parameters where its coder has none")
    size = count * dtype.itemsize
    data = payload if coder is Coder.RAW else brotli_unpack(payload, size, what)
    if len(data) != size:
        raise damaged(f"{what} holds {len(data)} bytes where {count} elements of {dtype} need {size}")
    if coder is Coder.BROTLI_PLANES:
        data = from_planes(data, dtype.itemsize)
    return np.frombuffer(data, dtype).copy()


def _unpack_split(
    parameters: bytes, payload: bytes, dtype: np.dtype, count: int, pool: Sequence[AnyTable], what: str
) -> Float16[np.ndarray, "_"]:
    cursor = Cursor(parameters, f"parameters of {what}")
    low_bits, index = cursor.varint(), cursor.varint()
    cursor.finish()
    if dtype != np.float16 or low_bits > MAX_LOW_BITS or index >= len(pool):
        raise damaged(f"{what} of {dtype} is split at bit {low_bits} under table {index} of {len(pool)}")
    stored = pool[index]
    if stored.low < 0 or stored.high >> (16 - low_bits):
        raise damaged(f"{what} uses a table for [{stored.low}, {stored.high}] where {16 - low_bits} bits are allowed")
    decoder = AnsDecoder(payload, what)
    keys, low = np.empty(count, np.uint16), np.empty(count, np.uint16)
    decoder.take_into(keys, stored.table)
    decoder.take_into(low, uniform_table(low_bits))
    decoder.finish()
    keys <<= np.uint16(low_bits)
    return unordered(keys | low)


def unpack_grid_scales(
    stream: Stream, scale_grid: int, count: int, pool: Sequence[AnyTable], what: str
) -> Float16[np.ndarray, "_"]:
    """Scales on a grid of so many points per octave, the same for all parts of the stream; 0 if there is none such.

    Raises:
        ArtifactError: parameters are wrong, an exponent leaves the grid, or data is missing or left over.
    """
    cursor = Cursor(stream.parameters, f"parameters of {what}")
    order, index = cursor.varint(), cursor.varint()
    cursor.finish()
    if scale_grid == 0 or order > 1 or index >= len(pool):
        raise damaged(f"{what} on a grid of {scale_grid} is coded with order {order} under table {index} of {len(pool)}")
    low, high = exponent_range(scale_grid)
    decoder = AnsDecoder(stream.payload, what)
    lead = decoder.take(min(count, 1) if order else 0, uniform_table(GRID_LEAD_BITS)).astype(np.int64) - GRID_LEAD
    values = np.concatenate([lead, decoder.take(count - len(lead), pool[index].table)])
    decoder.finish()
    exponents = np.cumsum(values) if order else values
    if exponents.size and (exponents.min() < low or exponents.max() > high):
        raise damaged(f"{what} leads to exponents outside [{low}, {high}] of the grid")
    return scales_of(exponents.astype(np.int16), scale_grid)


def _unpack_integers(
    parameters: bytes, payload: bytes, dtype: np.dtype, count: int, pool: Sequence[AnyTable], what: str
) -> np.ndarray:
    cursor = Cursor(parameters, f"parameters of {what}")
    index = cursor.varint()
    cursor.finish()
    if dtype not in (np.dtype("<i1"), np.dtype("<i2")) or index >= len(pool):
        raise damaged(f"{what} of {dtype} is coded as integers under table {index} of {len(pool)}")
    stored, limits = pool[index], np.iinfo(dtype)
    if stored.low < limits.min or stored.high > limits.max:
        raise damaged(f"{what} uses a table for [{stored.low}, {stored.high}] where {dtype} is allowed")
    decoder = AnsDecoder(payload, what)
    values = np.empty(count, dtype)
    decoder.take_into(values, stored.table)
    decoder.finish()
    return values


def to_planes(data: bytes, width: int) -> bytes:
    """All bytes at position 0 of their element, then all at position 1, and so on."""
    return np.frombuffer(data, np.uint8).reshape(-1, width).T.tobytes()


def from_planes(data: bytes, width: int) -> bytes:
    """Inverse of ``to_planes``."""
    return np.frombuffer(data, np.uint8).reshape(width, -1).T.tobytes()

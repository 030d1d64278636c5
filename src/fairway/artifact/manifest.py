"""The manifest: a fixed schema of integers and names that says what every byte after it means.

    count, then per tensor: name length, name (UTF-8), kind (0 codes, 1 plain, 2 codes with parts), bits or element type, rank,
        dimensions; kind 3 also: states of the trellis, gain (2 bytes), points per octave of the scales, whether columns have
        scales; kinds 2 and 3 also: bits of protected columns, with their groups; rank of the repair, with its numbers of scales
    count, then per stream: coder, parameter length, parameters, part count, per part: tensor and plane; payload length

Payloads follow one another in the order of the streams, so the offset of a stream is the sum of the lengths before it:
overlaps and gaps cannot be expressed. Every array of every tensor belongs to exactly one stream.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from fairway.artifact.records import INFINITE, MAX_BITS, MAX_RANK, MIN_BITS, RAW_DTYPES, element_count
from fairway.artifact.scale_grid import MAX_STEPS
from fairway.artifact.streams import Coder, Part, Plane, Stream
from fairway.artifact.wire import Cursor, damaged, varint
from fairway.base.errors import ArtifactError
from fairway.quant.trellis_states import GENERATORS

MAX_NAME_BYTES = 255
MAX_DIMENSION = 1 << 40
DEFAULT_MAX_ELEMENTS = 1 << 28
ELEMENTS_PER_BYTE = 1 << 17
MAX_TRELLIS_ROWS = 1 << 19
"""Rows of all trellis tensors together: each is a step of a walk that cannot be cut."""
CODED, PLAIN, CODED_WITH_PARTS, CODED_ON_GRID = 0, 1, 2, 3
ONE = 0x3C00
"""Bits of the float16 number 1."""
CODE, STEP, SCALE = np.dtype("<i1"), np.dtype("<i2"), np.dtype("<f2")


@dataclass(frozen=True)
class Extras:
    """What a coded tensor has besides codes and row scales.

    Attributes:
        starts: First columns of the protected groups; empty where there are none.
        size: Columns of a group.
        bits: Width of the protected codes; 0 where there are none.
        rank: Rank of the repair; 0 without one.
        left_runs: Scales of its left factor.
        right_runs: Scales of its right factor.
        trellis: States of its trellis; 0 without one.
        gain: Bits of the float16 factor of all its weights.
        scale_grid: Points per octave of its scales; 0 where they are free.
        column_scales: Whether its columns have scales.
    """

    starts: tuple[int, ...] = ()
    size: int = 0
    bits: int = 0
    rank: int = 0
    left_runs: int = 0
    right_runs: int = 0
    trellis: int = 0
    gain: int = ONE
    scale_grid: int = 0
    column_scales: bool = False

    @property
    def on_grid(self) -> bool:
        """Whether trellis, gain or scales differ from those of the first files."""
        return (self.trellis, self.gain, self.scale_grid, self.column_scales) != (0, ONE, 0, False)

    def describe(self) -> str:
        """All fields as one line, for the digest of the content."""
        starts = ",".join(map(str, self.starts))
        parts = f"{self.bits};{self.size};{starts};{self.rank};{self.left_runs};{self.right_runs}"
        return f"{parts};{self.trellis};{self.gain};{self.scale_grid};{int(self.column_scales)}" if self.on_grid else parts


@dataclass(frozen=True)
class Entry:
    """One tensor of the manifest.

    Attributes:
        name: 1 to 255 bytes of UTF-8 without control characters.
        shape: Dimensions.
        bits: Width of the codes, or 0 for a plain array.
        dtype: Element type of a plain array or of codes: int8, with a trellis int16.
        extras: What else a coded tensor has; None for nothing.
    """

    name: str
    shape: tuple[int, ...]
    bits: int
    dtype: np.dtype
    extras: Extras | None = None

    def planes(self) -> dict[Plane, tuple[tuple[int, ...], np.dtype]]:
        """The arrays that make up the tensor, with shape and element type."""
        if not self.bits:
            return {Plane.VALUES: (self.shape, self.dtype)}
        rows, columns = self.shape
        extras = self.extras or Extras()
        finer = len(extras.starts) * extras.size
        planes = {Plane.CODES: ((rows, columns - finer), self.dtype), Plane.SCALES: ((rows,), SCALE)}
        if finer:
            planes |= {Plane.PROTECTED_CODES: ((rows, finer), CODE), Plane.PROTECTED_STEPS: ((rows,), STEP)}
        if extras.column_scales:
            planes[Plane.COLUMN_SCALES] = ((columns,), SCALE)
        if extras.rank:
            planes |= {
                Plane.LEFT_CODES: ((rows, extras.rank), CODE),
                Plane.LEFT_SCALES: ((extras.left_runs,), SCALE),
                Plane.RIGHT_CODES: ((extras.rank, columns), CODE),
                Plane.RIGHT_SCALES: ((extras.right_runs,), SCALE),
            }
        return planes

    def grid_bits(self, plane: Plane) -> int:
        """Width of the codes of ``plane``."""
        return self.extras.bits if plane is Plane.PROTECTED_CODES and self.extras else self.bits

    @property
    def trellis(self) -> int:
        """States of the trellis; 0 without one."""
        return self.extras.trellis if self.extras else 0

    @property
    def scale_grid(self) -> int:
        """Points per octave of the row scales; 0 where they are free."""
        return self.extras.scale_grid if self.extras else 0


def check_name(name: str) -> str:
    """Refuse names that could not be shown on one line or looked up again.

    Raises:
        ArtifactError: the name is empty, longer than 255 bytes of UTF-8, or holds characters that cannot be printed.
    """
    try:
        size = len(name.encode("utf-8"))
    except UnicodeEncodeError:
        size = 0
    if not 1 <= size <= MAX_NAME_BYTES or not name.isprintable():
        raise ArtifactError(
            f"tensor name {name[:80]!r} is not 1 to {MAX_NAME_BYTES} printable bytes of UTF-8; rename the tensor"
        )
    return name


def check_size(entries: Sequence[Entry], file_bytes: int, max_elements: int) -> None:
    """Refuse more elements than the cap allows, or than a file of this size may hold, before anything is allocated.

    Raises:
        ArtifactError: with the count, the limit and the remedy.
    """
    count = sum(element_count(shape) for entry in entries for shape, _ in entry.planes().values())
    if count > max_elements:
        raise ArtifactError(
            f"the tensors have {count} elements, above the cap of {max_elements}; raise max_elements to read it"
        )
    if count > file_bytes * ELEMENTS_PER_BYTE:
        raise ArtifactError(
            f"the tensors have {count} elements in a file of {file_bytes} bytes, above the {ELEMENTS_PER_BYTE} per byte "
            "that the format allows; leave out tensors that are constant"
        )
    rows = sum(entry.shape[0] for entry in entries if entry.trellis)
    if rows > MAX_TRELLIS_ROWS:
        raise ArtifactError(
            f"the trellis tensors have {rows} rows, above {MAX_TRELLIS_ROWS}; store large ones without a trellis"
        )


def pack_manifest(entries: Sequence[Entry], streams: Sequence[Stream]) -> bytes:
    """The manifest as bytes, uncompressed."""
    out = bytearray(varint(len(entries)))
    for entry in entries:
        name = entry.name.encode("utf-8")
        out += varint(len(name)) + name
        coded = CODED if entry.extras is None else CODED_ON_GRID if entry.extras.on_grid else CODED_WITH_PARTS
        out += bytes([coded, entry.bits] if entry.bits else [PLAIN, RAW_DTYPES.index(entry.dtype)])
        out += varint(len(entry.shape)) + b"".join(varint(size) for size in entry.shape)
        if entry.extras is not None:
            if coded == CODED_ON_GRID:
                out += varint(entry.extras.trellis)
                out += entry.extras.gain.to_bytes(2, "little")
                out += varint(entry.extras.scale_grid) + bytes([entry.extras.column_scales])
            out += _pack_extras(entry.extras)
    out += varint(len(streams))
    for stream in streams:
        out += bytes([stream.coder]) + varint(len(stream.parameters)) + stream.parameters + varint(len(stream.parts))
        out += b"".join(varint(part.tensor) + bytes([part.plane]) for part in stream.parts) + varint(len(stream.payload))
    return bytes(out)


def _pack_extras(extras: Extras) -> bytes:
    out = varint(extras.bits)
    if extras.bits:
        out += varint(extras.size) + varint(len(extras.starts))
        ends = [0, *(start + extras.size for start in extras.starts)]
        # Gaps between the groups, so that an overlap cannot be written down.
        out += b"".join(varint(start - end) for start, end in zip(extras.starts, ends[:-1], strict=True))
    out += varint(extras.rank)
    return out + varint(extras.left_runs) + varint(extras.right_runs) if extras.rank else out


def _unpack_grid(cursor: Cursor, data: bytes, name: str, shape: tuple[int, ...]) -> Extras:
    """The fields of kind 3: trellis, gain and grid of the scales, then those of kind 2, which may be absent here."""
    trellis, gain, scale_grid = cursor.varint(), int.from_bytes(cursor.take(2), "little"), cursor.varint()
    column_scales = cursor.byte()
    parts = _unpack_extras(cursor, data, name, shape, alone=False)
    extras = replace(parts, trellis=trellis, gain=gain, scale_grid=scale_grid, column_scales=bool(column_scales))
    known = (trellis == 0 or trellis in GENERATORS) and 0 < gain < INFINITE and scale_grid <= MAX_STEPS and column_scales < 2
    if not known or not extras.on_grid or (extras.starts and (trellis or column_scales)) or (column_scales and not shape[1]):
        raise damaged(
            f"tensor {name} has a trellis of {trellis} states with {len(extras.starts)} groups of protected columns, "
            f"a gain of bits {gain}, {scale_grid} scales per octave and scales of columns {column_scales}"
        )
    return extras


def _unpack_extras(cursor: Cursor, data: bytes, name: str, shape: tuple[int, ...], *, alone: bool = True) -> Extras:
    rows, columns = shape
    starts, size, left_runs, right_runs = [], 0, 0, 0
    bits = cursor.varint()
    if bits:
        size, end = cursor.varint(), 0
        for _ in _counted(cursor, data):
            starts.append(end + cursor.varint())
            end = starts[-1] + size
        if not MIN_BITS <= bits <= MAX_BITS or not starts or size == 0 or end > columns:
            raise damaged(
                f"tensor {name} has {len(starts)} groups of {size} protected columns of {bits} bits in {columns} columns"
            )
    rank = cursor.varint()
    if rank:
        left_runs, right_runs = cursor.varint(), cursor.varint()
        if rank > MAX_DIMENSION or not left_runs or not right_runs or rows * rank % left_runs or rank * columns % right_runs:
            raise damaged(
                f"tensor {name} of shape {shape} has a repair of rank {rank} with {left_runs} and {right_runs} scales"
            )
    present = bool(bits or rank)
    if (alone and not present) or (present and not (rows and columns)):
        raise damaged(f"tensor {name} of shape {shape} announces parts that it lacks")
    return Extras(tuple(starts), size, bits, rank, left_runs, right_runs)


def unpack_manifest(data: bytes, payload: bytes) -> tuple[list[Entry], list[Stream]]:
    """Parse the manifest and cut the payload into its streams.

    Args:
        data: The manifest, uncompressed.
        payload: All bytes between the manifest and the closing digest.

    Raises:
        ArtifactError: a field is outside its limits, payload bytes are missing or left over, or an array of a tensor
            belongs to no stream or to several.
    """
    cursor = Cursor(data, "manifest")
    entries = [_unpack_entry(cursor, data) for _ in _counted(cursor, data)]
    if len({entry.name for entry in entries}) != len(entries):
        raise damaged("two tensors of the manifest share a name")
    body = Cursor(payload, "payload")
    streams = [_unpack_stream(cursor, data, body, entries) for _ in _counted(cursor, data)]
    cursor.finish()
    body.finish()
    carried = [part for stream in streams for part in stream.parts]
    wanted = {Part(index, plane) for index, entry in enumerate(entries) for plane in entry.planes()}
    if len(carried) != len(wanted) or set(carried) != wanted:
        raise damaged(f"the streams carry {len(carried)} arrays of tensors where each of {len(wanted)} belongs to exactly one")
    return entries, streams


def _counted(cursor: Cursor, data: bytes) -> Iterator[int]:
    count = cursor.varint()
    if count > len(data):
        raise damaged(f"the manifest of {len(data)} bytes announces {count} items")
    return iter(range(count))


def _unpack_entry(cursor: Cursor, data: bytes) -> Entry:
    try:
        name = check_name(cursor.take(cursor.varint()).decode("utf-8"))
    except UnicodeDecodeError:
        raise damaged("a tensor name of the manifest is not UTF-8") from None
    kind, detail, rank = cursor.byte(), cursor.byte(), cursor.varint()
    if rank > MAX_RANK:
        raise damaged(f"tensor {name} has {rank} dimensions, above {MAX_RANK}")
    shape = tuple(cursor.varint() for _ in range(rank))
    if max(shape, default=0) > MAX_DIMENSION:
        raise damaged(f"tensor {name} has shape {shape} with a dimension above {MAX_DIMENSION}")
    if kind in (CODED, CODED_WITH_PARTS, CODED_ON_GRID) and MIN_BITS <= detail <= MAX_BITS and rank == 2:
        readers = {CODED_WITH_PARTS: _unpack_extras, CODED_ON_GRID: _unpack_grid}
        extras = readers[kind](cursor, data, name, shape) if kind in readers else None
        return Entry(name, shape, detail, STEP if extras and extras.trellis else CODE, extras)
    if kind == PLAIN and detail < len(RAW_DTYPES):
        return Entry(name, shape, 0, RAW_DTYPES[detail])
    raise damaged(f"tensor {name} has kind {kind}, detail {detail} and {rank} dimensions, which format 1 does not define")


def _unpack_stream(cursor: Cursor, data: bytes, body: Cursor, entries: Sequence[Entry]) -> Stream:
    number = cursor.byte()
    if number not in list(Coder):
        raise ArtifactError(
            f"a stream uses coder {number}, which this release does not know; update fairway or pack the run again"
        )
    parameters = cursor.take(cursor.varint())
    parts = []
    for _ in _counted(cursor, data):
        tensor, plane = cursor.varint(), cursor.byte()
        if tensor >= len(entries) or plane not in list(Plane):
            raise damaged(f"a stream carries plane {plane} of tensor {tensor} of {len(entries)}")
        parts.append(Part(tensor, Plane(plane)))
    return Stream(Coder(number), parameters, tuple(parts), body.take(cursor.varint()))

"""Write and read artifacts: one file with a header document, integer codes, row scales and plain arrays.

``layout`` frames the file, ``entropy`` codes the codes, ``arrays`` everything else; this module walks from tensors to
bytes and back. A file is read back bit for bit or refused: see ``docs/format.md`` for the law of the format.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fairway.artifact.arrays import ArrayPart, pack_arrays, unpack_array
from fairway.artifact.entropy import CodeTensor, pack_codes, unpack_codes
from fairway.artifact.layout import (
    DIGEST_BYTES,
    MAGIC,
    MAX_FILE_BYTES,
    MAX_MANIFEST_BYTES,
    PREFIX,
    VERSION,
    ArtifactReport,
    Layout,
    arrays_of,
    canonical_json,
    check_prefix,
    content_digest,
    parse,
    record_of,
    seal,
)
from fairway.artifact.manifest import CODE, DEFAULT_MAX_ELEMENTS, Entry, Extras, check_name, check_size, pack_manifest
from fairway.artifact.records import Artifact, CodedTensor, TensorRecord, check_scales, element_count
from fairway.artifact.streams import GRID_PLANES, Coder, Part, Plane, Stream, tensor_class
from fairway.artifact.tables import StoredTable, pack_tables, unpack_tables
from fairway.artifact.wire import brotli_pack, damaged
from fairway.base.errors import ArtifactError
from fairway.base.files import write_bytes


def write_artifact(path: Path, tensors: Mapping[str, TensorRecord], header: Mapping[str, Any]) -> ArtifactReport:
    """Pack tensors and a header document into one file, written atomically; the same input gives the same bytes.

    Args:
        path: The file, by custom ending in ``.fwz``.
        tensors: Name to record; the order is kept.
        header: A JSON object: settings of the model, quantization and scoring, hashes of tokenizer and data, version.

    Raises:
        ArtifactError: a name, header or size outside the limits of the format.
        MachineError: the disk is full or the folder cannot be written.
    """
    content = encode(tensors, header)
    write_bytes(Path(path), content)
    return parse(content).report


def read_artifact(path: Path, max_elements: int = DEFAULT_MAX_ELEMENTS) -> Artifact:
    """Read and verify an artifact; every array comes back bit for bit or not at all.

    Args:
        path: The file.
        max_elements: Refuse more elements than this before any of them is allocated.

    Raises:
        ArtifactError: the file is missing, damaged, truncated, forged or of a newer format; the message names the file.
    """
    return decode(read_bytes(path), max_elements, str(path))


def read_layout(path: Path, max_elements: int = DEFAULT_MAX_ELEMENTS) -> Layout:
    """Header, manifest and streams of an artifact without decoding the streams; checked against the file's digest.

    Raises:
        ArtifactError: as ``read_artifact``.
    """
    return parse(read_bytes(path), max_elements, str(path))


def read_bytes(path: Path) -> bytes:
    """The bytes of a file that starts like an artifact and has the length it declares.

    Raises:
        ArtifactError: the file is missing, cannot be read, or is not an artifact.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            start = file.read(PREFIX.size)
            check_prefix(start, size, str(path))
            return start + file.read()
    except FileNotFoundError:
        raise ArtifactError(f"{path} does not exist; check the path or make it with fairway pack") from None
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read: {error.strerror}; check the path and its permissions") from None


def encode(tensors: Mapping[str, TensorRecord], header: Mapping[str, Any]) -> bytes:
    """The bytes of an artifact; see ``write_artifact``."""
    document = canonical_json(header)
    entries = [_entry(name, record) for name, record in tensors.items()]
    streams = _pack_streams(list(tensors.items()))
    manifest = pack_manifest(entries, streams)
    if len(manifest) > MAX_MANIFEST_BYTES:
        raise ArtifactError(f"the manifest has {len(manifest)} bytes, above {MAX_MANIFEST_BYTES}; store fewer tensors")
    packed_document, packed_manifest = brotli_pack(document), brotli_pack(manifest)
    payload = b"".join(stream.payload for stream in streams)
    length = PREFIX.size + len(packed_document) + len(packed_manifest) + len(payload) + DIGEST_BYTES
    if length > MAX_FILE_BYTES:
        raise ArtifactError(f"the artifact has {length} bytes, above the format's {MAX_FILE_BYTES}; store fewer tensors")
    check_size(entries, length, DEFAULT_MAX_ELEMENTS)
    digest = content_digest(document, entries, list(tensors.values()))
    sizes = (len(packed_document), len(document), len(packed_manifest), len(manifest))
    prefix = PREFIX.pack(MAGIC, VERSION, length, *sizes, digest)
    return seal(prefix + packed_document + packed_manifest + payload)


def decode(content: bytes, max_elements: int = DEFAULT_MAX_ELEMENTS, where: str = "the artifact") -> Artifact:
    """Header and tensors of the bytes of an artifact; see ``read_artifact``.

    Args:
        content: All bytes of the file.
        max_elements: Cap on the elements of all tensors.
        where: The file's name in messages.
    """
    layout = parse(content, max_elements, where)
    records = content_records(layout, where)
    return Artifact(layout.header, {entry.name: record for entry, record in zip(layout.entries, records, strict=True)})


def content_records(layout: Layout, where: str = "the artifact") -> list[TensorRecord]:
    """Decode all streams of a parsed artifact and check the result against its digest; records in manifest order.

    Raises:
        ArtifactError: a stream does not decode, or decodes to something else than was written.
    """
    try:
        records = _unpack_streams(layout)
        if content_digest(layout.document, layout.entries, records) != layout.content_digest:
            raise damaged("the decoded content differs from its digest")
    except ArtifactError as error:
        raise ArtifactError(f"{where}: {error}") from None
    return records


def _entry(name: str, record: TensorRecord) -> Entry:
    check_name(name)
    if isinstance(record, CodedTensor):
        return Entry(name, record.shape, record.bits, CODE, _extras(record))
    return Entry(name, record.shape, 0, record.values.dtype.newbyteorder("<"))


def _extras(record: CodedTensor) -> Extras | None:
    groups, factors = {}, {}
    if record.protected is not None:
        groups = {"starts": record.protected.starts, "size": record.protected.size, "bits": record.protected.bits}
    if record.repair is not None:
        runs = {"left_runs": record.repair.left_scales.size, "right_runs": record.repair.right_scales.size}
        factors = {"rank": record.repair.left_codes.shape[1], **runs}
    return Extras(**groups, **factors) if groups or factors else None


def _pack_streams(tensors: list[tuple[str, TensorRecord]]) -> list[Stream]:
    codes, arrays = [], {plane: [] for plane in Plane if plane not in GRID_PLANES}
    for index, (name, record) in enumerate(tensors):
        kind, entry = tensor_class(name), _entry(name, record)
        for plane, values in arrays_of(record).items():
            if plane in GRID_PLANES:
                codes.append(CodeTensor(index, values, entry.grid_bits(plane), kind, plane))
            else:
                arrays[plane].append(ArrayPart(Part(index, plane), kind, np.ascontiguousarray(values).reshape(-1)))
    pool: list[StoredTable] = []
    streams = pack_codes(codes, pool)
    for members in arrays.values():
        streams += pack_arrays(members, pool)
    if pool:
        streams.insert(0, Stream(Coder.TABLES, b"", (), pack_tables(pool)))
    return streams


def _unpack_streams(layout: Layout) -> list[TensorRecord]:
    arrays: dict[Part, np.ndarray] = {}
    pool: list[StoredTable] = []
    for position, stream in enumerate(layout.streams):
        if stream.coder is Coder.TABLES:
            if position or stream.parts or stream.parameters:
                raise damaged("the frequency tables are not the first stream, or carry tensors or parameters")
            pool = unpack_tables(stream.payload)
        else:
            arrays.update(_unpack_stream(stream, layout.entries, pool))
    return [
        record_of(entry, {plane: arrays[Part(index, plane)] for plane in entry.planes()})
        for index, entry in enumerate(layout.entries)
    ]


def _unpack_stream(stream: Stream, entries: Sequence[Entry], pool: Sequence[StoredTable]) -> dict[Part, np.ndarray]:
    shapes = [entries[part.tensor].planes()[part.plane] for part in stream.parts]
    names = [entries[part.tensor].name for part in stream.parts]
    if not shapes or len({dtype for _, dtype in shapes}) != 1 or len({part.plane for part in stream.parts}) != 1:
        raise damaged(f"a stream mixes arrays of different types, or has none: {', '.join(names) or 'no tensor'}")
    plane = stream.parts[0].plane
    if stream.coder is Coder.STATIC_CODES:
        if len(shapes) != 1 or plane not in GRID_PLANES:
            raise damaged(f"a stream of codes carries {len(shapes)} arrays, the first of them {plane.name.lower()}")
        entry, (shape, _) = entries[stream.parts[0].tensor], shapes[0]
        bits = entry.grid_bits(plane)
        return {stream.parts[0]: unpack_codes(stream.parameters, stream.payload, shape, bits, pool, entry.name)}
    counts = [element_count(shape) for shape, _ in shapes]
    what = f"{plane.name.lower()} of {names[0]}" + (f" and {len(names) - 1} more" if len(names) > 1 else "")
    values = unpack_array(stream.coder, stream.parameters, stream.payload, shapes[0][1], sum(counts), pool, what)
    if plane is Plane.SCALES:
        check_scales(values)
    pieces = np.split(values, np.cumsum(counts)[:-1])
    return {part: piece.reshape(shape) for part, piece, (shape, _) in zip(stream.parts, pieces, shapes, strict=True)}

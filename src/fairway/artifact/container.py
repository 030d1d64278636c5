"""Write and read artifacts: one file with a header document, integer codes, row scales and plain arrays.

``layout`` frames the file, ``entropy`` codes the codes, ``arrays`` everything else; this module walks from tensors to
bytes and back. A file is read back bit for bit or refused: see ``docs/format.md`` for the law of the format.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from fairway.artifact.arrays import ArrayPart, pack_arrays, unpack_array, unpack_grid_scales
from fairway.artifact.code_tensors import CodeTensor, Trace
from fairway.artifact.codes import pack_codes
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
from fairway.artifact.lockstep import MAX_CALLS
from fairway.artifact.manifest import CODE, DEFAULT_MAX_ELEMENTS, STEP, Entry, Extras, check_name, check_size, pack_manifest
from fairway.artifact.pool import pack_pool, unpack_pool
from fairway.artifact.read_codes import stream_shapes, unpack_codes
from fairway.artifact.records import Artifact, CodedTensor, TensorRecord, check_scales, element_count, gain_bits
from fairway.artifact.shapes import AnyTable
from fairway.artifact.streams import (
    CODE_CODERS,
    GRID_PLANES,
    SCALE_PLANES,
    TABLE_CODERS,
    Coder,
    Part,
    Plane,
    Stream,
    tensor_class,
)
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


def content_records(
    layout: Layout, where: str = "the artifact", ideal_bits: dict[Part, float] | None = None
) -> list[TensorRecord]:
    """Decode all streams of a parsed artifact and check the result against its digest; records in manifest order.

    Args:
        layout: The artifact.
        where: The file's name in messages.
        ideal_bits: Gets the ideal code length of every array of codes under the tables that it was coded with.

    Raises:
        ArtifactError: a stream does not decode, or decodes to something else than was written.
    """
    try:
        records = _unpack_streams(layout, ideal_bits)
        if content_digest(layout.document, layout.entries, records) != layout.content_digest:
            raise damaged("the decoded content differs from its digest")
    except ArtifactError as error:
        raise ArtifactError(f"{where}: {error}") from None
    return records


def _entry(name: str, record: TensorRecord) -> Entry:
    check_name(name)
    if isinstance(record, CodedTensor):
        return Entry(name, record.shape, record.bits, STEP if record.trellis else CODE, _extras(record))
    return Entry(name, record.shape, 0, record.values.dtype.newbyteorder("<"))


def _extras(record: CodedTensor) -> Extras | None:
    groups, factors = {}, {}
    if record.protected is not None:
        groups = {"starts": record.protected.starts, "size": record.protected.size, "bits": record.protected.bits}
    if record.repair is not None:
        runs = {"left_runs": record.repair.left_scales.size, "right_runs": record.repair.right_scales.size}
        factors = {"rank": record.repair.left_codes.shape[1], **runs}
    extras = Extras(**groups, **factors, trellis=record.trellis, gain=gain_bits(record.gain), scale_grid=record.scale_grid)
    extras = replace(extras, column_scales=record.column_scales is not None)
    return extras if groups or factors or extras.on_grid else None


def _pack_streams(tensors: list[tuple[str, TensorRecord]]) -> list[Stream]:
    codes, arrays = [], {plane: [] for plane in Plane if plane not in GRID_PLANES}
    for index, (name, record) in enumerate(tensors):
        kind, entry = tensor_class(name), _entry(name, record)
        for plane, values in arrays_of(record).items():
            if plane in GRID_PLANES:
                codes.append(CodeTensor(index, values, entry.grid_bits(plane), kind, plane, entry.trellis))
            else:
                steps = record.scale_grid if isinstance(record, CodedTensor) and plane in SCALE_PLANES else 0
                flat = np.ascontiguousarray(values).reshape(-1)
                arrays[plane].append(ArrayPart(Part(index, plane), kind, flat, steps))
    pool: list[AnyTable] = []
    streams = pack_codes(codes, pool)
    for members in arrays.values():
        streams += pack_arrays(members, pool)
    if pool:
        streams.insert(0, pack_pool(pool))
    return streams


def _unpack_streams(layout: Layout, ideal_bits: dict[Part, float] | None) -> list[TensorRecord]:
    arrays: dict[Part, np.ndarray] = {}
    pool: list[AnyTable] = []
    budget = MAX_CALLS
    for position, stream in enumerate(layout.streams):
        if stream.coder in TABLE_CODERS:
            if position or stream.parts or stream.parameters:
                raise damaged("the frequency tables are not the first stream, or carry tensors or parameters")
            pool = unpack_pool(stream)
        elif stream.coder in CODE_CODERS:
            trace = None if ideal_bits is None else Trace(stream.parts)
            found, used = unpack_codes(stream, layout.entries, pool, budget, trace)
            budget -= used
            for part, codes in zip(stream.parts, found, strict=True):
                arrays[part] = codes
                if trace is not None and ideal_bits is not None:
                    ideal_bits[part] = trace.ideal_bits(part, codes, layout.entries[part.tensor].trellis, pool)
        else:
            arrays.update(_unpack_stream(stream, layout.entries, pool))
    return [
        record_of(entry, {plane: arrays[Part(index, plane)] for plane in entry.planes()})
        for index, entry in enumerate(layout.entries)
    ]


def _unpack_stream(stream: Stream, entries: Sequence[Entry], pool: Sequence[AnyTable]) -> dict[Part, np.ndarray]:
    plane, shapes, what = stream_shapes(stream, entries)
    counts = [element_count(shape) for shape, _ in shapes]
    grids = {entries[part.tensor].scale_grid for part in stream.parts} if plane in SCALE_PLANES else {0}
    if stream.coder is Coder.GRID_SCALES:
        values = unpack_grid_scales(stream, min(grids) if len(grids) == 1 else 0, sum(counts), pool, what)
    else:
        values = unpack_array(stream.coder, stream.parameters, stream.payload, shapes[0][1], sum(counts), pool, what)
    if plane in SCALE_PLANES:
        check_scales(values)
    pieces = np.split(values, np.cumsum(counts)[:-1])
    return {part: piece.reshape(shape) for part, piece, (shape, _) in zip(stream.parts, pieces, shapes, strict=True)}

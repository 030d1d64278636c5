r"""The frame of an artifact: fixed fields, header document, manifest and digests; the bytes of streams stay coded.

    offset  size  field
         0     8  magic 89 46 57 5A 0D 0A 1A 0A ("\x89FWZ\r\n\x1a\n")
         8     4  format version
        12     8  length of the file
        20     4  size of the header document, compressed
        24     4  size of the header document, JSON
        28     4  size of the manifest, compressed
        32     4  size of the manifest
        36    16  BLAKE2b of the decoded content
        52        header document (brotli), manifest (brotli), streams
       end    16  BLAKE2b of every byte before

Numbers are little-endian. Nothing is executed, unpickled or handed to another program. ``docs/format.md`` is the law.
"""

import hashlib
import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fairway.artifact.manifest import DEFAULT_MAX_ELEMENTS, Entry, Extras, check_size, unpack_manifest
from fairway.artifact.records import (
    CodedTensor,
    Protected,
    RawTensor,
    Repair,
    TensorRecord,
    element_count,
    protected_mask,
    protected_steps,
    scales_from_steps,
)
from fairway.artifact.streams import REPAIR_PLANES, Plane, Stream
from fairway.artifact.wire import brotli_unpack, damaged
from fairway.base.errors import ArtifactError

MAGIC = b"\x89FWZ\r\n\x1a\n"
VERSION = 1
PREFIX = struct.Struct("<8sIQIIII16s")
DIGEST_BYTES = 16
MAX_DOCUMENT_BYTES = 1 << 20
MAX_MANIFEST_BYTES = 1 << 22
MAX_FILE_BYTES = 1 << 31


@dataclass(frozen=True)
class ArtifactReport:
    """Where the bytes of an artifact went.

    Attributes:
        total_bytes: Length of the file.
        fixed_bytes: The prefix of 52 bytes and the closing digest of 16.
        document_bytes: The compressed header document.
        manifest_bytes: The compressed manifest.
        table_bytes: Frequency tables of all streams.
        code_bytes: Integer codes.
        scale_bytes: Scales of rows and columns.
        control_bytes: Plain arrays.
        repair_bytes: Factors of low-rank repairs with their scales.
        elements: Codes, scales and plain elements together.
    """

    total_bytes: int
    fixed_bytes: int
    document_bytes: int
    manifest_bytes: int
    table_bytes: int
    code_bytes: int
    scale_bytes: int
    control_bytes: int
    repair_bytes: int
    elements: int


@dataclass(frozen=True, eq=False)
class Layout:
    """A parsed artifact before its streams are decoded: sizes and limits are checked, contents are not.

    Attributes:
        version: Format version.
        header: The JSON document.
        document: The JSON document as stored, in canonical form.
        entries: Tensors of the manifest.
        streams: Streams with their payloads.
        content_digest: BLAKE2b that the decoded content must have.
        report: Where the bytes are.
    """

    version: int
    header: dict[str, Any]
    document: bytes
    entries: list[Entry]
    streams: list[Stream]
    content_digest: bytes
    report: ArtifactReport


def parse(content: bytes, max_elements: int = DEFAULT_MAX_ELEMENTS, where: str = "the artifact") -> Layout:
    """Check length, digest, header document and manifest; decode no stream.

    Raises:
        ArtifactError: the first thing that is wrong, with the file's name.
    """
    check_prefix(content[: PREFIX.size], len(content), where)
    if digest_of(memoryview(content)[:-DIGEST_BYTES]) != content[-DIGEST_BYTES:]:
        raise damaged(f"{where}: the checksum over the file does not match its {len(content)} bytes")
    try:
        return _parse_body(content, max_elements)
    except ArtifactError as error:
        raise ArtifactError(f"{where}: {error}") from None


def seal(body: bytes) -> bytes:
    """Append the closing digest."""
    return body + digest_of(body)


def digest_of(data: bytes | memoryview) -> bytes:
    """BLAKE2b (RFC 7693) of 16 bytes."""
    return hashlib.blake2b(data, digest_size=DIGEST_BYTES).digest()


def canonical_json(header: Mapping[str, Any]) -> bytes:
    """JSON in UTF-8 with sorted names and no spaces, so that equal documents are equal bytes.

    Raises:
        ArtifactError: a value that JSON cannot hold (NaN and infinity included), or more than 1 MiB.
    """
    try:
        text = json.dumps(dict(header), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        document = text.encode("utf-8")
    except (TypeError, ValueError, RecursionError) as error:
        raise ArtifactError(f"the header is not a JSON object ({error}); use text, finite numbers, lists and objects") from None
    if len(document) > MAX_DOCUMENT_BYTES:
        raise ArtifactError(
            f"the header has {len(document)} bytes of JSON, above {MAX_DOCUMENT_BYTES}; keep large values outside"
        )
    return document


def content_digest(document: bytes, entries: Sequence[Entry], records: Sequence[TensorRecord]) -> bytes:
    """BLAKE2b of what an artifact means: document, then per tensor name, bits, type, shape and little-endian arrays.

    Each variable part is preceded by its length in 8 bytes, so different contents never feed the same bytes.
    """
    state = hashlib.blake2b(digest_size=DIGEST_BYTES)

    def feed(piece: bytes | memoryview) -> None:
        state.update(len(piece).to_bytes(8, "little"))
        state.update(piece)

    feed(document)
    for entry, record in zip(entries, records, strict=True):
        text = f"{entry.name}\n{entry.bits}\n{entry.dtype.str}\n{','.join(map(str, entry.shape))}"
        feed((text if entry.extras is None else f"{text}\n{entry.extras.describe()}").encode())
        for values in arrays_of(record).values():
            feed(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data)
    return state.digest()


def arrays_of(record: TensorRecord) -> dict[Plane, np.ndarray]:
    """The arrays that make up a record, little-endian, in the order of the planes."""
    if not isinstance(record, CodedTensor):
        return {Plane.VALUES: record.values.astype(record.values.dtype.newbyteorder("<"), copy=False)}
    codes = record.codes.astype("<i2", copy=False) if record.trellis else record.codes
    planes = {Plane.CODES: codes, Plane.SCALES: record.scales.astype("<f2", copy=False)}
    if record.protected is not None:
        mask = record.protected.mask(record.codes.shape[1])
        planes[Plane.CODES] = record.codes[:, ~mask]
        planes[Plane.PROTECTED_CODES] = record.codes[:, mask]
        planes[Plane.PROTECTED_STEPS] = protected_steps(record.scales, record.bits, record.protected).astype("<i2", copy=False)
    if record.column_scales is not None:
        planes[Plane.COLUMN_SCALES] = record.column_scales.astype("<f2", copy=False)
    if record.repair is not None:
        planes |= {
            Plane.LEFT_CODES: record.repair.left_codes,
            Plane.LEFT_SCALES: record.repair.left_scales.astype("<f2", copy=False),
            Plane.RIGHT_CODES: record.repair.right_codes,
            Plane.RIGHT_SCALES: record.repair.right_scales.astype("<f2", copy=False),
        }
    return planes


def record_of(entry: Entry, planes: Mapping[Plane, np.ndarray]) -> TensorRecord:
    """Inverse of ``arrays_of``: a record from the arrays that ``entry`` names.

    Raises:
        ArtifactError: a code or scale that no record may have.
    """
    if not entry.bits:
        return RawTensor(planes[Plane.VALUES])
    codes, scales, protected, repair = planes[Plane.CODES], planes[Plane.SCALES], None, None
    extras = entry.extras or Extras()
    if extras.starts:
        mask = protected_mask(extras.starts, extras.size, entry.shape[1])
        whole = np.empty(entry.shape, np.int8)
        whole[:, ~mask], whole[:, mask] = codes, planes[Plane.PROTECTED_CODES]
        steps = planes[Plane.PROTECTED_STEPS]
        finer = scales_from_steps(scales, entry.bits, extras.bits, steps)
        codes, protected = whole, Protected(extras.starts, extras.size, extras.bits, finer)
    if extras.rank:
        repair = Repair(
            *(planes[plane] for plane in (Plane.LEFT_CODES, Plane.LEFT_SCALES, Plane.RIGHT_CODES, Plane.RIGHT_SCALES))
        )
    gain = float(np.array(extras.gain, np.uint16).view(np.float16))
    grid = extras.trellis, gain, extras.scale_grid, planes.get(Plane.COLUMN_SCALES)
    return CodedTensor(codes, scales, entry.bits, protected, repair, *grid)


def check_prefix(start: bytes, size: int, where: str) -> None:
    """Check the first bytes of a file against its size.

    Args:
        start: Up to the first 52 bytes.
        size: Length of the file.
        where: Its name in messages.

    Raises:
        ArtifactError: no artifact, another format version, or another length than declared.
    """
    if not MAGIC.startswith(start[: len(MAGIC)]) or not start:
        raise ArtifactError(f"{where} is not a Fairway artifact: it does not begin with the magic bytes; give a .fwz file")
    if size < PREFIX.size + DIGEST_BYTES or len(start) < PREFIX.size:
        raise damaged(f"{where} has {size} bytes, fewer than the {PREFIX.size + DIGEST_BYTES} of an empty artifact")
    _, version, length, *_ = PREFIX.unpack(start)
    if version != VERSION:
        raise ArtifactError(
            f"{where} has format version {version}, this release reads {VERSION}; update fairway or copy it again"
        )
    if length != size:
        raise damaged(f"{where} has {size} bytes where its header declares {length}")
    if size > MAX_FILE_BYTES:
        raise ArtifactError(f"{where} has {size} bytes, above the format's {MAX_FILE_BYTES}; it is no artifact of ours")


def _parse_body(content: bytes, max_elements: int) -> Layout:
    _, _, length, packed_document, document_size, packed_manifest, manifest_size, digest = PREFIX.unpack_from(content)
    start = PREFIX.size + packed_document
    end = start + packed_manifest
    if end + DIGEST_BYTES > length or document_size > MAX_DOCUMENT_BYTES or manifest_size > MAX_MANIFEST_BYTES:
        raise damaged(f"sizes {packed_document}, {document_size}, {packed_manifest}, {manifest_size} do not fit {length} bytes")
    document = brotli_unpack(content[PREFIX.size : start], document_size, "header document")
    manifest = brotli_unpack(content[start:end], manifest_size, "manifest")
    entries, streams = unpack_manifest(manifest, content[end:-DIGEST_BYTES])
    check_size(entries, length, max_elements)
    return Layout(VERSION, _parse_document(document), document, entries, streams, digest, _report(content, entries, streams))


def _parse_document(document: bytes) -> dict[str, Any]:
    try:
        header = json.loads(document)
        canonical = isinstance(header, dict) and canonical_json(header) == document
    except (ValueError, RecursionError):
        canonical = False
    if not canonical:
        raise damaged("the header document is not a JSON object in canonical form")
    return header


def _report(content: bytes, entries: Sequence[Entry], streams: Sequence[Stream]) -> ArtifactReport:
    _, _, length, document_bytes, _, manifest_bytes, _, _ = PREFIX.unpack_from(content)
    planes = dict.fromkeys((None, *Plane), 0)
    for stream in streams:
        planes[stream.parts[0].plane if stream.parts else None] += len(stream.payload)
    return ArtifactReport(
        total_bytes=length,
        fixed_bytes=PREFIX.size + DIGEST_BYTES,
        document_bytes=document_bytes,
        manifest_bytes=manifest_bytes,
        table_bytes=planes[None],
        code_bytes=planes[Plane.CODES] + planes[Plane.PROTECTED_CODES],
        scale_bytes=planes[Plane.SCALES] + planes[Plane.COLUMN_SCALES] + planes[Plane.PROTECTED_STEPS],
        control_bytes=planes[Plane.VALUES],
        repair_bytes=sum(planes[plane] for plane in REPAIR_PLANES),
        elements=sum(element_count(shape) for entry in entries for shape, _ in entry.planes().values()),
    )

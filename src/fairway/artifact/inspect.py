"""Where every byte of an artifact went: per tensor, per class and per part of the container."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fairway.artifact.container import Layout, content_records, parse, read_bytes
from fairway.artifact.frequencies import entropy_bits
from fairway.artifact.layout import arrays_of
from fairway.artifact.manifest import Entry
from fairway.artifact.records import CodedTensor, element_count
from fairway.artifact.streams import GRID_PLANES, REPAIR_PLANES, SCALE_PLANES, Part, Plane, Stream, tensor_class


@dataclass(frozen=True, kw_only=True)
class TensorLine:
    """One tensor of an artifact.

    Attributes:
        name: Its name.
        group: Its name with numbers replaced by ``*``.
        scheme: ``int6`` and so on for codes, the element type for plain arrays; ``+64xint8`` for 64 protected columns and
            ``+rank4`` for a repair behind it.
        shape: Dimensions.
        elements: Product of the dimensions.
        bits: Width of the codes, or of one plain element.
        entropy: Order-0 entropy of the codes in bits per weight, protected columns apart, and with a trellis even and odd codes
            apart, since a path tells which is next; None for plain arrays.
        ideal: Ideal code length of the codes in bits per weight under the tables that were chosen for them, maps of rows and
            columns included and tables not; None for plain arrays, and for codes that no table holds.
        loss: Bits per weight of the codes in the file beyond ``ideal``; None where it is.
        coded: Bits per weight in the file, scales and repair included.
        code_bytes: Bytes of its codes, or of its plain elements.
        scale_bytes: Bytes of the scales of its rows and columns.
        repair_bytes: Bytes of the factors of its repair and their scales.
        coders: How its arrays are coded.

    A tensor that shares a stream is charged its share of the elements, or of the ideal code lengths where there are such, so
    bytes may be fractions.
    """

    name: str
    group: str
    scheme: str
    shape: tuple[int, ...]
    elements: int
    bits: int
    entropy: float | None
    ideal: float | None
    loss: float | None
    coded: float
    code_bytes: float
    scale_bytes: float
    repair_bytes: float
    coders: tuple[str, ...]

    @property
    def bytes(self) -> float:
        """All bytes of the tensor."""
        return self.code_bytes + self.scale_bytes + self.repair_bytes


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """Contents and sizes of an artifact.

    Attributes:
        path: The file.
        format_version: Version of the container.
        header: The JSON document.
        tensors: One line per tensor.
        parts: Bytes by part of the container; they sum to ``total_bytes``.
        total_bytes: Length of the file.
        weights: Codes of all quantized tensors.
        controls: Elements of all plain arrays.
        entropy_bytes: Order-0 entropy of the codes, one ideal table per tensor without its own cost.
        ideal_bytes: Ideal code length of the codes under the tables that were chosen, without their cost.
        bits_per_weight: ``8 * total_bytes / (weights + controls)``.
    """

    path: str
    format_version: int
    header: dict[str, Any]
    tensors: tuple[TensorLine, ...]
    parts: dict[str, int]
    total_bytes: int
    weights: int
    controls: int
    entropy_bytes: float
    ideal_bytes: float
    bits_per_weight: float

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON can hold it."""
        return asdict(self)


def inspect(path: Path) -> Inspection:
    """Read an artifact completely, verify it and account for its bytes.

    Raises:
        ArtifactError: as ``read_artifact``.
    """
    layout = parse(read_bytes(path), where=str(path))
    ideal_bits: dict[Part, float] = {}
    records = content_records(layout, str(path), ideal_bits)
    shares = _byte_shares(layout, ideal_bits)
    lines = []
    entropy_bytes = 0.0
    for index, (entry, record) in enumerate(zip(layout.entries, records, strict=True)):
        entropy = None
        elements = element_count(entry.shape)
        if isinstance(record, CodedTensor):
            bits = _entropy_bits(record)
            entropy_bytes += bits / 8
            entropy = bits / max(1, elements)
        codes, scales, repair = (
            sum((shares[index, plane][0] for plane in planes if (index, plane) in shares), 0.0)
            for planes in ((*GRID_PLANES, Plane.VALUES), (*SCALE_PLANES, Plane.PROTECTED_STEPS), REPAIR_PLANES)
        )
        known = [ideal_bits[part] for plane in GRID_PLANES if (part := Part(index, plane)) in ideal_bits]
        ideal = sum(known) / max(1, elements) if known else None
        lines.append(
            TensorLine(
                name=entry.name,
                group=tensor_class(entry.name),
                scheme=_scheme(entry),
                shape=entry.shape,
                elements=elements,
                bits=entry.bits or 8 * entry.dtype.itemsize,
                entropy=entropy,
                ideal=ideal,
                loss=None if ideal is None else 8 * codes / max(1, elements) - ideal,
                coded=8 * (codes + scales + repair) / max(1, elements),
                code_bytes=codes,
                scale_bytes=scales,
                repair_bytes=repair,
                coders=tuple(shares[index, plane][1] for plane in entry.planes()),
            )
        )
    return _summary(str(path), layout, tuple(lines), entropy_bytes, sum(ideal_bits.values()) / 8)


def _entropy_bits(record: CodedTensor) -> float:
    """Order-0 entropy of all codes, each kind that a reader tells apart beforehand by itself."""
    grids = [values for plane, values in arrays_of(record).items() if plane in GRID_PLANES]
    if record.trellis:
        grids = [codes[codes & 1 == parity] for codes in grids for parity in (0, 1)]
    counts = [np.bincount((codes.astype(np.int64) - codes.min(initial=0)).ravel(), minlength=1) for codes in grids]
    return sum(float(entropy_bits(own)) for own in counts)


def _scheme(entry: Entry) -> str:
    if not entry.bits:
        return entry.dtype.name
    scheme = f"trellis{entry.trellis}" if entry.trellis else f"int{entry.bits}"
    if entry.extras is not None and entry.extras.starts:
        scheme += f"+{len(entry.extras.starts) * entry.extras.size}xint{entry.extras.bits}"
    if entry.extras is not None and entry.extras.rank:
        scheme += f"+rank{entry.extras.rank}"
    return scheme


def _summary(path: str, layout: Layout, lines: tuple[TensorLine, ...], entropy_bytes: float, ideal_bytes: float) -> Inspection:
    report = layout.report
    weights = sum(line.elements for line in lines if line.entropy is not None)
    controls = sum(line.elements for line in lines if line.entropy is None)
    return Inspection(
        path=path,
        format_version=layout.version,
        header=layout.header,
        tensors=lines,
        parts={
            "fixed": report.fixed_bytes,
            "header": report.document_bytes,
            "manifest": report.manifest_bytes,
            "tables": report.table_bytes,
            "codes": report.code_bytes,
            "scales": report.scale_bytes,
            "controls": report.control_bytes,
            "repairs": report.repair_bytes,
        },
        total_bytes=report.total_bytes,
        weights=weights,
        controls=controls,
        entropy_bytes=entropy_bytes,
        ideal_bytes=ideal_bytes,
        bits_per_weight=8 * report.total_bytes / max(1, weights + controls),
    )


def _byte_shares(layout: Layout, ideal_bits: Mapping[Part, float]) -> dict[tuple[int, Plane], tuple[float, str]]:
    """Bytes and coder of every array; those of one stream share its payload in proportion to ideal lengths or elements."""
    shares = {}
    for stream in layout.streams:
        for part, share in _stream_shares(layout, stream, ideal_bits):
            shares[part.tensor, part.plane] = (share * len(stream.payload), stream.coder.name.lower())
    return shares


def _stream_shares(layout: Layout, stream: Stream, ideal_bits: Mapping[Part, float]) -> list[tuple[Part, float]]:
    weights = [ideal_bits.get(part, 0.0) for part in stream.parts]
    if not sum(weights):
        weights = [element_count(layout.entries[part.tensor].planes()[part.plane][0]) for part in stream.parts]
    total = sum(weights)
    return [(part, own / total if total else 1 / len(weights)) for part, own in zip(stream.parts, weights, strict=True)]

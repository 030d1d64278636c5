"""Small deterministic tensors for the container tests; integer arithmetic only, so every machine makes the same ones."""

import struct

import numpy as np

from fairway.artifact.layout import PREFIX, VERSION, Layout, seal
from fairway.artifact.manifest import pack_manifest
from fairway.artifact.records import CodedTensor, Protected, RawTensor, Repair, TensorRecord
from fairway.artifact.streams import Stream
from fairway.artifact.wire import brotli_pack

REPAIR_ARRAYS = ("left_codes", "left_scales", "right_codes", "right_scales")
HEADER = {"format_sample": 1, "model": {"layers": 2, "width": 48}, "text": "Größe – naïve"}


def binomial_codes(rows: int, columns: int, bits: int, seed: int) -> np.ndarray:
    """Bell-shaped codes from a linear congruential generator: sums of bits, clipped to the range."""
    state, values = seed, []
    for _ in range(rows * columns):
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        values.append((state >> 24 & 0xFFFFFF).bit_count() - 12)
    limit = (1 << (bits - 1)) - 1
    return np.clip(np.array(values), -limit, limit).astype(np.int8).reshape(rows, columns)


def half_floats(count: int, seed: int) -> np.ndarray:
    """Positive float16 numbers between 2**-6 and 2**-4."""
    bits = 0x2400 + (np.arange(count, dtype=np.int64) * seed * 7919 + seed) % 0x0800
    return bits.astype(np.uint16).view(np.float16)


def sample_tensors() -> dict[str, TensorRecord]:
    """Two coded matrices of one class, an embedding, and plain arrays of several types, one of them empty."""
    return {
        "embedding.weight": CodedTensor(binomial_codes(24, 16, 8, 1), half_floats(24, 3), 8),
        "blocks.0.mlp.up.weight": CodedTensor(binomial_codes(12, 16, 6, 2), half_floats(12, 5), 6),
        "blocks.1.mlp.up.weight": CodedTensor(binomial_codes(12, 16, 6, 3), half_floats(12, 7), 6),
        "blocks.0.mlp_scale": RawTensor(half_floats(16, 11)),
        "blocks.1.mlp_scale": RawTensor(-half_floats(16, 13)),
        "skips.gate": RawTensor(np.zeros((0, 16), np.float16)),
        "order": RawTensor(np.arange(6, dtype=np.int32).reshape(2, 3)),
        "softcap": RawTensor(np.array(30.5, np.float32)),
    }


def parts_tensors() -> dict[str, TensorRecord]:
    """Coded matrices with protected columns, with a repair, with both, and with neither; a gate of 8 bits."""
    wide, narrow = binomial_codes(24, 16, 8, 31), binomial_codes(24, 16, 5, 32)
    mixed = np.where(np.isin(np.arange(16) // 4, (1, 3)), wide, narrow)
    base, finer = half_floats(24, 3), half_floats(24, 5)
    # About as far from each other as two roundings of one deviation are, and one that is far away.
    near = (base.astype(np.float64) * 15 / 127).astype(np.float16).view(np.uint16) + np.arange(24) % 3
    near = near.astype(np.uint16).view(np.float16)
    near[7] = finer[7]
    left, right = binomial_codes(24, 2, 4, 33), binomial_codes(2, 16, 4, 34)
    repair = Repair(left, half_floats(1, 7), right, half_floats(2, 9))
    published = Repair(np.clip(left, -2, 1), half_floats(24, 7), binomial_codes(2, 16, 5, 35), half_floats(4, 9))
    return {
        "embedding.weight": CodedTensor(mixed, base, 5, Protected((4, 12), 4, 8, near), repair),
        "blocks.0.mlp.up.weight": CodedTensor(mixed, base, 5, Protected((4, 12), 4, 8, finer)),
        "blocks.1.mlp.up.weight": CodedTensor(narrow, base, 5, None, published),
        "blocks.2.mlp.up.weight": CodedTensor(narrow, base, 5),
        "blocks.3.mlp.up.weight": CodedTensor(wide, base, 5, Protected((0, 8), 8, 8, near)),
        "blocks.0.attention.gate": CodedTensor(binomial_codes(2, 12, 8, 36), half_floats(2, 11), 8),
        "blocks.0.mlp_scale": RawTensor(half_floats(16, 11)),
    }


def same(left: TensorRecord, right: TensorRecord) -> bool:
    """Equal bit for bit, types and shapes included."""
    if isinstance(left, CodedTensor) and isinstance(right, CodedTensor):
        plain = _same_bits(left.codes, right.codes) and _same_bits(left.scales, right.scales) and left.bits == right.bits
        return plain and _same_protection(left.protected, right.protected) and _same_repair(left.repair, right.repair)
    if isinstance(left, RawTensor) and isinstance(right, RawTensor):
        return _same_bits(left.values, right.values)
    return False


def _same_protection(left: Protected | None, right: Protected | None) -> bool:
    if left is None or right is None:
        return left is right
    groups = (left.starts, left.size, left.bits) == (right.starts, right.size, right.bits)
    return groups and _same_bits(left.scales, right.scales)


def _same_repair(left: Repair | None, right: Repair | None) -> bool:
    if left is None or right is None:
        return left is right
    return all(_same_bits(getattr(left, name), getattr(right, name)) for name in REPAIR_ARRAYS)


def _same_bits(left: np.ndarray, right: np.ndarray) -> bool:
    return left.dtype == right.dtype and left.shape == right.shape and left.tobytes() == right.tobytes()


def forge(
    layout: Layout, *, manifest: bytes | None = None, document: bytes | None = None, payload: bytes | None = None
) -> bytes:
    """The bytes of an artifact with some sections replaced and all lengths and the closing digest made right again."""
    document = layout.document if document is None else document
    manifest = pack_manifest(layout.entries, layout.streams) if manifest is None else manifest
    payload = b"".join(stream.payload for stream in layout.streams) if payload is None else payload
    packed = brotli_pack(document, 2), brotli_pack(manifest, 2)
    length = PREFIX.size + sum(map(len, packed)) + len(payload) + 16
    sizes = (len(packed[0]), len(document), len(packed[1]), len(manifest))
    prefix = struct.pack("<8sIQIIII16s", b"\x89FWZ\r\n\x1a\n", VERSION, length, *sizes, layout.content_digest)
    return seal(prefix + packed[0] + packed[1] + payload)


def forge_streams(layout: Layout, streams: list[Stream]) -> bytes:
    """The bytes of an artifact with its streams replaced."""
    manifest = pack_manifest(layout.entries, streams)
    return forge(layout, manifest=manifest, payload=b"".join(stream.payload for stream in streams))

"""Small deterministic tensors for the container tests; integer arithmetic only, so every machine makes the same ones."""

import struct

import numpy as np

from fairway.artifact.code_tensors import CodeTensor
from fairway.artifact.codes import Pool, fit_running, pack_running
from fairway.artifact.container import encode
from fairway.artifact.contexts import Running
from fairway.artifact.layout import PREFIX, VERSION, Layout, parse, seal
from fairway.artifact.manifest import pack_manifest
from fairway.artifact.pool import pack_pool, unpack_pool
from fairway.artifact.records import CodedTensor, Protected, RawTensor, Repair, TensorRecord
from fairway.artifact.scale_grid import grid_scales
from fairway.artifact.streams import Stream
from fairway.artifact.wire import brotli_pack
from fairway.quant.trellis_states import trellis

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


def spread_codes(rows: int, columns: int, bits: int, seed: int, widths: np.ndarray) -> np.ndarray:
    """Bell-shaped codes times integers that broadcast to the matrix, clipped to the range."""
    limit = (1 << (bits - 1)) - 1
    return np.clip(binomial_codes(rows, columns, 5, seed).astype(np.int64) * widths, -limit, limit).astype(np.int8)


def path_codes(rows: int, columns: int, states: int, seed: int, widths: np.ndarray | int = 1) -> np.ndarray:
    """Paths of a trellis: bell-shaped m times integers that broadcast to the matrix, and the parity that the state asks for."""
    machine, state = trellis(states), np.zeros(columns, np.int64)
    codes = (2 * binomial_codes(rows, columns, 5, seed).astype(np.int64) * widths).astype(np.int16)
    for row in range(rows):
        codes[row] += machine.parity[state]
        state = machine.step(state, codes[row])
    return codes


def on_grid(count: int, steps: int, seed: int) -> np.ndarray:
    """Scales of a grid, within an octave of 2**-5."""
    exponents = binomial_codes(1, count, 5, seed)[0].astype(np.int64) * steps // 16 - 5 * steps
    return grid_scales(steps)[exponents + 14 * steps]


def switching(rows: int, columns: int, run: int, seed: int) -> np.ndarray:
    """Widths of 1 and 9 that change in each column about every ``run`` rows."""
    changes = binomial_codes(rows // run + 1, columns, 5, seed) > 0
    phases = (np.arange(rows)[:, None] + 3 * np.arange(columns) % run) // run
    return np.where(np.take_along_axis(changes, np.minimum(phases, rows // run), axis=0), 9, 1)


def grid_tensors() -> dict[str, TensorRecord]:
    """Trellises of several sizes with levels, one and two-sided; gains, grids of scales, scales of columns, a repair."""
    columns = np.where(np.arange(24) % 3 == 0, 7, 1)
    rows = np.where(np.arange(20) % 4 == 0, 6, 1)[:, None]
    repair = Repair(binomial_codes(20, 2, 4, 33), half_floats(1, 7), binomial_codes(2, 24, 4, 34), half_floats(2, 9))
    up = path_codes(20, 24, 8, 41, columns), on_grid(20, 8, 1)
    return {
        "blocks.0.mlp.up.weight": CodedTensor(*up, 6, None, repair, trellis=8, gain=1.25, scale_grid=8),
        "blocks.1.mlp.up.weight": CodedTensor(path_codes(20, 24, 8, 42, rows), half_floats(20, 5), 6, trellis=8),
        "blocks.2.mlp.up.weight": CodedTensor(path_codes(20, 8, 64, 43), on_grid(20, 3, 2), 6, trellis=64, scale_grid=3),
        "blocks.0.gate": CodedTensor(
            binomial_codes(12, 24, 6, 44), on_grid(12, 16, 5), 6, gain=0.984375, scale_grid=16, column_scales=on_grid(24, 16, 6)
        ),
        "blocks.0.empty.weight": CodedTensor(np.zeros((0, 5), np.int16), half_floats(0, 1), 6, trellis=8),
        "blocks.0.mlp_scale": RawTensor(half_floats(16, 11)),
    }


def walk_tensors() -> dict[str, TensorRecord]:
    """Codes with levels that are worth their tables, and codes of changing width, one of them on a trellis."""
    columns, late = np.where(np.arange(96) % 3 == 0, 12, 1), switching(40, 48, 16, 52)
    return {
        "blocks.0.mlp.down.weight": CodedTensor(spread_codes(32, 96, 8, 51, columns), on_grid(32, 8, 4), 8, scale_grid=8),
        "blocks.0.mlp.up.weight": CodedTensor(spread_codes(40, 48, 8, 53, late), half_floats(40, 7), 8),
        "blocks.1.mlp.up.weight": CodedTensor(spread_codes(40, 16, 8, 57, late[:, :16]), half_floats(40, 7), 8),
        "blocks.2.mlp.up.weight": CodedTensor(path_codes(40, 48, 4, 54, late), on_grid(40, 8, 3), 6, trellis=4, scale_grid=8),
        "embedding.weight": CodedTensor(spread_codes(24, 80, 8, 55, switching(24, 80, 4, 56)), half_floats(24, 7), 8),
        "order": RawTensor(np.arange(6, dtype=np.int32).reshape(2, 3)),
    }


def walked(tensors: dict[str, TensorRecord], header: dict) -> bytes:
    """The walks of ``walk_tensors`` under running magnitudes, with and without the code above, though smaller coders exist."""
    layout = parse(encode(tensors, header))
    pool, streams = unpack_pool(layout.streams[0]), []
    for members, settings in (
        ((1, 2), Running(5, 2, above=False)),
        ((3,), Running(4, 1, above=True)),
        ((4,), Running(3, 0, above=True)),
    ):
        entries = [(index, *list(tensors.items())[index]) for index in members]
        parts = [CodeTensor(index, record.codes, record.bits, name, trellis=record.trellis) for index, name, record in entries]
        streams.append(pack_running(fit_running(parts, settings), Pool(pool)))
    taken = {part for stream in streams for part in stream.parts}
    kept = [stream for stream in layout.streams[1:] if not taken & set(stream.parts)]
    return forge_streams(layout, [pack_pool(pool), *kept, *streams])


def same(left: TensorRecord, right: TensorRecord) -> bool:
    """Equal bit for bit, types and shapes included."""
    if isinstance(left, CodedTensor) and isinstance(right, CodedTensor):
        plain = _same_bits(left.codes, right.codes) and _same_bits(left.scales, right.scales) and left.bits == right.bits
        grid = (left.trellis, left.gain, left.scale_grid) == (right.trellis, right.gain, right.scale_grid)
        if left.column_scales is None or right.column_scales is None:
            grid = grid and left.column_scales is right.column_scales
        else:
            grid = grid and _same_bits(left.column_scales, right.column_scales)
        return plain and grid and _same_protection(left.protected, right.protected) and _same_repair(left.repair, right.repair)
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

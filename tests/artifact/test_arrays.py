"""Scales and controls: every bit comes back, and no more bytes than brotli needs."""

import brotli
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairway.artifact.arrays import (
    ArrayPart,
    best_candidate,
    from_planes,
    ordered,
    pack_arrays,
    to_planes,
    unordered,
    unpack_array,
)
from fairway.artifact.streams import Coder, Part, Plane
from fairway.artifact.wire import varint
from fairway.base.errors import ArtifactError


def round_trip(arrays):
    pool = []
    streams = pack_arrays([ArrayPart(Part(i, Plane.VALUES), f"kind{i % 2}", a) for i, a in enumerate(arrays)], pool)
    found = {}
    for stream in streams:
        members = [arrays[part.tensor] for part in stream.parts]
        total = sum(member.size for member in members)
        values = unpack_array(stream.coder, stream.parameters, stream.payload, members[0].dtype, total, pool, "w")
        for part, piece in zip(stream.parts, np.split(values, np.cumsum([m.size for m in members])[:-1]), strict=True):
            found[part.tensor] = piece
    assert sorted(found) == list(range(len(arrays)))
    for index, array in enumerate(arrays):
        assert found[index].dtype == array.dtype
        assert found[index].tobytes() == array.tobytes()
    return streams


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["<f2", "<f4", "<i4", "|u1"]), st.binary(max_size=400)), max_size=5))
def test_any_bits_come_back(inputs):
    round_trip([np.frombuffer(data[: len(data) // 4 * 4], dtype) for dtype, data in inputs])


def test_order_preserving_map_sorts_all_finite_halves_and_is_a_bijection():
    halves = np.arange(65536, dtype=np.uint16).view(np.float16)
    assert np.array_equal(unordered(ordered(halves)).view(np.uint16), halves.view(np.uint16))
    finite = halves[np.isfinite(halves)]
    finite = finite[np.argsort(ordered(finite))].astype(np.float32)
    assert (np.diff(finite) >= 0).all()


@pytest.mark.parametrize("width", [1, 2, 4, 8])
def test_planes_are_a_transpose(width):
    data = bytes(range(256)) * width
    assert from_planes(to_planes(data, width), width) == data
    assert to_planes(b"ABCDEF", 2) == b"ACEBDF"


def test_lognormal_scales_are_smaller_than_brotli_and_near_their_density():
    scales = (0.01 * np.exp(0.3 * np.random.default_rng(5).standard_normal(20_000))).astype(np.float16)
    best = best_candidate(scales)
    planes = brotli.compress(to_planes(scales.tobytes(), 2), quality=11, lgwin=24)
    assert best.coder is Coder.SPLIT_FLOAT16
    assert best.size < 0.997 * min(len(planes), len(brotli.compress(scales.tobytes(), quality=11, lgwin=24)))
    cells_per_unit = 10 + np.mean(np.log2(scales.astype(np.float64)) % 1)
    density_bits = np.log2(0.3 * np.sqrt(2 * np.pi * np.e)) + cells_per_unit
    assert best.size < 1.01 * 20_000 * density_bits / 8


def test_repeated_values_fall_to_brotli():
    values = np.tile(np.random.default_rng(1).standard_normal(64).astype(np.float32), 100)
    assert best_candidate(values).size < 400


def test_arrays_of_one_kind_share_a_stream():
    generator = np.random.default_rng(2)
    streams = round_trip([(1 + 0.1 * generator.standard_normal(300)).astype(np.float16) for _ in range(6)])
    assert len(streams) < 6


@pytest.mark.parametrize(
    ("coder", "parameters", "payload", "message"),
    [
        (Coder.RAW, b"", b"\0" * 5, "holds 5 bytes"),
        (Coder.RAW, b"\1", b"\0" * 8, "parameters where its coder has none"),
        (Coder.BROTLI, b"", b"\xff\xff\xff", "not a valid brotli|does not decompress"),
        (Coder.BROTLI, b"", brotli.compress(bytes(10**7)), "does not decompress to the 8 bytes"),
        (Coder.BROTLI, b"", brotli.compress(bytes(8)) + b"x", "not a valid brotli|does not decompress"),
        (Coder.BROTLI, b"", brotli.compress(bytes(8))[:-1], "does not decompress"),
        (Coder.SPLIT_FLOAT16, varint(11) + varint(0), b"", "split at bit 11"),
        (Coder.SPLIT_FLOAT16, varint(5) + varint(0), b"", "table 0 of 0"),
        (Coder.SPLIT_FLOAT16, b"", b"", "asks for 1 bytes"),
    ],
)
def test_wrong_streams_are_refused(coder, parameters, payload, message):
    with pytest.raises(ArtifactError, match=message):
        unpack_array(coder, parameters, payload, np.dtype("<f2"), 4, [], "w")

"""Scales on a logarithmic grid: found with integers, coded by their exponents."""

import numpy as np
import pytest
from artifact_samples import on_grid
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_lockstep import read_grid_scales, scale_bits
from plain_reader import Bytes, words_of

from fairway.artifact.arrays import ArrayPart, pack_arrays, unpack_grid_scales
from fairway.artifact.container import decode, encode
from fairway.artifact.layout import parse
from fairway.artifact.records import CodedTensor
from fairway.artifact.scale_grid import MAX_STEPS, exponent_range, exponents_of, grid_scales, scales_of
from fairway.artifact.streams import Coder, Part, Plane, Stream
from fairway.artifact.tables import StoredTable
from fairway.artifact.wire import varint
from fairway.base.errors import ArtifactError


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 8, 16, 64, MAX_STEPS])
def test_points_are_the_nearest_float16_in_order_and_apart(steps):
    points, (low, high) = grid_scales(steps), exponent_range(steps)
    exponents = np.arange(low, high + 1)
    assert np.array_equal(points, np.exp2(exponents / steps).astype(np.float16))
    assert (np.diff(points.astype(np.float64)) > 0).all()
    assert np.isfinite(points).all()
    assert 2.0 ** ((high + 1) / steps) >= 65520 or points[-1] == 32768
    assert np.array_equal(exponents_of(points, steps), exponents)
    assert np.array_equal(scales_of(exponents.astype(np.int16), steps), points)
    plain = [scale_bits(exponent, steps) for exponent in exponents.tolist()[:: max(1, steps // 8)]]
    assert plain == points.view(np.uint16)[:: max(1, steps // 8)].tolist()


def test_free_scales_are_refused():
    with pytest.raises(ArtifactError, match=r"scale 0\.30004\d* of row 1 is not the float16 nearest to 2\*\*\(k/8\)"):
        exponents_of(np.array([0.5, 0.3], np.float16), 8)
    for wrong in (6e-8, 65504.0, np.inf):
        with pytest.raises(ArtifactError, match="is not the float16 nearest"):
            exponents_of(np.array([wrong], np.float16), 8)


def packed(scales, steps):
    pool = []
    (stream,) = pack_arrays([ArrayPart(Part(0, Plane.SCALES), "w", scales, steps)], pool)
    return stream, pool


@settings(max_examples=30, deadline=None)
@given(st.integers(1, MAX_STEPS), st.lists(st.integers(0, 10**6), min_size=40, max_size=80), st.booleans())
def test_any_scales_come_back_and_the_plain_reader_agrees(steps, draws, smooth):
    points = grid_scales(steps)
    places = (np.cumsum(np.array(draws) % 3) if smooth else np.array(draws)) % len(points)
    stream, pool = packed(points[places], steps)
    if stream.coder is Coder.GRID_SCALES:
        found = unpack_grid_scales(stream, steps, len(places), pool, "scales")
        assert found.tobytes() == points[places].tobytes()
        tables = [(table.low, table.table.frequencies.tolist()) for table in pool]
        plain = read_grid_scales(Bytes(stream.parameters), words_of(stream.payload), len(places), steps, tables)
        assert plain == points[places].tobytes()


def test_lognormal_rows_cost_four_bits_each_and_smooth_ones_two():
    generator = np.random.default_rng(4)
    rows = np.round(8 * np.log2(0.02 * np.exp(0.3 * generator.standard_normal(8192))))
    stream, _ = packed(np.exp2(rows / 8).astype(np.float16), 8)
    assert (stream.coder, stream.parameters[0]) == (Coder.GRID_SCALES, 0)
    assert 8 * len(stream.payload) < 3.9 * 8192
    smooth = -40 + np.cumsum(np.where(np.arange(8192) // 1000 % 2, 1, -1) * generator.integers(0, 2, 8192)) // 8
    stream, _ = packed(np.exp2(smooth / 8).astype(np.float16), 8)
    assert (stream.coder, stream.parameters[0]) == (Coder.GRID_SCALES, 1)
    assert 8 * len(stream.payload) < 1.2 * 8192


def test_tensors_of_different_grids_do_not_share_a_stream():
    codes = np.zeros((30, 4), np.int8)
    tensors = {str(steps): CodedTensor(codes, on_grid(30, steps, 7), 6, scale_grid=steps) for steps in (3, 8, 8 * 2)}
    layout = parse(encode(tensors, {}))
    assert all(len(s.parts) == 1 for s in layout.streams if s.coder is Coder.GRID_SCALES)
    found = decode(encode(tensors, {})).tensors
    assert all(found[name].scales.tobytes() == record.scales.tobytes() for name, record in tensors.items())


@pytest.mark.parametrize(
    ("order", "table", "steps", "message"),
    [
        (2, 0, 8, "coded with order 2"),
        (0, 9, 8, "under table 9 of 1"),
        (0, 0, 0, "on a grid of 0"),
        (0, 0, 1, "leads to exponents outside"),
        (1, 0, 8, "leads to exponents outside|data is missing"),
    ],
)
def test_forged_scales_are_refused(order, table, steps, message):
    pool = [StoredTable(500, 0, np.ones(1, np.int64))]
    stream = Stream(Coder.GRID_SCALES, varint(order) + varint(table), (), b"")
    with pytest.raises(ArtifactError, match=message):
        unpack_grid_scales(stream, steps, 6, pool, "scales")

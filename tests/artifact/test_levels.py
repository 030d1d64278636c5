"""Levels of rows and columns: what they save, and that they cost nothing where there is nothing to save."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_lockstep import read_level_codes
from plain_reader import Bytes, words_of

from fairway.artifact.code_tensors import CodeTensor
from fairway.artifact.codes import pack_codes
from fairway.artifact.level_codes import pack_level_codes, unpack_level_codes
from fairway.artifact.levels import Levels, build_bank, fit_levels
from fairway.artifact.pool import pack_pool
from fairway.artifact.shapes import choose_table
from fairway.artifact.streams import Coder, Stream
from fairway.artifact.wire import varint
from fairway.base.errors import ArtifactError

STEP = 12.85 / 31


def gaussian(rows, columns, seed, column_spread=0.0, row_spread=0.0):
    """Codes of a Gaussian matrix, and their ideal bits given the widths of rows and columns."""
    generator = np.random.default_rng(seed)
    widths = np.exp(column_spread * generator.standard_normal((1, columns)))
    widths = widths * np.exp(row_spread * generator.standard_normal((rows, 1))) / STEP
    codes = np.clip(np.rint(widths * generator.standard_normal((rows, columns))), -127, 127).astype(np.int8)
    return codes, float(np.sum(0.5 * np.log2(2 * np.pi * np.e * (widths**2 + 1 / 12))))


def packed_bits(arrays, kind="blocks.*.weight"):
    pool = []
    streams = pack_codes([CodeTensor(index, codes, 8, kind) for index, codes in enumerate(arrays)], pool)
    return 8 * (sum(len(stream.payload) + len(stream.parameters) for stream in streams) + len(pack_pool(pool).payload)), streams


@pytest.mark.parametrize(("columns", "rows", "limit"), [(0.2, 0.0, 1.003), (0.0, 0.2, 1.005), (0.2, 0.3, 1.005)])
def test_scales_of_rows_and_columns_cost_their_conditional_entropy(columns, rows, limit):
    # A level takes about four bits, so those of 512 columns weigh less than those of 2048 rows.
    codes, ideal = gaussian(2048, 512, 3, columns, rows)
    bits, (stream,) = packed_bits([codes])
    assert stream.coder is Coder.LEVEL_CODES or (columns == 0 and stream.coder is Coder.STATIC_CODES)
    assert bits < limit * ideal


def test_levels_cost_nothing_where_there_are_none():
    codes, ideal = gaussian(1024, 512, 4)
    bits, (stream,) = packed_bits([codes])
    assert stream.coder is Coder.STATIC_CODES
    assert bits < 1.001 * ideal


def test_tensors_of_a_network_share_their_bank():
    arrays = [gaussian(512, 256, seed, 0.25) for seed in range(6)]
    together, streams = packed_bits([codes for codes, _ in arrays])
    assert {stream.coder for stream in streams} == {Coder.LEVEL_CODES}
    assert together < sum(packed_bits([codes])[0] for codes, _ in arrays)
    assert together < 1.006 * sum(ideal for _, ideal in arrays)


def test_dead_columns_cost_nothing():
    codes, _ = gaussian(512, 256, 5)
    codes[:, ::2] = 0
    bits, _ = packed_bits([codes])
    assert bits < 0.51 * packed_bits([gaussian(512, 256, 5)[0]])[0]


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**31))
def test_any_levels_come_back_and_the_plain_reader_agrees(rows, columns, seed):
    generator = np.random.default_rng(seed)
    tensor = CodeTensor(0, generator.integers(-9, 10, (rows, columns)).astype(np.int8), 8, "w")
    levels = Levels(generator.integers(-3, 4, rows), generator.integers(-2, 3, columns))
    pool = build_bank([tensor], [levels]).tables
    maps = []
    for own in levels.from_zero():
        maps.append(len(pool) if own.any() else None)
        pool += [choose_table(np.bincount(own), 0)] if own.any() else []
    stream = pack_level_codes(tensor, levels, 0, (maps[0], maps[1]), pool)
    assert np.array_equal(unpack_level_codes(stream, (rows, columns), 8, pool, "w"), tensor.codes)
    tables = [(table.low, table.table.frequencies.tolist()) for table in pool]
    plain = read_level_codes(Bytes(stream.parameters), words_of(stream.payload), rows, columns, tables)
    assert plain == tensor.codes.ravel().tolist()


def test_fitted_levels_follow_the_widths():
    generator = np.random.default_rng(8)
    widths = np.where(np.arange(64) % 2, 8.0, 1.0)
    codes = np.rint(3 * widths * generator.standard_normal((400, 64))).astype(np.int8)
    levels = fit_levels(CodeTensor(0, codes, 8, "w"))
    assert np.ptp(levels.rows) <= 1
    assert np.abs(levels.columns[1::2].mean() - levels.columns[::2].mean() - 48) < 3


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        (b"", "asks for"),
        (b"\0\0", "asks for"),
        (b"\0\0\0\0", "after its last field"),
        (varint(10**9) + b"\0\0", "uses frequency tables 1000000000"),
        (b"\0\2\0", "a map of kind 2"),
        (b"\0\1" + varint(77) + b"\0", "uses frequency table 77"),
        (b"\0\1\0\0", r"where \[0, 1023\] is allowed"),
    ],
)
def test_wrong_parameters_are_refused(parameters, message):
    codes, _ = gaussian(16, 16, 9)
    tensor = CodeTensor(0, codes, 8, "w")
    levels = Levels(np.zeros(16, np.int64), np.zeros(16, np.int64))
    pool = build_bank([tensor], [levels]).tables
    payload = pack_level_codes(tensor, levels, 0, (None, None), pool).payload
    with pytest.raises(ArtifactError, match=message):
        unpack_level_codes(Stream(Coder.LEVEL_CODES, parameters, (), payload), (16, 16), 8, pool, "w")
    with pytest.raises(ArtifactError, match=r"where \[-1, 1\] is allowed"):
        unpack_level_codes(Stream(Coder.LEVEL_CODES, b"\0\0\0", (), payload), (16, 16), 2, pool, "w")

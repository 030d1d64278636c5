"""Tables from a formula: exact, close to Gaussian and heavier-tailed codes, a few bytes each, refused out of their limits."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_lockstep import read_mixed_tables, shaped_table
from plain_reader import Bytes, frequencies, read_tables

from fairway.artifact.frequencies import TOTAL, entropy_bits
from fairway.artifact.pool import pack_pool, unpack_pool
from fairway.artifact.shapes import MAX_RATE_LEVEL, ShapedTable, choose_table, fit_shape
from fairway.artifact.streams import Coder, Stream
from fairway.artifact.tables import StoredTable
from fairway.artifact.wire import brotli_pack, varint, zigzag
from fairway.base.errors import ArtifactError

shapes = st.builds(
    ShapedTable,
    low=st.integers(-90, 40),
    span=st.integers(2, 130),
    centre=st.integers(-50, 50),
    level=st.integers(1, MAX_RATE_LEVEL - 1),
    tail=st.integers(0, 15),
)
stored = st.builds(
    lambda low, levels: StoredTable(low, 3, np.array(levels, np.int64)),
    st.integers(-40, 0),
    st.lists(st.integers(0, 100), min_size=1, max_size=20),
)


@settings(max_examples=100, deadline=None)
@given(shapes)
def test_frequencies_are_complete_and_equal_to_those_of_the_plain_reader(shape):
    found = shape.table.frequencies
    assert found.min() >= 1
    assert found.sum() == TOTAL
    low, plain = shaped_table(shape.low, shape.span, shape.centre, shape.level, shape.tail, frequencies)
    assert (low, plain) == (shape.low, found.tolist())


@settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(shapes, stored), max_size=12))
def test_any_pool_comes_back_and_the_plain_reader_agrees(tables):
    stream = pack_pool(tables)
    found = unpack_pool(stream)
    assert [table.table.frequencies.tolist() for table in found] == [table.table.frequencies.tolist() for table in tables]
    assert [table.low for table in found] == [table.low for table in tables]
    assert (stream.coder is Coder.TABLES) == all(isinstance(table, StoredTable) for table in tables)
    if stream.coder is Coder.MIXED_TABLES:
        plain = read_mixed_tables(Bytes, stream.payload, read_tables, frequencies)
        assert plain == [(table.low, table.table.frequencies.tolist()) for table in tables]


@pytest.mark.parametrize(("draw", "limit"), [("normal", 1.0001), ("laplace", 1.003), ("student", 1.004), ("mixed", 1.001)])
def test_a_formula_costs_little_more_than_counts(draw, limit):
    generator = np.random.default_rng(2)
    count = 1 << 18
    values = {
        "normal": lambda: 2.4 * generator.standard_normal(count),
        "laplace": lambda: generator.laplace(scale=1.7, size=count),
        "student": lambda: 1.9 * generator.standard_t(5, count),
        "mixed": lambda: 2.4 * np.exp(0.3 * generator.standard_normal(count)) * generator.standard_normal(count),
    }[draw]()
    counts = np.bincount(np.clip(np.rint(values), -127, 127).astype(np.int64) + 127)
    shape = fit_shape(counts, -127, 0)
    assert shape is not None
    assert shape.table.bits(counts, -127) < limit * float(entropy_bits(counts))


def test_few_counts_take_the_formula_and_many_odd_ones_the_counts():
    generator = np.random.default_rng(3)
    few = np.bincount(np.rint(3 * generator.standard_normal(400)).astype(np.int64) + 20)
    assert isinstance(choose_table(few, -20, 0), ShapedTable)
    odd = np.array([5, 90_000, 3, 70_000, 1, 80_000], np.int64)
    assert isinstance(choose_table(odd, 0), StoredTable)


def test_neighbouring_tables_cost_two_or_three_bytes_each():
    tables = [ShapedTable(-31, 63, -(index % 2), 1600 + 4 * (index // 2), 0) for index in range(100)]
    assert len(pack_pool(tables).payload) < 60


def test_no_formula_reaches_beyond_its_symbols():
    assert fit_shape(np.ones(2, np.int64), 1 << 13) is None
    assert fit_shape(np.ones(1, np.int64), 0) is None
    assert isinstance(choose_table(np.ones(2, np.int64), 1 << 13), StoredTable)


def pool_stream(fields, *, flags=b"\x80", count=1, tail=b"\0\1\1"):
    head = varint(count) + flags + b"".join(varint(zigzag(value)) for value in fields)
    packed = brotli_pack(head)
    return Stream(Coder.MIXED_TABLES, b"", (), varint(len(head)) + varint(len(packed)) + packed + tail)


@pytest.mark.parametrize(
    ("stream", "message"),
    [
        (pool_stream((0, 1, 0, 5, 0)), "has the shape"),
        (pool_stream((0, 1 << 14, 0, 5, 0)), "has the shape"),
        (pool_stream((-(1 << 13) - 1, 4, 0, 5, 0)), "has the shape"),
        (pool_stream((0, 4, 1 << 15, 5, 0)), "has the shape"),
        (pool_stream((0, 4, 0, 0, 0)), "has the shape"),
        (pool_stream((0, 4, 0, MAX_RATE_LEVEL, 0)), "has the shape"),
        (pool_stream((0, 4, 0, 5, 16)), "has the shape"),
        (pool_stream((0, 4, 0, 5, -1)), "has the shape"),
        (pool_stream((0, 4, 0, 5)), "asks for"),
        (pool_stream((0, 4, 0, 5, 0, 0)), "after its last field"),
        (pool_stream((), flags=b"\0"), "fewer frequency tables"),
        (pool_stream((0, 4, 0, 5, 0), flags=b"\xc0"), "go on behind"),
        (pool_stream((), count=1 << 17, flags=bytes(1 << 14)), "announces 131072 frequency tables"),
        (pool_stream((0, 4, 0, 5, 0), tail=b"\1\0\0\0\1\1"), "more frequency tables"),
        (Stream(Coder.MIXED_TABLES, b"", (), varint(1 << 21) + b"\0"), "has 2097152 bytes"),
    ],
)
def test_forged_pools_are_refused(stream, message):
    with pytest.raises(ArtifactError, match=message):
        unpack_pool(stream)

"""Stored frequency tables: small, exact in both directions, and refused when out of their limits."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairway.artifact.frequencies import entropy_bits
from fairway.artifact.tables import (
    MAX_MANTISSA_BITS,
    RESIDUAL_SYMBOLS,
    WEIGHT_BITS,
    fit_table,
    from_levels,
    pack_tables,
    to_levels,
    unpack_tables,
)
from fairway.artifact.wire import unzigzag, varint, zigzag
from fairway.base.errors import ArtifactError

counts_lists = st.lists(st.one_of(st.just(0), st.integers(0, 40), st.integers(0, 10**9)), min_size=1, max_size=80)


@pytest.mark.parametrize("mantissa_bits", range(MAX_MANTISSA_BITS + 1))
def test_levels_are_monotone_and_keep_relative_precision(mantissa_bits):
    weights = np.unique(np.concatenate([np.arange(3000), 2 ** np.arange(WEIGHT_BITS), 2 ** np.arange(1, WEIGHT_BITS + 1) - 1]))
    levels = to_levels(weights, mantissa_bits)
    back = from_levels(levels, mantissa_bits)
    assert (np.diff(levels) >= 0).all()
    assert np.array_equal(to_levels(back, mantissa_bits), levels)
    assert (np.abs(back - weights) <= weights * 2.0 ** -(mantissa_bits + 1)).all()


def test_every_difference_of_levels_has_a_residual_symbol():
    largest = int(to_levels(np.array([2**WEIGHT_BITS - 1]), MAX_MANTISSA_BITS)[0])
    assert zigzag(-2 * largest) < RESIDUAL_SYMBOLS
    assert zigzag(2 * largest) < RESIDUAL_SYMBOLS


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(counts_lists, st.integers(-128, 128)), max_size=5))
def test_tables_come_back_exactly(inputs):
    tables = [fit_table(np.array(counts, np.int64), low) for counts, low in inputs]
    found = unpack_tables(pack_tables(tables))
    assert [table.low for table in found] == [table.low for table in tables]
    for left, right in zip(found, tables, strict=True):
        assert np.array_equal(left.table.frequencies, right.table.frequencies)


@settings(max_examples=80, deadline=None)
@given(counts_lists, st.integers(-128, 128))
def test_fitted_tables_cover_every_counted_symbol(counts, low):
    array = np.array(counts, np.int64)
    used = np.flatnonzero(array)
    stored = fit_table(array, low)
    if used.size:
        assert (stored.low, stored.high) == (low + used[0], low + used[-1])


def test_a_table_for_a_million_codes_takes_few_bytes_and_loses_next_to_nothing():
    codes = np.rint(np.random.default_rng(3).standard_normal(1_000_000) * 31 / 12.85).astype(np.int64)
    counts = np.bincount(codes + 31, minlength=63)
    stored = fit_table(counts, -31)
    assert len(pack_tables([stored])) <= 40
    assert stored.table.bits(counts, -31) <= entropy_bits(counts) * 1.00005


@given(st.integers(-(10**9), 10**9))
def test_zigzag_is_a_bijection(value):
    assert unzigzag(zigzag(value)) == value


def table_header(low: int, span: int, mantissa_bits: int) -> bytes:
    return varint(1) + varint(zigzag(low)) + varint(span - 1) + bytes([mantissa_bits])


@pytest.mark.parametrize(
    "payload",
    [
        table_header(0, 2**40, 3) + b"\x01\x80",
        table_header(0, 70_000, 3) + b"\x01\x80",
        table_header(2**30, 2, 3) + b"\x01\x80",
        table_header(0, 2, 9) + b"\x01\x80",
        table_header(0, 2, 3) + b"\x03\x80",
        table_header(0, 2, 3) + b"\x01\x00",
        table_header(0, 2, 3),
        varint(2**62),
        b"",
        table_header(0, 40, 3) + b"\x02\x80" + b"\xff" * 40,
    ],
)
def test_tables_out_of_their_limits_are_refused(payload):
    with pytest.raises(ArtifactError, match="damaged or forged"):
        unpack_tables(payload)

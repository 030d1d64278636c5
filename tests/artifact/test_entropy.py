"""Codes at their entropy: sizes against the ideal, and sharing of tables where it saves bytes."""

import numpy as np
import pytest

from fairway.artifact.code_tensors import CodeTensor
from fairway.artifact.codes import Pool
from fairway.artifact.entropy import (
    code_histograms,
    merge_units,
    pack_static,
    plan_static,
    row_histograms,
    split_rows,
    unpack_static,
)
from fairway.artifact.frequencies import entropy_bits
from fairway.artifact.pool import pack_pool
from fairway.artifact.streams import Coder, Stream
from fairway.artifact.wire import varint
from fairway.base.errors import ArtifactError


def gaussian_codes(rows, columns, step, limit, seed, row_spread=0.0):
    generator = np.random.default_rng(seed)
    spread = np.exp(row_spread * generator.standard_normal((rows, 1)))
    return np.clip(np.rint(spread * generator.standard_normal((rows, columns)) / step), -limit, limit).astype(np.int8)


def packed(arrays, bits=6):
    pool = []
    tensors = [CodeTensor(index, codes, bits, "blocks.*.weight") for index, codes in enumerate(arrays)]
    plan, numbers = plan_static([tensor for tensor in tensors if tensor.codes.size]), Pool(pool)
    streams = [pack_static(tensor, plan, numbers.number) for tensor in tensors]
    for codes, stream in zip(arrays, streams, strict=True):
        assert np.array_equal(unpack_static(stream, codes.shape, bits, pool, "w"), codes)
    return pool, streams, len(pack_pool(pool).payload) + sum(len(stream.payload) + len(stream.parameters) for stream in streams)


def test_gaussian_codes_are_within_a_thousandth_of_their_entropy():
    codes = gaussian_codes(2048, 512, 12.85 / 31, 31, seed=11)
    _, _, size = packed([codes])
    entropy = float(entropy_bits(np.bincount(codes.ravel().astype(np.int64) + 31)))
    assert 8 * size <= 1.001 * entropy
    assert 8 * size / codes.size == pytest.approx(3.3279, abs=0.0033)


def test_equal_distributions_share_one_table():
    pool, _, _ = packed([gaussian_codes(64, 128, 0.41, 31, seed) for seed in range(6)])
    assert len(pool) == 1


def test_different_distributions_keep_their_own_tables():
    steps = (0.2, 0.4, 0.8)
    arrays = [gaussian_codes(128, 128, steps[index % 3], 31, index) for index in range(6)]
    pool, streams, size = packed(arrays)
    assert len(pool) == 3
    assert [stream.parameters for stream in streams[:3]] == [stream.parameters for stream in streams[3:]]
    joint = float(entropy_bits(np.bincount(np.concatenate(arrays).ravel().astype(np.int64) + 31)))
    assert 8 * size < 0.97 * joint


def test_rows_of_different_spread_get_groups_and_save_bytes():
    codes = gaussian_codes(512, 256, 0.41, 31, seed=5, row_spread=0.5)
    pool, _, size = packed([codes])
    single = float(entropy_bits(np.bincount(codes.ravel().astype(np.int64) + 31)))
    assert len(pool) > 2
    assert 8 * size < 0.975 * single


def test_rows_of_equal_spread_stay_together():
    assert split_rows(row_histograms(gaussian_codes(512, 512, 0.41, 31, seed=6), 6)) is None


def test_merging_follows_bytes_not_order():
    wide, narrow = gaussian_codes(64, 512, 0.3, 31, 1), gaussian_codes(64, 512, 0.9, 31, 2)
    counts = np.stack([np.bincount(c.ravel().astype(np.int64) + 31, minlength=63) for c in (wide, narrow, wide, narrow)])
    labels = merge_units(counts)
    assert labels[0] == labels[2] != labels[1] == labels[3]


def test_many_short_rows_take_no_memory_for_their_histograms():
    codes = gaussian_codes(200_000, 2, 0.2, 127, 8)
    assert len(code_histograms(codes, 8)) == 1
    packed([codes], bits=8)


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (1, 1), (1, 900), (900, 1)])
def test_degenerate_shapes(shape):
    packed([gaussian_codes(*shape, 0.4, 31, 9), np.zeros(shape, np.int8)])


def test_constant_and_extreme_codes_cost_no_payload_or_one_bit():
    _, streams, _ = packed([np.full((30, 30), -7, np.int8)])
    assert streams[0].payload == b""
    extremes = np.where(gaussian_codes(64, 64, 0.4, 31, 3) > 0, 127, -127).astype(np.int8)
    _, streams, _ = packed([extremes], bits=8)
    assert len(streams[0].payload) <= 64 * 64 / 8 + 8


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        (b"", "asks for"),
        (varint(1) + varint(5), "table 5 of"),
        (varint(9) + bytes(10), "9 groups"),
        (varint(0), "0 groups"),
        (varint(1) + varint(0) + b"\0", "after its last field"),
        (varint(2) + bytes(3), "where \\[0, 1\\] is allowed"),
    ],
)
def test_wrong_parameters_are_refused(parameters, message):
    codes = gaussian_codes(16, 16, 0.4, 31, 4)
    pool, streams, _ = packed([codes])
    with pytest.raises(ArtifactError, match=message):
        unpack_static(Stream(Coder.STATIC_CODES, parameters, (), streams[0].payload), codes.shape, 6, pool, "w")


def test_a_table_beyond_the_range_of_the_bits_is_refused_before_decoding():
    codes = gaussian_codes(16, 16, 0.2, 31, 4)
    pool, streams, _ = packed([codes])
    with pytest.raises(ArtifactError, match=r"where \[-3, 3\] is allowed"):
        unpack_static(streams[0], codes.shape, 3, pool, "w")

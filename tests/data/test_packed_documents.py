"""Packed documents: the published order, segments of a row, and what no loader may do."""

import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairway.base.errors import DataError
from fairway.data.packed_documents import SEARCHED_AT_ONCE, PackedDocuments
from fairway.data.prefetch import Prefetcher
from fairway.data.shards import find_shards, open_shards, write_shard
from fairway.data.tokenizer import BOS
from fairway.kernels.attention import Segments

EXAMPLE = ((2, (5, 3, 9, 4, 6, 7, 2, 8, 5, 5, 3)), (3, (4, 12, 6, 3, 9, 9, 7)))
"""Per shard, tokens before its first document, then the lengths of its documents."""


def make_shards(folder, shards, step=1000):
    """Token j of shard i is ``step * i + j + 10``, but a document begins with BOS: content tells where it stands."""
    for index, (leading, documents) in enumerate(shards):
        values = 10 + step * index + np.arange(leading + sum(documents))
        values[leading + np.cumsum([0, *documents[:-1]])] = BOS
        write_shard(folder / f"train_{index:06d}.bin", values.astype(np.uint16))
    return open_shards(find_shards(folder, "train"))


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return make_shards(tmp_path_factory.mktemp("packed"), EXAMPLE)


def places(loader, shards, count):
    """Shard and position of the first input of each row, found again by the row's content."""
    found = []
    for _ in range(count):
        inputs, targets = loader.next_batch()
        span = np.append(inputs[0], targets[0, -1])
        windows = [
            (index, begin)
            for index, shard in enumerate(shards)
            for begin in range(shard.tokens - len(span) + 1)
            if np.array_equal(shard.values[begin : begin + len(span)], span)
        ]
        assert len(windows) == 1
        found.extend(windows)
    return found


def starts(row, longest):
    return Segments.cut(np.flatnonzero(row == BOS).tolist(), len(row), longest, padding=4).starts.tolist()


def test_two_streams_take_the_published_spans(shards):
    first, second = (PackedDocuments(shards, stream=stream, streams=2, tokens=8) for stream in (0, 1))
    expected = [(0, 2), (0, 20), (0, 38), (1, 3), (1, 21), (0, 2)]
    assert places(first, shards, 6) == expected
    assert places(second, shards, 6) == [(shard, begin + 9) for shard, begin in expected]
    first, second = (PackedDocuments(shards, stream=stream, streams=2, tokens=8) for stream in (0, 1))
    cuts = [[starts(loader.next_batch()[0][0], 4) for loader in (first, second)] for _ in range(2)]
    assert cuts == [[[0, 4, 5, 8], [0, 4, 8, 8]], [[0, 3, 7, 8], [0, 4, 7, 8]]]


def test_one_stream_takes_the_published_spans(shards):
    loader = PackedDocuments(shards, stream=0, streams=1, tokens=8)
    first = [(0, begin) for begin in (2, 11, 20, 29, 38, 47)]
    assert places(loader, shards, 12) == [*first, *((1, begin) for begin in (3, 12, 21, 30, 39)), first[0]]


@pytest.mark.parametrize(
    ("tokens", "documents", "longest", "expected", "reached"),
    [
        (8, [], 0, [0, 8, 8, 8], 8),
        (8, [3], 0, [0, 3, 8, 8], 5),
        (8, [0, 3, 7], 0, [0, 3, 7, 8], 4),
        (10, [0, 3], 4, [0, 3, 7, 10], 4),
        (10, [2, 3], 4, [0, 2, 3, 7, 10, 10, 10, 10], 4),
        (16, [0, 5], 4, [0, 4, 5, 9, 13, 16, 16, 16], 4),
    ],
)
def test_the_published_segments(tokens, documents, longest, expected, reached):
    segments = Segments.cut(documents, tokens, longest or tokens, padding=4)
    assert segments.starts.tolist() == expected
    assert max(end - begin for begin, end in segments.ranges()) == reached


SHARDS = st.lists(
    st.tuples(st.integers(0, 6), st.lists(st.integers(1, 25), min_size=1, max_size=8).map(tuple)), min_size=1, max_size=4
)


@settings(max_examples=80, deadline=None)
@given(built=SHARDS, streams=st.integers(1, 4), tokens=st.integers(1, 12), context=st.integers(1, 12))
def test_an_epoch_uses_no_token_twice_and_drops_tails_alone(built, streams, tokens, context):
    with tempfile.TemporaryDirectory() as folder:
        shards = make_shards(Path(folder), built)
        span, firsts = streams * (tokens + 1), [leading for leading, _ in built]
        rounds = [(shard.tokens - first) // span for shard, first in zip(shards, firsts, strict=True)]
        if not sum(rounds):
            with pytest.raises(DataError, match=f"no training shard holds {span} tokens"):
                PackedDocuments(shards, stream=0, streams=streams, tokens=tokens)
            return
        loaders = [PackedDocuments(shards, stream=stream, streams=streams, tokens=tokens) for stream in range(streams)]
        expected = [
            shard.values[first + number * span : first + (number + 1) * span]
            for shard, first, count in zip(shards, firsts, rounds, strict=True)
            for number in range(count)
        ]
        for wanted in [*expected, expected[0]]:
            batches = [loader.next_batch() for loader in loaders]
            for inputs, targets in batches:
                assert inputs.shape == targets.shape == (1, tokens)
                assert inputs.dtype == targets.dtype == np.int64
                assert np.array_equal(inputs[0, 1:], targets[0, :-1])
                pieces = Segments.cut(np.flatnonzero(inputs[0] == BOS).tolist(), tokens, context).ranges()
                assert [position for begin, end in pieces for position in range(begin, end)] == list(range(tokens))
                assert max(end - begin for begin, end in pieces) <= context
                assert {begin for begin, _ in pieces} >= set(np.flatnonzero(inputs[0] == BOS).tolist())
            assert np.array_equal(np.concatenate([np.append(x[0], y[0, -1]) for x, y in batches]), wanted)


@settings(max_examples=40, deadline=None)
@given(before=st.integers(0, 30), streams=st.integers(1, 3), tokens=st.integers(1, 12), ahead=st.integers(1, 3))
def test_a_restored_loader_continues_identically_prefetched_or_not(shards, before, streams, tokens, ahead):
    options = {"stream": streams - 1, "streams": streams, "tokens": tokens}
    loader = PackedDocuments(shards, **options)
    for _ in range(before):
        loader.next_batch()
    state = json.loads(json.dumps(loader.state()))
    expected = [loader.next_batch()[0].tolist() for _ in range(12)]
    other = PackedDocuments(shards, **options)
    other.restore(state)
    with Prefetcher(other, ahead) as prefetched:
        assert [prefetched.next_batch()[0].tolist() for _ in range(12)] == expected
        assert prefetched.state() == loader.state()


def test_a_state_of_other_data_or_settings_is_refused(shards, tmp_path):
    loader = PackedDocuments(shards, stream=0, streams=2, tokens=8)
    for other in (
        PackedDocuments(shards, stream=1, streams=2, tokens=8),
        PackedDocuments(shards, stream=0, streams=2, tokens=7),
        PackedDocuments(make_shards(tmp_path, EXAMPLE[:1]), stream=0, streams=2, tokens=8),
    ):
        with pytest.raises(DataError, match="the saved loader state has"):
            other.restore(loader.state())
    for wrong in ({"shard": 2}, {"shard": -1}, {"cursor": 3}, {"cursor": 1}, {"cursor": 10**6}, {"cursor": 2.0}):
        with pytest.raises(DataError, match=f"the saved loader state has {next(iter(wrong))}="):
            loader.restore({**loader.state(), **wrong})


def test_shards_that_cannot_feed_a_round_are_refused_or_passed_over(shards, tmp_path):
    with pytest.raises(DataError, match=r"no training shard holds 60 tokens.*longest has 59.*train\.batch_tokens"):
        PackedDocuments(shards, stream=0, streams=2, tokens=29)
    with pytest.raises(DataError, match="no training shard holds 58 tokens behind its first document"):
        PackedDocuments(shards, stream=0, streams=2, tokens=28)
    only_first = PackedDocuments(shards, stream=0, streams=3, tokens=18)
    assert places(only_first, shards, 3) == [(0, 2)] * 3
    with pytest.raises(DataError, match="longest has 0"):
        PackedDocuments([], stream=0, streams=1, tokens=4)
    with pytest.raises(DataError, match="stream 2 is outside"):
        PackedDocuments(shards, stream=2, streams=2, tokens=4)
    write_shard(tmp_path / "train_000000.bin", np.full(40, 7, np.uint16))
    with pytest.raises(DataError, match=r"train_000000\.bin has no BOS \(id 1\) in its 40 tokens.*random_windows"):
        PackedDocuments(open_shards(find_shards(tmp_path, "train")), stream=0, streams=2, tokens=8)
    # A shard that no round fits is never entered, so what it lacks does not matter.
    PackedDocuments([*shards, *open_shards(find_shards(tmp_path, "train"))], stream=0, streams=2, tokens=20)


def test_the_first_document_is_found_however_late_it_begins(tmp_path):
    for leading in (SEARCHED_AT_ONCE - 1, SEARCHED_AT_ONCE, SEARCHED_AT_ONCE + 1):
        values = np.full(leading + 9, 7, np.uint16)
        values[leading] = BOS
        write_shard(tmp_path / "train_000000.bin", values)
        loader = PackedDocuments(open_shards(find_shards(tmp_path, "train")), stream=0, streams=1, tokens=8)
        assert loader.next_batch()[0][0].tolist() == [BOS, *[7] * 7]


def test_a_token_outside_the_vocabulary_stops_the_batch(shards):
    loader = PackedDocuments(shards, stream=0, streams=1, tokens=8, vocab_size=15)
    with pytest.raises(DataError, match="but the tokenizer has 15 pieces"):
        loader.next_batch()

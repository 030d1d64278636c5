import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairway.base.errors import DataError
from fairway.data.contiguous import Contiguous
from fairway.data.random_windows import RandomWindows
from fairway.data.shards import find_shards, open_shards, write_shard

EXAMPLE = (100, 57, 41, 9, 8)


def make_shards(folder, lengths, step=1000):
    """Token j of shard i is ``step * i + j``, so every token tells where it stands."""
    for index, length in enumerate(lengths):
        write_shard(folder / f"train_{index:06d}.bin", (step * index + np.arange(length)).astype(np.uint16))
    return open_shards(find_shards(folder, "train"))


@pytest.fixture
def shards(tmp_path):
    return make_shards(tmp_path, EXAMPLE)


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    return make_shards(tmp_path_factory.mktemp("many"), [300 + 7 * index for index in range(11)])


def firsts(loader, count):
    return [tuple(loader.next_batch()[0][:, 0].tolist()) for _ in range(count)]


def test_random_windows_reproduce_the_reference(shards):
    loader = RandomWindows(shards, stream=0, streams=1, context=8, rows=4)
    assert firsts(loader, 3) == [(14, 2027, 1044, 70), (78, 86, 46, 1036), (1012, 1004, 30, 3000)]
    first = RandomWindows(shards, stream=0, streams=2, context=8, rows=4)
    assert firsts(first, 2) == [(2012, 14, 2028, 70), (78, 86, 2020, 46)]
    second = RandomWindows(shards, stream=1, streams=2, context=8, rows=4)
    assert firsts(second, 1) == [(1027, 1043, 3000, 1011)]


def test_an_epoch_draws_each_window_once_and_all_shards_refill_together(shards):
    loader = RandomWindows(shards, stream=0, streams=1, context=8, rows=1)
    epoch = [start for (start,) in firsts(loader, 11 + 6 + 4 + 1)]
    assert len(set(epoch)) == len(epoch)
    for shard, length in enumerate(EXAMPLE[:4]):
        starts = sorted(start - 1000 * shard for start in epoch if start // 1000 == shard)
        assert starts == list(range(starts[0], length - 8, 8))
        assert starts[0] < 8
    again = [start for (start,) in firsts(loader, 22)]
    assert len(set(again)) == len(again)
    assert sorted(again) != sorted(epoch)


@pytest.mark.parametrize("kind", [RandomWindows, Contiguous])
def test_targets_are_the_inputs_shifted_by_one(many, kind):
    loader = kind(many, stream=1, streams=3, context=16, rows=4)
    for _ in range(20):
        inputs, targets = loader.next_batch()
        assert inputs.shape == targets.shape == (4, 16)
        assert inputs.dtype == targets.dtype == np.int64
        assert np.array_equal(inputs[:, 1:], targets[:, :-1])
    assert np.array_equal(
        RandomWindows(many, stream=0, streams=1, context=5, rows=2).next_batch()[1][:, -1] % 1000 >= 5, [True] * 2
    )


def test_contiguous_reads_the_joined_shards_in_order_for_ever(shards):
    joined = np.concatenate([shard.values for shard in shards]).astype(np.int64)
    loaders = [Contiguous(shards, stream=stream, streams=3, context=4, rows=2) for stream in range(3)]
    position = 0
    for _ in range(40):
        for loader in loaders:
            expected = joined[(position + np.arange(9)) % len(joined)]
            inputs, targets = loader.next_batch()
            assert np.array_equal(inputs.ravel(), expected[:-1])
            assert np.array_equal(targets.ravel(), expected[1:])
            position += 9


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from([RandomWindows, Contiguous]),
    before=st.integers(0, 60),
    context=st.integers(1, 40),
    rows=st.integers(1, 5),
)
def test_a_restored_loader_continues_identically(many, kind, before, context, rows):
    options = {"stream": 1, "streams": 4, "context": context, "rows": rows}
    loader = kind(many, **options)
    for _ in range(before):
        loader.next_batch()
    state = json.loads(json.dumps(loader.state()))
    expected = [loader.next_batch() for _ in range(30)]
    other = kind(many, **options)
    other.next_batch()
    other.restore(state)
    for inputs, targets in expected:
        found = other.next_batch()
        assert np.array_equal(found[0], inputs)
        assert np.array_equal(found[1], targets)
    assert other.state() == loader.state()


def test_streams_of_one_epoch_never_share_a_window(many):
    windows = set()
    count = 0
    for stream in range(4):
        loader = RandomWindows(many, stream=stream, streams=4, context=10, rows=1)
        starts = [start for (start,) in firsts(loader, 60)]
        windows |= set(starts)
        count += len(starts)
        assert {start // 1000 % 4 for start in starts} == {stream}
    assert len(windows) == count


def test_a_state_of_other_data_or_settings_is_refused(many, shards):
    state = RandomWindows(many, stream=0, streams=1, context=8, rows=4).state()
    for other in (
        RandomWindows(shards, stream=0, streams=1, context=8, rows=4),
        RandomWindows(many, stream=0, streams=1, context=9, rows=4),
        RandomWindows(many, stream=1, streams=2, context=8, rows=4),
        Contiguous(many, stream=0, streams=1, context=8, rows=4),
    ):
        with pytest.raises(DataError, match="the saved loader state has"):
            other.restore(state)
    contiguous = Contiguous(many, stream=0, streams=1, context=8, rows=4)
    with pytest.raises(DataError, match="cursor=-1"):
        contiguous.restore({**contiguous.state(), "cursor": -1})
    windows = RandomWindows(many, stream=0, streams=1, context=8, rows=4)
    with pytest.raises(DataError, match="does not fit the shards"):
        windows.restore({**windows.state(), "left": [10**6] * len(many)})


def test_impossible_streams_are_refused_at_construction(shards):
    with pytest.raises(DataError, match=r"5 training shards cannot feed 8 streams.*shard_tokens"):
        RandomWindows(shards, stream=0, streams=8, context=8, rows=1)
    with pytest.raises(DataError, match="the longest shard of stream 3 has 9 tokens, a window needs 10"):
        RandomWindows(shards, stream=3, streams=5, context=9, rows=1)
    with pytest.raises(DataError, match="the training split has 215 tokens, one batch needs 218"):
        Contiguous(shards, stream=0, streams=2, context=54, rows=2)
    with pytest.raises(DataError, match="the training split has 0 tokens"):
        Contiguous([], stream=0, streams=2, context=54, rows=2)
    with pytest.raises(DataError, match="stream 2 is outside"):
        Contiguous(shards, stream=2, streams=2, context=4, rows=2)
    with pytest.raises(DataError, match="is empty"):
        RandomWindows(shards, stream=0, streams=2, context=4, rows=0)


@pytest.mark.parametrize("kind", [RandomWindows, Contiguous])
def test_a_token_outside_the_vocabulary_stops_the_batch(many, kind):
    loader = kind(many, stream=0, streams=1, context=100, rows=30, vocab_size=300)
    with pytest.raises(DataError, match="but the tokenizer has 300 pieces"):
        loader.next_batch()

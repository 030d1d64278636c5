import threading
import time

import numpy as np
import pytest

from fairway.base.errors import DataError
from fairway.data.prefetch import Prefetcher


class Counter:
    """Batches that hold their own number; optionally fails or waits at one of them."""

    def __init__(self, fail_at=None, gate=None):
        self.position, self.fail_at, self.gate = 0, fail_at, gate

    def next_batch(self):
        if self.gate is not None:
            self.gate.wait(5)
        if self.position == self.fail_at:
            raise DataError("batch 3 is bad")
        batch = np.full((1, 2), self.position)
        self.position += 1
        return batch, batch + 1

    def state(self):
        return {"position": self.position}

    def restore(self, state):
        self.position = state["position"]


def values(source, count):
    return [int(source.next_batch()[0][0, 0]) for _ in range(count)]


@pytest.mark.parametrize("depth", [1, 2, 7])
def test_order_is_kept_and_state_is_that_of_the_last_batch_handed_out(depth):
    with Prefetcher(Counter(), depth) as loader:
        assert loader.state() == {"position": 0}
        for number in range(50):
            assert values(loader, 1) == [number]
            assert loader.state() == {"position": number + 1}


def test_it_works_ahead_up_to_its_depth_and_no_further():
    counter = Counter()
    with Prefetcher(counter, 3) as loader:
        values(loader, 2)
        deadline = time.monotonic() + 5
        while counter.position < 5 and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.05)
        assert counter.position == 5
        assert loader.state() == {"position": 2}


def test_resuming_from_a_state_repeats_and_skips_nothing():
    with Prefetcher(Counter(), 4) as loader:
        values(loader, 10)
        state = loader.state()
        expected = values(loader, 5)
        loader.restore(state)
        assert loader.state() == state
        assert values(loader, 5) == expected
    with Prefetcher(Counter(), 2) as other:
        other.restore(state)
        assert values(other, 5) == expected


def test_an_error_is_raised_by_the_call_it_belongs_to_and_after():
    with Prefetcher(Counter(fail_at=3), 8) as loader:
        assert values(loader, 3) == [0, 1, 2]
        for _ in range(2):
            with pytest.raises(DataError, match="batch 3 is bad"):
                loader.next_batch()
        assert loader.state() == {"position": 3}


def test_closing_ends_the_thread_even_if_nobody_takes_batches():
    before = threading.active_count()
    loader = Prefetcher(Counter(), 2)
    loader.close()
    loader.close()
    assert threading.active_count() == before
    with pytest.raises(DataError, match="closed"):
        loader.next_batch()
    with pytest.raises(DataError, match="at least 1"):
        Prefetcher(Counter(), 0)


def test_a_call_waits_for_a_slow_worker():
    gate = threading.Event()
    with Prefetcher(Counter(gate=gate), 2) as loader:
        threading.Timer(0.05, gate.set).start()
        assert values(loader, 2) == [0, 1]

"""Progressive context: which stage is in force, what warm-up must have seen, and the learning rate after a change."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairway.config import OptimConfig, RecurrenceConfig, TrainConfig
from fairway.optim.schedules import ContextStage, context_at, reachable_shapes, rewarm_multiplier, schedule_at

PUBLISHED = TrainConfig(loader="packed_documents", context=3072, context_lengths=(1024, 2048, 3072), context_until=(0.1, 0.7))


def test_a_stage_holds_up_to_its_end_included():
    shares = (0.0, 0.1, 0.1000001, 0.35, 0.7, 0.7000001, 1.0, 1.001)
    assert [context_at(PUBLISHED, share) for share in shares] == [1024, 1024, 2048, 2048, 2048, 3072, 3072, 3072]
    assert [context_at(TrainConfig(), share) for share in (0.0, 0.5, 1.0)] == [2048] * 3


def test_the_published_shapes():
    shapes = [(1024, False), (2048, False), (2048, True), (3072, True)]
    assert reachable_shapes(PUBLISHED, RecurrenceConfig(begins_at=0.35)) == shapes
    assert reachable_shapes(PUBLISHED, RecurrenceConfig(extra_passes=0)) == [(1024, False), (2048, False), (3072, False)]
    assert reachable_shapes(TrainConfig(), RecurrenceConfig()) == [(2048, False), (2048, True)]


@settings(deadline=None, max_examples=30)
@given(
    edges=st.lists(st.integers(1, 39), max_size=3, unique=True).map(sorted),
    begins_at=st.integers(0, 40),
    extra_passes=st.integers(0, 1),
)
def test_the_shapes_are_those_that_some_progress_leads_to(edges, begins_at, extra_passes):
    lengths = tuple(2**stage for stage in range(len(edges) + 1))
    train = TrainConfig(context=lengths[-1], context_lengths=lengths, context_until=tuple(edge / 40 for edge in edges))
    loop = RecurrenceConfig(begins_at=begins_at / 40, extra_passes=extra_passes)
    visited = {
        (context_at(train, share / 80), schedule_at(OptimConfig(), loop, share / 80, 0).recurrent) for share in range(80)
    }
    assert set(reachable_shapes(train, loop)) == visited
    assert len(reachable_shapes(train, loop)) == len(visited)


def test_the_rate_rises_again_after_a_change():
    changed = ContextStage(context=2048, since=593)
    found = [rewarm_multiplier(step, changed, 32) for step in (593, 594, 608, 624, 625, 5000)]
    assert found == [1 / 32, 2 / 32, 0.5, 1.0, 1.0, 1.0]
    assert rewarm_multiplier(0, ContextStage(context=1024), 32) == 1.0
    assert rewarm_multiplier(593, changed, 0) == 1.0


@pytest.mark.parametrize(("progress", "expected"), [(0.1, 0.5), (0.95, 0.05)])
def test_the_rate_falls_below_its_floor_while_it_rises_again(progress, expected):
    optim = OptimConfig(warmdown=0.85, learning_rate_floor=0.1)
    values = schedule_at(optim, RecurrenceConfig(), progress, 608, rewarm=0.5)
    assert values.learning_rate == expected

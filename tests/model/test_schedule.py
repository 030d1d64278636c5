import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.config import RecurrenceConfig
from fairway.model.schedule import layer_schedule, skip_slots

PLAIN = ([0, 1, 2, 3, 4], [5, 6, 7, 8, 9, 10])
LOOPED = {
    (4, 5, 2): ([0, 1, 2, 3, 4, 5, 4], [5, 4, 5, 6, 7, 8, 9, 10], "5<4 4<5 5<4 6<3 7<2 8<1 9<0"),
    (3, 5, 2): ([0, 1, 2, 3, 4, 5, 3, 4], [5, 3, 4, 5, 6, 7, 8, 9, 10], "5<4 3<3 4<5 5<4 6<3 7<2 8<1 9<0"),
    (3, 5, 3): (
        [0, 1, 2, 3, 4, 5, 3, 4, 5, 3],
        [4, 5, 3, 4, 5, 6, 7, 8, 9, 10],
        "4<3 5<5 3<4 4<3 5<5 6<4 7<3 8<2 9<1 10<0",
    ),
}


def loop(first, last, extra):
    return RecurrenceConfig(first=first, last=last, extra_passes=extra)


@pytest.mark.parametrize(("settings", "expected"), LOOPED.items())
def test_published_schedules(settings, expected):
    encoder, decoder, pairs = expected
    recurrence = loop(*settings)
    looped = layer_schedule(11, recurrence, recurrent=True)
    assert (list(looped.encoder), list(looped.decoder)) == (encoder, decoder)
    assert " ".join(f"{down}<{up}" for down, up in looped.skips()) == pairs
    assert skip_slots(11, recurrence) == len(pairs.split())
    plain = layer_schedule(11, recurrence, recurrent=False)
    assert (list(plain.encoder), list(plain.decoder)) == PLAIN
    assert plain.skips() == ((5, 4), (6, 3), (7, 2), (8, 1), (9, 0))


@given(data=st.data(), layers=st.integers(1, 14), extra=st.integers(0, 4))
def test_every_schedule_walks_all_layers_in_order(data, layers, extra):
    first = data.draw(st.integers(0, layers - 1))
    last = data.draw(st.integers(first, layers - 1))
    recurrence = loop(first, last, extra)
    plain = layer_schedule(layers, recurrence, recurrent=False)
    looped = layer_schedule(layers, recurrence, recurrent=True)
    order = [*looped.encoder, *looped.decoder]
    assert [*plain.encoder, *plain.decoder] == list(range(layers))
    assert looped.applications == layers + extra * (last - first + 1) == len(order)
    assert [order.count(layer) for layer in range(layers)] == [1 + extra * (first <= i <= last) for i in range(layers)]
    # Between neighbours the walk goes one layer on, or from the end of the segment back to its start.
    assert all(after == before + 1 or (before, after) == (last, first) for before, after in itertools.pairwise(order))
    assert len(looped.encoder) == len(order) // 2
    assert len(plain.skips()) <= skip_slots(layers, recurrence)
    if extra == 0:
        assert looped == plain

"""The clock charges every second to exactly one phase."""

from hypothesis import given
from hypothesis import strategies as st

from fairway.train.clock import Clock


class Hand:
    """A clock hand that tests move."""

    def __init__(self) -> None:
        self.time = 0.0

    def __call__(self) -> float:
        return self.time


def test_an_inner_phase_pauses_the_outer_one() -> None:
    hand = Hand()
    clock = Clock(now=hand)
    with clock.phase("train", counted=True):
        hand.time += 5
        with clock.phase("validate", counted=False):
            hand.time += 3
            assert clock.seconds("train") == 5
        hand.time += 2
        assert clock.seconds("train") == 7
    assert clock.to_dict() == {
        "train": {"seconds": 7.0, "counted": True},
        "validate": {"seconds": 3.0, "counted": False},
    }
    assert (clock.total(counted_only=True), clock.total(counted_only=False)) == (7, 10)


def test_time_between_phases_is_charged_to_none() -> None:
    hand = Hand()
    clock = Clock(now=hand)
    for _ in range(2):
        with clock.phase("a", counted=True):
            hand.time += 1
        hand.time += 10
    assert clock.seconds("a") == 2
    assert clock.seconds("never") == 0


def test_a_failing_phase_is_still_charged() -> None:
    hand = Hand()
    clock = Clock(now=hand)
    try:
        with clock.phase("a", counted=True):
            hand.time += 4
            raise RuntimeError
    except RuntimeError:
        pass
    assert clock.seconds("a") == 4


def test_restored_phases_go_on() -> None:
    hand = Hand()
    clock = Clock(now=hand)
    clock.restore({"a": {"seconds": 6.0, "counted": False}})
    with clock.phase("a", counted=False):
        hand.time += 1
    assert clock.to_dict() == {"a": {"seconds": 7.0, "counted": False}}


def test_a_stage_done_again_is_charged_once() -> None:
    hand = Hand()
    clock = Clock(now=hand)
    for _ in range(2):
        clock.forget("pack", "never")
        with clock.phase("pack", counted=False):
            hand.time += 2
    assert clock.seconds("pack") == 2


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 9), st.integers(0, 9)), max_size=20))
def test_phases_sum_to_the_time_inside_them(steps: list[tuple[str, int, int]]) -> None:
    hand = Hand()
    clock = Clock(now=hand)
    inside = 0
    for name, outer, inner in steps:
        with clock.phase(name, counted=True):
            hand.time += outer
            with clock.phase("inner", counted=False):
                hand.time += inner
        hand.time += 1
        inside += outer + inner
    assert clock.total(counted_only=False) == inside

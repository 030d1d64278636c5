from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairway.config import MuonConfig, OptimConfig, RecurrenceConfig
from fairway.optim.schedules import ContextStage, learning_rate_multiplier, muon_momentum, rewarm_multiplier, schedule_at

FOLDER = Path(__file__).parents[1] / "golden" / "optim"
GOLDEN = np.load(FOLDER / "schedules.npz")
SHARES = (0.28, 0.333, 0.35, 0.5, 0.7, 0.9, 0.915, 0.95, 1.0, 1.0005)


@pytest.mark.parametrize("pr", ["1413", "1533", "1557", "1776"])
def test_the_recorded_loop_of_the_reference(pr):
    optim, loop = settings_of(GOLDEN, pr)
    rows = zip(*(GOLDEN[f"{pr}.{name}"] for name in ("step", "elapsed_ms")), strict=True)
    for row, (step, elapsed) in enumerate(rows):
        values = schedule_at(optim, loop, float(elapsed) / float(GOLDEN[f"{pr}.cap_ms"]), int(step))
        assert values.learning_rate == pytest.approx(GOLDEN[f"{pr}.lr_multiplier"][row], abs=1e-12)
        assert values.momentum == pytest.approx(GOLDEN[f"{pr}.muon_momentum"][row], abs=1e-12)
        assert values.recurrent == GOLDEN[f"{pr}.looping"][row]


def test_the_recorded_loop_with_growing_sequences():
    with np.load(FOLDER / "schedules_2140.npz") as stored:
        golden = {name.removeprefix("2140."): stored[name] for name in stored.files}
    optim, loop = settings_of(golden)
    stages = list(zip(golden["config.stage_ends"], golden["config.stage_lengths"], strict=True))
    row, stage = 0, ContextStage(context=int(stages[0][1]))
    for step, elapsed in enumerate(golden["all_elapsed_ms"]):
        progress = min(float(elapsed) / float(golden["cap_ms"]), 1.0)
        active = next(int(length) for end, length in stages if progress <= end)
        if active != stage.context:
            stage = ContextStage(context=active, since=step)
        factor = rewarm_multiplier(step, stage, int(golden["config.rewarm_steps"]))
        if row < len(golden["step"]) and step == golden["step"][row]:
            values = schedule_at(optim, loop, progress, step)
            assert values.learning_rate * factor == pytest.approx(golden["lr_multiplier"][row], abs=1e-12)
            assert values.momentum == pytest.approx(golden["muon_momentum"][row], abs=1e-12)
            assert values.recurrent == golden["looping"][row]
            assert stage.context == golden["seq_len"][row]
            row += 1
    assert row == len(golden["step"])


def settings_of(golden, pr=None) -> tuple[OptimConfig, RecurrenceConfig]:
    """The settings that lie beside recorded values."""
    prefix = f"{pr}.config." if pr else "config."
    setting = {name.removeprefix(prefix): float(golden[name]) for name in golden if golden[name].ndim == 0}
    optim = OptimConfig(
        matrices=MuonConfig(
            momentum=setting["momentum_final"],
            momentum_start=setting["momentum_start"],
            momentum_ramp_steps=int(setting["momentum_warmup_steps"]),
        ),
        warmdown=setting["warmdown_frac"],
        learning_rate_floor=setting["min_lr"],
    )
    return optim, RecurrenceConfig(begins_at=setting["loop_at"])


@pytest.mark.parametrize(
    ("warmdown", "floor", "expected"),
    [
        (0.667, 0.0, (1, 1, 0.974513, 0.749625, 0.449775, 0.149925, 0.127436, 0.074963, 0, 0)),
        (0.72, 0.0, (1, 0.926389, 0.902778, 0.694444, 0.416667, 0.138889, 0.118056, 0.069444, 0, 0)),
        (0.85, 0.1, (0.847059, 0.784706, 0.764706, 0.588235, 0.352941, 0.117647, 0.1, 0.1, 0.1, 0.1)),
    ],
)
def test_the_published_table(warmdown, floor, expected):
    found = [learning_rate_multiplier(share, warmdown=warmdown, floor=floor) for share in SHARES]
    assert found == pytest.approx(list(expected), abs=1e-6)


@settings(deadline=None, max_examples=200)
@given(warmdown=st.floats(0, 1), floor=st.floats(0, 1), early=st.floats(0, 1.1), late=st.floats(0, 1.1))
def test_the_rate_starts_at_one_never_rises_and_keeps_its_floor(warmdown, floor, early, late):
    early, late = sorted((early, late))
    first, second = (learning_rate_multiplier(share, warmdown=warmdown, floor=floor) for share in (early, late))
    assert floor <= second <= first <= 1
    if warmdown < 1:
        assert learning_rate_multiplier(0.0, warmdown=warmdown, floor=floor) == 1


def test_the_momentum_ramp():
    config = MuonConfig(momentum=0.97, momentum_start=0.92, momentum_ramp_steps=1500)
    assert [muon_momentum(step, config) for step in (0, 750, 1500, 9999)] == pytest.approx([0.92, 0.945, 0.97, 0.97])
    assert muon_momentum(0, MuonConfig(momentum_ramp_steps=0)) == MuonConfig().momentum


def test_recurrence_begins_at_its_share_and_never_without_extra_passes():
    begins = [schedule_at(OptimConfig(), RecurrenceConfig(begins_at=0.5), share, 0).recurrent for share in (0.4999, 0.5, 1.0)]
    assert begins == [False, True, True]
    assert not schedule_at(OptimConfig(), RecurrenceConfig(extra_passes=0, begins_at=0.0), 1.0, 0).recurrent

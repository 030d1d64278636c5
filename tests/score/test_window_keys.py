"""Which window belongs to which chunk, and which geometries strict mode refuses."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fairway.base.errors import RecipeError, ValidityError
from fairway.config import AdaptationConfig, ScoreConfig
from fairway.score.driver import score, scored_inputs
from fairway.score.ledger import Ledger
from fairway.score.passes import adaptation_plan
from fairway.score.plan import Block, chunked_plan, early_targets, sliding_windows
from fairway.score.predictor import Revealed, WindowBatch


class Even:
    """Both tokens are equally likely, always."""

    vocab_size = 2

    def predict(self, batch: WindowBatch) -> torch.Tensor:
        rows, length = batch.inputs.shape
        return torch.full((rows, length - batch.first_scored, 2), 0.5).log()

    def observe(self, block: Revealed) -> None:
        pass


def early_inputs(plan: list[Block]) -> list[int]:
    """Inputs whose target is revealed before it is scored, one at a time."""
    scored: set[int] = set()
    early: list[int] = []
    for block in plan:
        scored.update(scored_inputs(block.windows).tolist())
        early += sorted(set(range(*block.reveal)) - scored)
    return early


@st.composite
def geometries(draw, *, short_chunks: bool = False):
    """Targets, context, stride, chunk; published divisible ones as often as odd ones."""
    targets, context = draw(st.integers(1, 200)), draw(st.integers(1, 24))
    stride = draw(st.sampled_from([size for size in range(1, context + 1) if context % size == 0]) | st.integers(1, context))
    if short_chunks:
        return targets, context, stride, draw(st.integers(1, 60))
    least = -(-context // stride)
    return targets, context, stride, draw(st.integers(least, 3 * least).map(lambda n: n * stride) | st.integers(context, 60))


def config_of(context: int, stride: int, chunk: int, key: str, mode: str) -> ScoreConfig:
    adaptation = AdaptationConfig(chunk_tokens=chunk, window_key=key)
    return ScoreConfig(context=context, stride=stride, mode=mode, adaptation=adaptation)


@settings(max_examples=300, deadline=None)
@given(geometry=geometries(short_chunks=True))
def test_the_first_input_is_safe_in_every_geometry(geometry) -> None:
    targets, context, stride, chunk = geometry
    plan = chunked_plan(sliding_windows(targets, context, stride), targets, chunk)
    assert early_targets(plan) == 0
    assert early_inputs(plan) == []


@settings(max_examples=300, deadline=None)
@given(geometry=geometries())
def test_strict_mode_refuses_exactly_what_reveals_a_target_early(geometry) -> None:
    targets, context, stride, chunk = geometry
    assert not early_inputs(adaptation_plan(targets, config_of(context, stride, chunk, "first_input", "strict")))
    published = adaptation_plan(targets, config_of(context, stride, chunk, "last_input", "as_published"))
    early = early_inputs(published)
    assert early_targets(published) == len(early) == len(set(early))
    strict = config_of(context, stride, chunk, "last_input", "strict")
    if not early:
        adaptation_plan(targets, strict)
        return
    assert context % stride or chunk % stride
    with pytest.raises(RecipeError, match=f"reveal {len(early)} targets before they are scored"):
        adaptation_plan(targets, strict)
    tokens, ledger = torch.zeros(targets + 1, dtype=torch.int64), Ledger(np.ones(targets, dtype=np.uint16))
    with pytest.raises(ValidityError):
        score(Even(), tokens, ledger, published)


def test_the_worked_example_of_an_unsafe_key() -> None:
    """Context 4, stride 3, chunks of 4: the window that scores 7 to 9 goes to chunk 2, after chunk 1 was revealed."""
    config = config_of(4, 3, 4, "last_input", "as_published")
    assert early_inputs(adaptation_plan(16, config)) == [7, 10, 11]
    first = replace(config, adaptation=replace(config.adaptation, window_key="first_input"))
    assert early_inputs(adaptation_plan(16, first)) == []


@pytest.mark.parametrize("targets", [40_540_160, 40_548_352])
def test_both_keys_agree_in_the_published_geometry(targets: int) -> None:
    windows = sliding_windows(targets, 2048, 64)
    plans = [chunked_plan(windows, targets, 32768, key) for key in ("first_input", "last_input")]
    assert [len(block.windows) for block in plans[0]] == [len(block.windows) for block in plans[1]]

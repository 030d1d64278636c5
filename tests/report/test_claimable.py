"""The sentences on scores of mode as_published, held against the plans that they speak of."""

import re
from dataclasses import replace

import pytest

from fairway.base.errors import RecipeError
from fairway.config import ARTIFACT_PASSES, AdaptationConfig, ScoreConfig
from fairway.report.claimable import why_not_claimable
from fairway.score.passes import adaptation_plan

STRADDLING = ScoreConfig(
    mode="as_published",
    passes=("adapted",),
    context=64,
    stride=24,
    adaptation=AdaptationConfig(chunk_tokens=128, window_key="last_input"),
)
"""Stride and chunk do not divide each other."""


def because(name: str, config: ScoreConfig = STRADDLING, mode: str = "as_published", targets: int = 3000) -> str:
    return why_not_claimable(mode, name, targets, config)


@pytest.mark.parametrize("name", ARTIFACT_PASSES)
@pytest.mark.parametrize("config", [STRADDLING, replace(STRADDLING, mode="strict"), ScoreConfig()])
def test_two_sentences_for_every_pass_and_none_in_mode_strict(name: str, config: ScoreConfig) -> None:
    found = because(name, config)
    assert len(re.split(r"(?<=\.)\s+", found)) == 2
    assert "score.mode=strict" in found
    assert because(name, config, mode="strict") == ""


@pytest.mark.parametrize("name", ["adapted", "tilted"])
def test_targets_revealed_early_are_those_that_mode_strict_refuses(name: str) -> None:
    found = because(name)
    with pytest.raises(RecipeError) as refused:
        adaptation_plan(3000, replace(STRADDLING, mode="strict"))
    early = re.search(r"reveal (\d+) targets", str(refused.value))
    assert early is not None
    assert int(early[1]) > 0
    assert f"learn from {int(early[1]):,} targets before" in found


def test_an_order_that_reveals_nothing_early_is_said_to_be_that_of_strict() -> None:
    aligned = replace(STRADDLING, stride=64)
    adaptation_plan(3000, replace(aligned, mode="strict"))
    first = replace(STRADDLING, adaptation=replace(STRADDLING.adaptation, window_key="first_input"))
    for found in (because("adapted", aligned), because("tilted", first), because("sliding"), because("plain")):
        assert "changes nothing" in found


def test_settings_of_another_mode_tell_nothing() -> None:
    found = because("adapted", replace(STRADDLING, adaptation=AdaptationConfig(chunk_tokens=128), mode="strict"))
    assert "do not tell" in found


def test_only_the_tilt_is_said_to_need_later_documents() -> None:
    assert "decoded only after it" in because("documents_tilted")
    assert "hints" not in because("documents")
    assert "lengths of all of them, which a decoder does not have" in because("documents")

"""Lineage: replayed from its root it is the recipe again, and its flags make the same recipe on the command line."""

import pytest

from fairway.base.values import to_dict, with_fields
from fairway.cli.runs import _run_arguments
from fairway.recipes import RECIPES, recipe
from fairway.record.generations import NOT_SETTINGS, flags, generations, parent_of


def settings(of: dict, prefix: str = "") -> dict:
    found = {}
    for name, value in of.items():
        path = f"{prefix}{name}"
        found |= settings(value, f"{path}.") if isinstance(value, dict) else {path: value}
    return {path: value for path, value in found.items() if path not in NOT_SETTINGS}


@pytest.mark.parametrize("name", [*RECIPES, *(f"proxy-{name}" for name in RECIPES)])
def test_the_ancestors_replayed_are_the_recipe(name: str) -> None:
    changed = with_fields(recipe(name), {"seed": 7, "optim.gradient_clip": 0.125, "train.log_every": 3})
    told = generations(changed)
    assert told[0].parent is None
    assert [item.name for item in told[-2:]] == [name, f"this run of {name}"]
    built = recipe(told[0].name)
    fields = {
        change.path: change.now
        for item in told
        for change in (*(one for technique in item.techniques for one in technique.changes), *item.settings)
    }
    assert settings(to_dict(with_fields(built, fields))) == settings(to_dict(changed))
    for item in told:
        for change in item.settings:
            assert change.was != change.now


def test_a_system_is_told_by_its_techniques_alone() -> None:
    system = generations(recipe("pr1557"))[-1]
    assert system.parent == "pr1413"
    assert [told.technique.name for told in system.techniques][:3] == ["three-looped-layers", "fourth-pass", "routed-lanes"]
    assert not system.settings
    assert [item.name for item in generations(recipe("small"))] == ["pr1394", "pr1413", "tiny", "small"]
    assert parent_of("proxy-pr1413") == "pr1413"
    assert parent_of("baseline") is None


def test_a_recipe_of_an_ablation_is_told_from_the_one_that_it_climbs_from() -> None:
    climbed = with_fields(recipe("proxy-pr1413"), {"name": "proxy-pr1413+banks", "optim.matrices.layout": "banked"})
    told = generations(climbed)[-1]
    assert told.parent == "proxy-pr1413"
    assert [change.path for change in told.settings] == ["optim.matrices.layout"]
    assert generations(with_fields(climbed, {"name": "somebody's"}))[-1].parent == "pr1394"


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"model.skip_gates": False, "artifact.embed_tokenizer": False},
        {"score.passes": ("plain", "sliding"), "train.budget": 12.5, "train.budget_unit": "tokens"},
        {"optim.matrices.layout": "banked", "model.recurrence.extra_passes": 0, "machine.threads": 1},
        {"optim.embedding.epsilon": 1e-12, "score.tilt.contexts": (3, 5, 7)},
    ],
)  # fmt: skip
def test_the_flags_make_the_recipe_again(changes: dict) -> None:
    wanted = with_fields(recipe("tiny"), changes)
    assert _run_arguments(["tiny", *flags(wanted)], "run").recipe == wanted

"""Recipes say what the published systems' logs say, and every proxy keeps every technique on."""

from dataclasses import replace
from itertools import pairwise

import pytest

from fairway.base.errors import RecipeError
from fairway.base.values import difference, leaves
from fairway.config import Recipe
from fairway.recipes import RECIPES, ladder, lineage, proxy, recipe
from fairway.recipes.lineage import SYSTEMS
from fairway.recipes.tilts import PR1557

FULL_SIZE = ["baseline", "pr1394", *SYSTEMS]

# As the logs of the scored runs state them: the tables of the pull requests' settings, not their texts.
LOGGED = {
    "pr1413": {
        "model.query_gain": 5.0, "model.recurrence.first": 4, "model.recurrence.extra_passes": 2,
        "model.recurrence.begins_at": 0.5, "model.residual.topology": "sequential", "optim.matrices.layout": "per_matrix",
        "optim.matrices.learning_rate": 0.02, "optim.matrices.momentum": 0.99, "optim.matrices.weight_decay": 0.085,
        "optim.embedding.weight_decay": 0.085, "optim.warmdown": 0.667, "optim.ema_decay": 0.997,
        "quant.mlp.importance": 0.0, "score.adaptation.epochs": 3, "score.adaptation.frozen_blocks": 0,
        "score.adaptation.window_key": "first_input", "score.adaptation.sequences_per_step": 256, "data_variant": "sp8192",
    },
    "pr1533": {
        "model.query_gain": 5.0, "model.recurrence.first": 3, "model.recurrence.extra_passes": 2,
        "model.recurrence.begins_at": 0.35, "model.residual.topology": "decoupled_lanes", "optim.matrices.layout": "banked",
        "optim.matrices.learning_rate": 0.022, "optim.matrices.momentum": 0.99, "optim.matrices.weight_decay": 0.095,
        "optim.embedding.weight_decay": 0.095, "optim.warmdown": 0.667, "optim.ema_decay": 0.997,
        "quant.mlp.importance": 0.0, "score.adaptation.epochs": 3, "score.adaptation.frozen_blocks": 0,
        "score.adaptation.window_key": "first_input", "score.adaptation.sequences_per_step": 256, "data_variant": "sp8192",
    },
    "pr1776": {
        "model.query_gain": 5.25, "model.recurrence.first": 3, "model.recurrence.extra_passes": 2,
        "model.recurrence.begins_at": 0.35, "model.residual.topology": "single_stream", "optim.matrices.layout": "per_matrix",
        "optim.matrices.learning_rate": 0.022, "optim.matrices.momentum": 0.99, "optim.matrices.weight_decay": 0.095,
        "optim.embedding.weight_decay": 0.095, "optim.warmdown": 0.72, "optim.ema_decay": 0.9965,
        "quant.mlp.importance": 0.0, "score.adaptation.epochs": 3, "score.adaptation.frozen_blocks": 9,
        "score.adaptation.window_key": "last_input", "score.adaptation.sequences_per_step": 32,
        "data_variant": "sp8192-pr1776",
    },
    "pr1557": {
        "model.query_gain": 5.0, "model.recurrence.first": 3, "model.recurrence.extra_passes": 3,
        "model.recurrence.begins_at": 0.35, "model.residual.topology": "routed_lanes", "optim.matrices.layout": "banked",
        "optim.matrices.learning_rate": 0.03, "optim.matrices.momentum": 0.97, "optim.matrices.weight_decay": 0.095,
        "optim.embedding.weight_decay": 0.095, "optim.warmdown": 0.667, "optim.ema_decay": 0.997,
        "quant.mlp.importance": 0.175, "score.adaptation.epochs": 5, "score.adaptation.frozen_blocks": 0,
        "score.adaptation.window_key": "first_input", "score.adaptation.sequences_per_step": 256, "data_variant": "sp8192",
    },
}  # fmt: skip
SHARED = {
    "model.layers": 11, "model.width": 512, "model.recurrence.last": 5, "model.residual.parallel_from": 7,
    "optim.embedding.learning_rate": 0.03, "optim.scalars.learning_rate": 0.02, "optim.scalars.weight_decay": 0.02,
    "optim.matrices.momentum_start": 0.92, "optim.matrices.momentum_ramp_steps": 1500, "optim.gradient_clip": 0.3,
    "optim.matrices.row_normalize": True, "train.batch_tokens": 786432, "train.context": 2048, "train.reserve_seconds": 12.0,
    "quant.attention.bits": 6, "quant.attention.clip_sigmas": 12.85, "quant.mlp.bits": 6, "quant.mlp.clip_sigmas": 12.85,
    "quant.embedding.bits": 8, "quant.embedding.clip_sigmas": 20.0, "score.stride": 64, "score.adaptation.chunk_tokens": 32768,
    "score.adaptation.learning_rate": 0.005, "score.adaptation.momentum": 0.9, "score.adaptation.gradient_clip": 1.0,
    "score.adaptation.optimizer": "sgd", "score.mode": "strict", "score.keep_tail": False,
}  # fmt: skip


def settings(of: Recipe) -> dict[str, object]:
    return {leaf.path: leaf.value for leaf in leaves(of)}


@pytest.mark.parametrize("name", LOGGED)
def test_published_settings(name: str) -> None:
    found = settings(recipe(name))
    expected = SHARED | LOGGED[name]
    assert {path: found[path] for path in expected} == expected


def test_the_tilt_belongs_to_pr1557() -> None:
    assert recipe("pr1557").score.tilt == PR1557
    assert [name for name in FULL_SIZE if "tilted" in recipe(name).score.passes] == ["pr1557"]


def test_pr1413_is_two_settings_away_from_its_parent() -> None:
    paths = [new.path for _, new in difference(recipe("pr1394"), recipe("pr1413"))]
    assert paths == ["name", "summary", "model.query_gain", "score.passes"]


@pytest.mark.parametrize("name", SYSTEMS)
def test_every_difference_of_a_system_belongs_to_one_technique(name: str) -> None:
    system = SYSTEMS[name]
    changed = [path for technique in system.techniques for path in technique.changes]
    assert len(changed) == len(set(changed))
    differing = {new.path for _, new in difference(recipe(system.parent), recipe(name))} - {"name", "summary"}
    assert all(any(path == of or path.startswith(f"{of}.") for of in changed) for path in differing)


@pytest.mark.parametrize("name", SYSTEMS)
def test_techniques_say_what_why_and_where_from(name: str) -> None:
    for technique in lineage(name):
        assert technique.changes
        assert technique.title
        assert technique.why
        assert technique.source.startswith(("PR #", "arXiv", "own"))
        assert set(technique.name) <= set("abcdefghijklmnopqrstuvwxyz0123456789.-")


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_ladder_ends_at_the_system(name: str) -> None:
    steps = ladder(SYSTEMS[name].parent, name)
    assert steps[0].technique is None
    assert steps[0].recipe == recipe(SYSTEMS[name].parent)
    last = steps[-1].recipe
    assert replace(last, name=name, summary=recipe(name).summary) == recipe(name)
    assert len({step.recipe.name for step in steps}) == len(steps)
    for before, after in pairwise(steps):
        assert after.technique is not None
        moved = {new.path for _, new in difference(before.recipe, after.recipe)} - {"name", "summary"}
        assert moved
        assert all(any(path == of or path.startswith(f"{of}.") for of in after.technique.changes) for path in moved)


def test_a_ladder_spans_generations() -> None:
    names = [step.technique.name for step in ladder("pr1394", "pr1557") if step.technique]
    assert names[:3] == ["query-gain", "sgd-adaptation", "three-looped-layers"]


def test_a_ladder_needs_a_descendant() -> None:
    with pytest.raises(RecipeError, match="pr1533 does not descend from pr1776"):
        ladder("pr1776", "pr1533")


@pytest.mark.parametrize("name", RECIPES)
def test_a_name_is_its_recipe(name: str) -> None:
    assert recipe(name).name == name


@pytest.mark.parametrize("name", FULL_SIZE)
def test_a_proxy_keeps_every_technique_on(name: str) -> None:
    full, small = recipe(name), proxy(recipe(name))
    assert small.name == f"proxy-{name}"
    for switch in ("depth_scale", "skip_gates", "activation_slope", "query_gain", "softcap", "rotary_bfloat16"):
        assert getattr(small.model, switch) == getattr(full.model, switch)
    assert small.model.recurrence.extra_passes == full.model.recurrence.extra_passes
    assert small.model.residual.topology == full.model.residual.topology
    assert bool(small.model.exclusive_attention_layers) == bool(full.model.exclusive_attention_layers)
    assert small.quant.protection.groups == full.quant.protection.groups
    shared = {name: getattr(full.quant, name) for name in ("calibration_batches", "protection")}
    assert replace(small.quant, **shared) == full.quant
    assert small.model.gates == full.model.gates
    assert len(small.train.context_lengths) == len(full.train.context_lengths)
    assert small.train.loader == full.train.loader
    assert small.score.documents.sites == full.score.documents.sites
    assert (small.score.passes, small.score.tilt) == (full.score.passes, full.score.tilt)
    assert small.optim.matrices.row_normalize == full.optim.matrices.row_normalize
    assert small.optim.matrices.layout == full.optim.matrices.layout
    assert bool(small.optim.ema_decay) == bool(full.optim.ema_decay)
    assert small.model.width < full.model.width


@pytest.mark.parametrize("name", SYSTEMS)
def test_every_technique_changes_the_proxy_too(name: str) -> None:
    for before, after in pairwise(ladder("pr1394", name)):
        moved = {new.path for _, new in difference(proxy(before.recipe), proxy(after.recipe))}
        assert moved > {"name", "summary"}


def test_a_proxy_keeps_the_order_of_depths() -> None:
    looped = {name: recipe(f"proxy-{name}").model for name in ("pr1413", "pr1533", "pr1557")}
    sizes = {name: model.recurrence.last - model.recurrence.first + 1 for name, model in looped.items()}
    assert sizes == {"pr1413": 2, "pr1533": 3, "pr1557": 3}
    assert all(model.residual.parallel_from > model.recurrence.last for model in looped.values())
    assert 0 < recipe("proxy-pr1776").score.adaptation.frozen_blocks < recipe("proxy-pr1776").model.layers


def test_unknown_names_are_refused_with_a_suggestion() -> None:
    with pytest.raises(RecipeError, match="did you mean 'pr1413'"):
        recipe("pr1431")
    with pytest.raises(RecipeError, match="known are baseline"):
        recipe("proxy-")

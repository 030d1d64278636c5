"""Recipes say what the published systems' logs say, and every proxy keeps every technique on."""

import pytest

from fairway.base.errors import RecipeError
from fairway.base.values import difference
from fairway.recipes import RECIPES, proxy, recipe


def test_pr1413_is_two_settings_away_from_its_parent() -> None:
    paths = [new.path for _, new in difference(recipe("pr1394"), recipe("pr1413"))]
    assert paths == ["name", "summary", "model.query_gain", "score.passes"]


def test_published_settings() -> None:
    full = recipe("pr1413")
    assert (full.model.layers, full.model.width, full.model.query_gain) == (11, 512, 5.0)
    assert (full.train.batch_tokens, full.train.context, full.train.reserve_seconds) == (786432, 2048, 12.0)
    assert (full.optim.matrices.learning_rate, full.optim.matrices.weight_decay, full.optim.warmdown) == (0.02, 0.085, 0.667)
    assert (full.quant.matrices.bits, full.quant.matrices.clip_sigmas, full.quant.embedding.clip_sigmas) == (6, 12.85, 20.0)
    adaptation = full.score.adaptation
    assert (adaptation.chunk_tokens, adaptation.epochs, adaptation.learning_rate) == (32768, 3, 0.005)


@pytest.mark.parametrize("name", RECIPES)
def test_a_name_is_its_recipe(name: str) -> None:
    assert recipe(name).name == name


@pytest.mark.parametrize("name", ["baseline", "pr1394", "pr1413"])
def test_a_proxy_keeps_every_technique_on(name: str) -> None:
    full, small = recipe(name), proxy(recipe(name))
    assert small.name == f"proxy-{name}"
    for switch in ("depth_scale", "skip_gates", "activation_slope", "query_gain", "softcap", "rotary_bfloat16"):
        assert getattr(small.model, switch) == getattr(full.model, switch)
    assert small.model.recurrence.extra_passes == full.model.recurrence.extra_passes
    assert bool(small.model.exclusive_attention_layers) == bool(full.model.exclusive_attention_layers)
    assert (small.quant.matrices, small.quant.embedding) == (full.quant.matrices, full.quant.embedding)
    assert small.score.passes == full.score.passes
    assert small.optim.matrices.row_normalize == full.optim.matrices.row_normalize
    assert small.model.width < full.model.width


def test_unknown_names_are_refused_with_a_suggestion() -> None:
    with pytest.raises(RecipeError, match="did you mean 'pr1413'"):
        recipe("pr1431")
    with pytest.raises(RecipeError, match="known are tiny"):
        recipe("proxy-")

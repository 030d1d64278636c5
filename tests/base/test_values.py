"""Settings refuse wrong names, types and combinations, and survive JSON."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.base.errors import RecipeError
from fairway.base.values import difference, from_dict, leaves, to_dict, with_fields
from fairway.config import ModelConfig, Recipe, ScoreConfig, TrainConfig
from fairway.recipes import PROXY_PREFIX, RECIPES, recipe

NAMES = [*RECIPES, *(PROXY_PREFIX + name for name in RECIPES)]


@pytest.mark.parametrize("name", NAMES)
def test_json_round_trip(name: str) -> None:
    value = recipe(name)
    assert from_dict(Recipe, json.loads(json.dumps(to_dict(value)))) == value


@pytest.mark.parametrize("name", NAMES)
def test_every_setting_has_a_docstring(name: str) -> None:
    for leaf in leaves(recipe(name)):
        assert leaf.doc.endswith("."), leaf.path


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model.query_heads": 6}, ["query_heads=6", "width=512", "use one of"]),
        ({"model.kv_heads": 3}, ["query_heads=8", "kv_heads=3", "use 3, 6 or 9"]),
        ({"model.rotary_channels": 80}, ["rotary_channels=80", "64"]),
        ({"model.recurrence.last": 11}, ["recurrence.last=11", "layers=11"]),
        ({"model.recurrence.extra_passes": -1}, ["extra_passes=-1"]),
        ({"train.batch_tokens": 1000}, ["batch_tokens=1000", "16384"]),
        ({"train.reserve_seconds": 700.0}, ["reserve_seconds=700.0", "600.0"]),
        ({"score.stride": 4096}, ["stride=4096", "2048"]),
        ({"score.passes": ("plain", "float")}, ["float"]),
        ({"score.adaptation.chunk_tokens": 64}, ["chunk_tokens=64", "2048"]),
        ({"quant.mlp.bits": 9}, ["bits=9", "2..8"]),
        ({"optim.ema_decay": 1.0}, ["ema_decay=1.0"]),
        ({"model.width": "wide"}, ["ModelConfig.width", "'wide'", "int"]),
        ({"model.depth_scale": 1}, ["depth_scale", "bool"]),
        ({"train.loader": "random"}, ["'random'", "random_windows"]),
        ({"model.widht": 64}, ["widht", "did you mean 'width'"]),
        ({"modle.width": 64}, ["modle", "did you mean 'model'"]),
        ({"seed.value": 3}, ["seed", "single setting"]),
        ({"optim.matrices.learning_rate": float("nan")}, ["finite"]),
    ],
)
def test_impossible_values_are_refused_with_value_limit_and_remedy(changes: dict, words: list[str]) -> None:
    with pytest.raises(RecipeError) as caught:
        with_fields(recipe("pr1413"), changes)
    for word in words:
        assert word in str(caught.value)


def test_unknown_and_missing_names_in_json_are_refused() -> None:
    content = to_dict(recipe("tiny"))
    content["model"]["widht"] = 3
    with pytest.raises(RecipeError, match="did you mean 'width'"):
        from_dict(Recipe, content)
    with pytest.raises(RecipeError, match="lacks name, summary"):
        from_dict(Recipe, {})
    with pytest.raises(RecipeError, match="must be an object"):
        from_dict(Recipe, {"name": "x", "summary": "y", "model": 3})


def test_changes_are_checked_together_not_one_by_one() -> None:
    # 96 channels alone would not fit 8 heads of 64 rotated channels; with 4 heads they do.
    changed = with_fields(recipe("baseline"), {"model.width": 96, "model.query_heads": 4, "model.rotary_channels": 24})
    assert changed.model.head_width == 24


def test_difference_names_exactly_what_changed() -> None:
    before = recipe("tiny")
    after = with_fields(before, {"model.layers": 5, "score.adaptation.epochs": 1})
    assert [new.path for _, new in difference(before, after)] == ["model.layers", "score.adaptation.epochs"]


@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 16))
def test_accepted_head_counts_always_divide(kv_heads: int, group: int, half: int) -> None:
    width = kv_heads * group * half * 2
    config = ModelConfig(
        width=width, query_heads=kv_heads * group, kv_heads=kv_heads, rotary_channels=0, layers=6, exclusive_attention_layers=0
    )
    assert config.head_width * config.query_heads == width


def test_lists_become_tuples_and_ints_become_floats() -> None:
    assert from_dict(ScoreConfig, {"passes": ["plain"]}).passes == ("plain",)
    assert isinstance(from_dict(TrainConfig, {"budget": 60, "reserve_seconds": 0}).budget, float)

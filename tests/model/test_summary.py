import json
from dataclasses import replace

import pytest

from fairway.base.values import with_fields
from fairway.model.gpt import GPT
from fairway.model.summary import summarize
from fairway.recipes import RECIPES, recipe


@pytest.mark.parametrize("name", ["pr1394", "pr1413"])
def test_published_totals_and_flops(name):
    summary = summarize(recipe(name))
    assert summary.parameters == 35_943_512
    assert summary.matrix_parameters == 31_719_424
    assert (summary.plain.applications, summary.looped.applications) == (11, 15)
    assert summary.plain.training_flops == pytest.approx(284.688e6, abs=1e3)
    assert summary.looped.training_flops == pytest.approx(379.060e6, abs=1e3)
    assert 3 * summary.looped.scoring_flops == summary.looped.training_flops
    assert summary.looped.sliding_flops == 32 * summary.looped.scoring_flops


@pytest.mark.parametrize(
    ("name", "applications", "flops"), [("pr1533", 17, 426.246e6), ("pr1776", 17, 426.246e6), ("pr1557", 20, 497.025e6)]
)
def test_published_flops_of_deeper_recurrence(name, applications, flops):
    looped = summarize(recipe(name)).looped
    assert looped.applications == applications
    assert looped.training_flops == pytest.approx(flops, abs=1e3)


def test_lane_parameters_are_parts_stored_as_float16():
    def lanes(name):
        return [
            (part.name, part.shape, part.parameters, part.bits, part.bytes)
            for part in summarize(recipe(name)).parts
            if part.name.startswith("residual.")
        ]

    assert lanes("pr1413") == lanes("pr1776") == []
    assert lanes("pr1533") == [("residual.balance", (), 1, 16, 2)]
    assert lanes("pr1557") == [
        ("residual.write_weight", (11, 2, 2), 44, 16, 88),
        ("residual.keep_weight", (11, 2), 22, 16, 44),
    ]


@pytest.mark.parametrize("name", RECIPES)
def test_parts_are_the_parameters_of_the_network(name):
    chosen = recipe(name)
    if chosen.model.width > 200:
        chosen = with_fields(chosen, {"model.width": 64, "model.mlp_hidden": 96, "model.rotary_channels": 8})
    summary = summarize(chosen)
    parameters = dict(GPT(chosen.model).named_parameters())
    assert summary.parameters == sum(value.numel() for value in parameters.values())
    assert sum(part.count for part in summary.parts) == len(parameters)
    for part in summary.parts:
        assert parameters[part.name.replace("*", "0")].shape == part.shape
    assert summary.planned_bytes == sum(part.bytes for part in summary.parts)


def test_planned_bits_follow_the_recipe():
    changed = with_fields(recipe("pr1413"), {"quant.attention.bits": 5, "quant.embedding.bits": 7})
    parts = {part.name: part for part in summarize(changed).parts}
    query = parts["blocks.*.attention.query.weight"]
    assert (query.bits, query.bytes) == (5, 11 * (512 * 512 * 5 // 8 + 2 * 512))
    assert parts["embedding.weight"].bytes == 8192 * 512 * 7 // 8 + 2 * 8192
    assert parts["skips.gate"].bytes == 2 * 7 * 512


def test_summary_is_plain_json():
    summary = summarize(replace(recipe("tiny"), name="mine"))
    loaded = json.loads(json.dumps(summary.to_dict()))
    assert loaded["recipe"] == "mine"
    assert loaded["parameters"] == summary.parameters
    assert loaded["parts"][0]["shape"] == list(summary.parts[0].shape)

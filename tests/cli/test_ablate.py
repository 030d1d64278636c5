"""``fairway ablate``, and ``fairway compare`` on its folder: runs of a minute recipe, interrupted, resumed, shared, refused."""

import json
import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import command
from safetensors.torch import load_file

from fairway import pipeline, stages
from fairway.ablation import make_plan, open_folder, parse_changes, perform, with_passes
from fairway.base.errors import DataError, RecipeError
from fairway.base.files import read_json
from fairway.base.lock import only_writer
from fairway.base.values import leaves, with_fields
from fairway.config import Recipe
from fairway.recipes import Step, Technique, recipe
from fairway.recipes.technique import climb
from fairway.record.ablation_plan import read_plan
from fairway.train.interrupt import Interrupted
from fairway.train.metrics import Metrics

FINGERPRINT = "0123456789abcdef"
OWN = ("name", "summary", "seed", "data_variant", "model.query_gain", "score.passes")
"""Settings that the recipes of the ablation keep; all others are made minute."""
SMALLER = {"score.max_tokens": 600, "score.adaptation.epochs": 1, "train.validate_every": 0}
CLIP = Technique(
    name="wide-clip",
    title="a wider clip",
    why="fewer codes are cut",
    source="a test",
    changes={"quant.mlp.clip_sigmas": 16.0},
)
GAIN = Technique(name="gain", title="query gain 2", why="a test", source="a test", changes={"model.query_gain": 2.0})


def settings(quick: Recipe) -> list[str]:
    """Words after ``--set`` that give every recipe the size of ``quick``."""
    words = []
    for leaf in leaves(with_fields(quick, SMALLER)):
        if leaf.path not in OWN:
            value = json.dumps(leaf.value) if not isinstance(leaf.value, str) else leaf.value
            words.append(f"{leaf.path}={value}")
    return words


def ablate_words(quick: Recipe, corpus: Path, out: Path, *more: object) -> list[object]:
    return [
        *("ablate", "--systems", "pr1394", "pr1413", "--ladder", "pr1394", "pr1413", "--no-proxy", "--data", corpus),
        *("--out", out, "--seeds", 1, 2, *more, "--set", *settings(quick)),
    ]


@pytest.fixture(scope="module")
def brief_walk() -> Iterator[None]:
    """Plots, samples and packed source, tested elsewhere, take nine tenths of a minute run; here they are a line each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "write_report", lambda root: (root / "report.html").write_text("a report"))
        patch.setattr(pipeline, "sample_stage", lambda packed, walk: None)
        patch.setattr(stages, "write_bundle", lambda path: path.write_bytes(b"the source"))
        yield


@pytest.fixture(scope="module")
def ablation(brief_walk: None, quick: Recipe, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """An ablation of three groups and two seeds that was interrupted inside the training of its fifth run, and continued."""
    out = tmp_path_factory.mktemp("ablation") / "out"
    event = Metrics.event

    def stop_in_the_fifth_run(self: Metrics, name: str, /, **values: Any) -> None:
        event(self, name, **values)
        if name == "train" and values["step"] == 4 and (out / "pr1413-2").exists():
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Metrics, "event", stop_in_the_fifth_run)
        first = command(*ablate_words(quick, corpus, out))
    times = {path: path.stat().st_mtime_ns for path in out.glob("*/weights.safetensors")}
    second = command(*ablate_words(quick, corpus, out))
    return {"out": out, "first": first, "second": second, "times": times}


@pytest.mark.slow
def test_an_interrupted_ablation_says_how_far_it_came(ablation: dict[str, Any]) -> None:
    code, out, error = ablation["first"]
    assert code == 130
    assert "4 of 6 runs are finished, and the same command continues" in error
    lines = out.splitlines()
    assert [line.split()[3] for line in lines] == ["pr1394-1:", "pr1413-1:", "pr1394+query-gain-1:", "pr1394-2:"]
    assert lines[0].startswith("1 of 6")
    assert "weights of pr1413-1" in lines[2]
    assert all(" left" in line and "adapted" in line for line in (lines[1],))


@pytest.mark.slow
def test_the_same_command_finishes_it_and_repeats_nothing(ablation: dict[str, Any]) -> None:
    code, out, error = ablation["second"]
    assert code == 0, error
    lines = out.splitlines()
    assert [("was there" in line) for line in lines[:6]] == [True, True, True, True, False, False]
    assert lines[6] == f"fairway compare {ablation['out']} shows what the techniques are worth"
    for path, time in ablation["times"].items():
        assert path.stat().st_mtime_ns == time
    assert len(list(ablation["out"].glob("*/report.html"))) == 6


@pytest.mark.slow
def test_resumed_and_shared_weights_are_those_of_a_fresh_run(ablation: dict[str, Any], corpus: Path, tmp_path: Path) -> None:
    """Training that ends by steps is deterministic, so an ordinary run of the same recipe gives every figure again."""
    shared = ablation["out"] / "pr1394+query-gain-2"
    plan = read_plan(ablation["out"])
    fresh = pipeline.run(
        plan.group("pr1394+query-gain").at(2), data=corpus, out=tmp_path / "fresh", resume=False, overwrite=False
    )
    for folder in (shared, ablation["out"] / "pr1413-2"):
        found, expected = (load_file(root / "weights.safetensors") for root in (folder, tmp_path / "fresh"))
        assert all(torch.equal(found[name], expected[name]) for name in expected)
    score = read_json(shared / "score.json")
    assert {name: item["nats"] for name, item in score["passes"].items()} == {
        name: item["nats"] for name, item in fresh["passes"].items()
    }
    assert (shared / "model.fwz").read_bytes() == (tmp_path / "fresh" / "model.fwz").read_bytes()
    assert read_json(shared / "trained_by.json")["run"] == "pr1413-2"
    assert not (ablation["out"] / "pr1413-2" / "trained_by.json").exists()
    trained = read_json(ablation["out"] / "pr1413-2" / "clock.json")
    assert score["clock"]["train"] == trained["train"]
    assert score["clock"]["pack"] != trained["pack"]
    assert (shared / "metrics.jsonl").read_bytes() == (ablation["out"] / "pr1413-2" / "metrics.jsonl").read_bytes()


@pytest.mark.slow
def test_compare_shows_the_ablation(ablation: dict[str, Any]) -> None:
    out = ablation["out"]
    code, text, error = command("compare", out, "--json")
    assert code == 0, error
    document = json.loads(text)
    assert document["missing_runs"] == []
    assert [item["name"] for item in document["groups"]] == ["pr1394", "pr1413", "pr1394+query-gain"]
    query_gain, adaptation = document["ladder"]
    assert query_gain["gains"]["sliding"]["noise"] == "seeds"
    assert adaptation["gains"]["result"]["noise"] == "documents"
    assert adaptation["gains"]["sliding"] == {**adaptation["gains"]["sliding"], "gain": 0, "verdict": "unchanged"}
    values = {
        name: [read_json(out / f"{name}-{seed}" / "score.json")["passes"]["sliding"]["bits_per_byte"] for seed in (1, 2)]
        for name in ("pr1394", "pr1413")
    }
    gained = np.mean(values["pr1394"]) - np.mean(values["pr1413"])
    assert query_gain["gains"]["sliding"]["gain"] == pytest.approx(gained, abs=1e-12)
    # Two families of weights and two seeds: (2 - 1) (2 - 1) degrees of freedom.
    assert document["pooled_deviation"]["sliding"]["degrees"] == 1
    first, second = np.subtract(values["pr1394"], values["pr1413"])
    assert document["pooled_deviation"]["sliding"]["deviation"] == pytest.approx(abs(first - second) / 2, rel=1e-6)
    assert {item["steps"] for item in document["groups"]} == {6.0}
    code, text, _ = command("compare", out)
    assert code == 0
    assert "Gain of one technique at a time, from pr1394 to pr1413" in text
    for name in ("ablation.md", "ablation.png", "ablation.html"):
        assert (out / name).stat().st_size > 1000
        assert str(out / name) in text


@pytest.mark.slow
def test_other_settings_are_refused_with_the_first_difference(ablation: dict[str, Any], quick: Recipe, corpus: Path) -> None:
    words = ablate_words(quick, corpus, ablation["out"])
    changed = [word for word in words if not str(word).startswith("optim.ema_decay")]
    code, _, error = command(*changed, "optim.ema_decay=0.5")
    assert code == 2
    assert "pr1394: optim.ema_decay=0.5 (was 0.95)" in error
    code, _, error = command(
        *[word for word in words if word not in ("--ladder", "pr1394", "pr1413")], "--systems", "pr1394", "pr1413"
    )
    assert code == 2
    assert "number 3 of the groups is nothing, but was pr1394+query-gain" in error


def tiny_plan(*techniques: Technique, seeds: tuple[int, ...] = (1,), changes: dict[str, Any] | None = None):
    steps = climb(recipe("tiny"), techniques)
    return make_plan([], steps, seeds=seeds, changes=changes or {}, data_fingerprint=FINGERPRINT)


def test_settings_that_training_does_not_see_share_the_weights() -> None:
    plan = tiny_plan(
        CLIP,
        GAIN,
        replace(CLIP, name="again"),
        replace(CLIP, name="other", changes={"score.stride": 16, "artifact.byte_cap": 999}),
    )
    assert [(group.name, group.trainer) for group in plan.groups] == [
        ("tiny", "tiny"), ("tiny+wide-clip", "tiny"), ("tiny+gain", "tiny+gain"), ("tiny+other", "tiny+gain"),
    ]  # fmt: skip
    # The second wider clip changes nothing, so its step is the group before it.
    assert [rung.group for rung in plan.ladder] == ["tiny", "tiny+wide-clip", "tiny+gain", "tiny+gain", "tiny+other"]


def test_passes_are_added_before_the_result_with_one_tilt_for_all() -> None:
    plan = make_plan(
        [recipe("pr1413"), recipe("pr1557")], [], seeds=(1,), changes={}, data_fingerprint=FINGERPRINT, also=("tilted", "plain")
    )
    plain, tilted = (group.recipe for group in plan.groups)
    assert plain.score.passes == ("float", "plain", "sliding", "tilted", "adapted")
    assert plain.score.tilt == recipe("pr1557").score.tilt != recipe("pr1413").score.tilt
    assert tilted.score == recipe("pr1557").score
    alone = with_passes(recipe("pr1413"), ("tilted",), None)
    assert alone.score.tilt == recipe("pr1413").score.tilt
    assert with_passes(recipe("pr1413"), ("sliding",), None) == recipe("pr1413")


def test_two_recipes_of_one_name_are_refused() -> None:
    with pytest.raises(RecipeError, match=r"two recipes with different settings are called tiny\+gain"):
        tiny_plan(GAIN, replace(GAIN, changes={"model.query_gain": 3.0}))


@pytest.mark.parametrize(
    ("changes", "seeds", "message"),
    [({"seed": 3}, (1,), "seeds are given with --seeds"), ({}, (1, 1), "none twice"), ({}, (), "at least one seed")],
)
def test_bad_plans_are_refused(changes: dict[str, Any], seeds: tuple[int, ...], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        tiny_plan(GAIN, seeds=seeds, changes=changes)
    with pytest.raises(RecipeError, match="two recipes or more"):
        tiny_plan()


def test_changes_are_read_by_the_kind_of_the_setting() -> None:
    words = ["train.budget=200", "train.budget_unit=steps", "score.passes=float,plain", "score.tilt.contexts=[3, 4]",
             "score.tilt.thresholds=0.5", "model.skip_gates=false"]  # fmt: skip
    changes = parse_changes(words, recipe("tiny"))
    assert changes == {
        "train.budget": 200, "train.budget_unit": "steps", "score.passes": ["float", "plain"], "score.tilt.contexts": [3, 4],
        "score.tilt.thresholds": [0.5], "model.skip_gates": False,
    }  # fmt: skip
    assert with_fields(recipe("tiny"), {"score.passes": changes["score.passes"]}).score.passes == ("float", "plain")
    for word, message in (
        ("train.budget", "must have the form"),
        ("train.bugdet=3", "did you mean 'train.budget'"),
        ("score.tilt=3", "is no setting"),
    ):
        with pytest.raises(RecipeError, match=message):
            parse_changes([word], recipe("tiny"))
    with pytest.raises(RecipeError, match="given twice"):
        parse_changes(["seed=1", "seed=2"], recipe("tiny"))


def test_a_folder_takes_more_seeds_and_nothing_else(tmp_path: Path) -> None:
    plan = tiny_plan(GAIN)
    assert open_folder(plan, tmp_path) == plan
    assert read_plan(tmp_path) == plan
    more = open_folder(replace(plan, seeds=(7, 1)), tmp_path)
    assert more.seeds == (1, 7)
    assert read_plan(tmp_path).seeds == (1, 7)
    with pytest.raises(RecipeError, match=r"tiny: model\.width=64 \(was 128\)"):
        open_folder(tiny_plan(GAIN, changes={"model.width": 64}), tmp_path)
    with pytest.raises(DataError, match="was made with data 0123456789abcdef, not fedc"):
        open_folder(replace(plan, data_fingerprint="fedc"), tmp_path)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    with pytest.raises(DataError, match=r"holds no ablation\.json"):
        open_folder(plan, tmp_path / "other")


def test_runs_are_made_seed_by_seed_and_a_signal_stops_between_them(
    corpus: Path, quick: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The walk itself is replaced by one that writes its last files, so that the order of many runs takes no time."""
    made: list[str] = []

    def walk(asked: Recipe, *, data: Path, out: Path, resume: bool, overwrite: bool) -> dict[str, Any]:
        made.append(f"{asked.name} {asked.seed} {resume}")
        out.mkdir(exist_ok=True)
        for name in ("weights.safetensors", "metrics.jsonl", "report.html"):
            (out / name).touch()
        (out / "recipe.json").write_text((out / "recipe.json").read_text() if resume else json.dumps({"seed": asked.seed}))
        (out / "score.json").write_text(json.dumps({"passes": {"plain": {"bits_per_byte": 2.0}}}))
        return {}

    monkeypatch.setattr(pipeline, "run", walk)
    steps = [Step(item.recipe, item.technique) for item in climb(quick, [CLIP, GAIN])]
    plan = make_plan([], steps, seeds=(1, 2), changes={}, data_fingerprint=FINGERPRINT)
    rests = []

    def say(progress: Any) -> None:
        rests.append(progress.rest)
        if progress.done == 4:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted, match="stopped by SIGINT; 4 of 6 runs are finished"):
        perform(plan, data=corpus, out=tmp_path, say=say)
    assert made == ["tiny 1 False", "tiny+wide-clip 1 True", "tiny+gain 1 False", "tiny 2 False"]
    assert all(rest is not None and rest > 0 for rest in rests)


def test_runs_of_another_process_are_passed_over(
    corpus: Path, quick: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What waits for the weights of a run under way is passed over too."""
    made: list[str] = []

    def walk(asked: Recipe, *, data: Path, out: Path, resume: bool, overwrite: bool) -> None:
        with only_writer(out):
            made.append(out.name)
            (out / "report.html").touch()
            (out / "score.json").write_text(json.dumps({"passes": {"plain": {"bits_per_byte": 2.0}}}))

    monkeypatch.setattr(pipeline, "run", walk)
    plan = make_plan([], climb(quick, [CLIP, GAIN]), seeds=(1,), changes={}, data_fingerprint=FINGERPRINT)
    said: list[str] = []
    with only_writer(tmp_path / "tiny-1"):
        assert perform(plan, data=corpus, out=tmp_path, say=lambda progress: said.append(progress.run)) == 2
    assert made == said == ["tiny+gain-1"]


def test_an_ablation_needs_recipes_and_data(corpus: Path, tmp_path: Path) -> None:
    for words, message in (
        ((), "needs recipes"),
        (("--systems", "tiny", "small"), "needs --data DIR"),
        (("--systems", "tiny", "--data", corpus), "two recipes or more"),
        (("--systems", "tiny", "small", "--data", corpus, "--set", "train.budget=2"), "384"),
        (("--ladder", "pr1413", "tiny", "--data", corpus), "does not descend"),
    ):
        code, out, error = command("ablate", "--out", tmp_path / "out", *words)
        assert (code, out) == (2, "")
        assert message in error
        assert not (tmp_path / "out").exists()


def test_compare_refuses_what_it_would_ignore(tmp_path: Path) -> None:
    open_folder(tiny_plan(GAIN), tmp_path)
    for words, message in (
        (("--pass", "plain"), "compared alone and in all passes"),
        ((tmp_path,), "compared alone"),
        (("--against", tmp_path), "compared alone"),
        ((), "holds no finished run yet"),
    ):
        code, out, error = command("compare", tmp_path, *words)
        assert (code, out) == (2, "")
        assert message in error

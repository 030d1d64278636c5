"""The walk: text to shards to weights to codes to artifact to score to report, one stage after the other."""

from pathlib import Path
from typing import Any

from fairway.artifact.budget import ByteBudget, measure
from fairway.artifact.bundle import write_bundle
from fairway.base.files import read_json, write_json
from fairway.base.runs import RunFolder
from fairway.base.values import to_dict
from fairway.config import ArtifactConfig, Recipe
from fairway.data.dataset import Dataset
from fairway.report.page import write_report
from fairway.score.load import PackedModel
from fairway.stages import load_stage, pack_stage, prove_stage, sample_stage, score_packed, train_stage
from fairway.train.clock import Clock
from fairway.train.distributed import start_ranks
from fairway.train.interrupt import stop_on_signals
from fairway.train.machine import choose
from fairway.walk import Walk, open_recipe, open_walk


def run(recipe: Recipe, *, data: Path | None, out: Path, resume: bool, overwrite: bool) -> dict[str, Any]:
    """The whole walk; returns the content of ``score.json`` (on rank 0; empty elsewhere).

    Args:
        recipe: What to do.
        data: Folder made by ``fairway data build`` or ``fetch``; None builds one from the standard library's source.
        out: Run folder.
        resume: Continue an interrupted run in ``out``.
        overwrite: Discard an earlier run in ``out``.
    """
    with open_walk(recipe, data=data, out=out, resume=resume, overwrite=overwrite) as walk:
        train_stage(walk, resume=resume)
        pack_stage(walk, resume=resume)
        packed = load_stage(walk)
        document = score_packed(packed, walk, recipe.score)
        if walk.ranks.leads:
            prove_stage(packed, walk)
            sample_stage(packed, walk)
            write_report(walk.folder.root)
        return document


def score_file(packed: PackedModel, recipe: Recipe, *, data: Path, run: RunFolder, out: Path) -> dict[str, Any]:
    """Score an artifact that may have no run folder: text, artifact and source are all it needs.

    Args:
        packed: The artifact.
        recipe: Scoring and machine settings; the rest describes the artifact.
        data: Folder with the validation text.
        run: The artifact's run folder, for its weights before quantization and its clock.
        out: Folder for the result.
    """
    machine = choose(recipe.machine)
    with start_ranks(machine.device.type) as ranks, stop_on_signals() as stop:
        clock = Clock(settle=machine.settle)
        if run.clock.exists():
            # Written before the run was scored, so it holds the phases of training and packing alone.
            clock.restore(read_json(run.clock))
        target = RunFolder(out)
        if ranks.leads and not target.code.exists():
            write_bundle(target.code)
        if ranks.leads and not target.recipe.exists():
            write_json(target.recipe, to_dict(recipe))
        ranks.barrier()
        walk = Walk(recipe, target, Dataset.open(data), machine, ranks, clock, stop)
        return score_packed(packed, walk, recipe.score)


def recipe_of(packed: PackedModel, folder: RunFolder) -> Recipe:
    """The recipe of the artifact's run, or what the artifact itself says about it."""
    if folder.recipe.exists():
        return open_recipe(folder)
    header = packed.header
    return Recipe(
        name=header["recipe"],
        summary="described by its artifact alone",
        seed=header["seed"],
        model=packed.model,
        score=packed.score,
        artifact=ArtifactConfig(byte_cap=header["byte_cap"]),
    )


def byte_budget(folder: RunFolder, recipe: Recipe) -> ByteBudget:
    """Bytes of the artifact and the packed source on disk, against the recipe's cap."""
    return measure(folder.artifact, folder.code, recipe.artifact.byte_cap, recipe.quant)

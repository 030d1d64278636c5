"""``fairway run``, ``train``, ``pack``, ``score`` and ``report``."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import tyro

from fairway.base.errors import DataError
from fairway.base.runs import RunFolder, artifact_and_folder
from fairway.base.values import with_fields
from fairway.cli.parse import Switch, emit, named_recipe, parse, table
from fairway.config import MachineConfig, Recipe, ScoreConfig


@dataclass(frozen=True, kw_only=True)
class RunArguments:
    """Settings of the recipe, and where its run reads and writes."""

    out: Path
    """Run folder."""
    data: Path | None = None
    """Folder made by fairway data build or fetch; without it, the source of Python's standard library is used."""
    resume: Switch = False
    """Continue an interrupted run in --out."""
    overwrite: Switch = False
    """Discard an earlier run in --out."""
    json: Switch = False
    """Print one JSON document instead of a table."""
    recipe: Annotated[Recipe, tyro.conf.arg(name="")]


def _run_arguments(argv: Sequence[str], prog: str) -> RunArguments:
    base, rest = named_recipe(argv, prog)
    return parse(RunArguments, rest, f"{prog} {base.name}", RunArguments(out=Path("runs") / base.name, recipe=base))


def run(argv: Sequence[str]) -> int:
    """Train, pack, score and report; 1 when the artifact is over the byte cap."""
    arguments = _run_arguments(argv, "run")
    from fairway import pipeline
    from fairway.report.table import final_table

    document = pipeline.run(
        arguments.recipe, data=arguments.data, out=arguments.out, resume=arguments.resume, overwrite=arguments.overwrite
    )
    if document:
        emit(document, final_table(arguments.out), as_json=arguments.json)
        pipeline.byte_budget(RunFolder(arguments.out), arguments.recipe).check()
    return 0


def train(argv: Sequence[str]) -> int:
    """Train only."""
    arguments = _run_arguments(argv, "train")
    from fairway.stages import train_stage
    from fairway.walk import open_walk

    with open_walk(
        arguments.recipe, data=arguments.data, out=arguments.out, resume=arguments.resume, overwrite=arguments.overwrite
    ) as walk:
        train_stage(walk, resume=arguments.resume)
        if walk.ranks.leads:
            document = {"weights": str(walk.folder.weights), "clock": walk.clock.to_dict()}
            emit(document, f"weights in {walk.folder.weights}", as_json=arguments.json)
    return 0


@dataclass(frozen=True, kw_only=True)
class PackArguments:
    """Quantize the weights of a trained run and pack them."""

    run: Annotated[Path, tyro.conf.Positional]
    """Run folder with weights.safetensors."""
    data: Path | None = None
    """Training data for the calibration; by default the folder that the run was trained on."""
    target_bytes: int | None = None
    """Bytes of the artifact to fill, to within 0.1 % from below. The code counts against the cap too: leave room for it. By
    default the recipe's quant.target_bytes."""
    json: Switch = False
    """Print one JSON document instead of a table."""


def pack(argv: Sequence[str]) -> int:
    """Quantize and pack; 1 when the artifact is over the byte cap."""
    arguments = parse(PackArguments, argv, "pack")
    from fairway import pipeline
    from fairway.report.page import refresh_report
    from fairway.stages import pack_stage
    from fairway.walk import open_recipe, open_walk

    folder = RunFolder(arguments.run)
    recipe = packing = open_recipe(folder)
    if arguments.target_bytes is not None:
        packing = with_fields(recipe, {"quant.target_bytes": arguments.target_bytes})
    with open_walk(recipe, data=folder.data_folder(arguments.data), out=folder.root, resume=True) as walk:
        # What the run was made with stays in its folder; the artifact's header says how it was packed.
        pack_stage(replace(walk, recipe=packing))
        if walk.ranks.leads:
            refresh_report(folder.root)
            budget = pipeline.byte_budget(folder, packing)
            document = {
                "artifact_bytes": budget.artifact_bytes,
                "code_bytes": budget.code_bytes,
                "total_bytes": budget.total_bytes,
                "byte_cap": budget.cap,
                "slack": budget.slack,
            }
            emit(document, table(list(document.items()), ("what", "bytes")), as_json=arguments.json)
            budget.check()
    return 0


@dataclass(frozen=True, kw_only=True)
class ScoreArguments:
    """Score TARGET, an artifact or a run folder, on the validation split of --data."""

    data: Path | None = None
    """Folder with the validation text; by default the one that the run was trained on."""
    out: Path | None = None
    """Folder for score.json and ledger.npz; by default the run's."""
    json: Switch = False
    """Print one JSON document instead of a table."""
    score: ScoreConfig = field(default_factory=ScoreConfig)
    machine: MachineConfig = field(default_factory=MachineConfig)


def score(argv: Sequence[str]) -> int:
    """Score an artifact, or a run folder with its weights before quantization too."""
    target, rest = (Path(argv[0]), argv[1:]) if argv and not argv[0].startswith("-") else (None, argv)
    path, folder = artifact_and_folder(target) if target else (None, None)
    from fairway.score.load import load_packed

    packed = load_packed(path) if path else None
    arguments = parse(ScoreArguments, rest, "score TARGET", ScoreArguments(score=packed.score) if packed else None)
    if packed is None or folder is None:
        raise DataError("fairway score needs an artifact or a run folder first: fairway score RUN --data DIR")
    from fairway import pipeline
    from fairway.report.page import refresh_report
    from fairway.report.table import final_table

    recipe = replace(pipeline.recipe_of(packed, folder), machine=arguments.machine, score=arguments.score)
    data = folder.data_folder(arguments.data)
    document = pipeline.score_file(packed, recipe, data=data, run=folder, out=arguments.out or folder.root)
    if document:
        refresh_report(arguments.out or folder.root)
        emit(document, final_table(arguments.out or folder.root), as_json=arguments.json)
    return 0


@dataclass(frozen=True, kw_only=True)
class ReportArguments:
    """Write report.html and the plots of a run."""

    run: Annotated[Path, tyro.conf.Positional]
    """Run folder."""
    json: Switch = False
    """Print one JSON document instead of a table."""


def report(argv: Sequence[str]) -> int:
    """Write the report from the files of a run."""
    arguments = parse(ReportArguments, argv, "report")
    from fairway.report.page import write_report
    from fairway.report.table import final_table

    page = write_report(arguments.run)
    emit({"report": str(page)}, f"{final_table(arguments.run)}\nreport in {page}", as_json=arguments.json)
    return 0

"""One run's folder, data, machine, ranks and clock, opened together and checked against each other before work begins."""

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

import fairway
from fairway.base.errors import DataError, RecipeError
from fairway.base.files import read_json, write_json
from fairway.base.libraries import installed_versions
from fairway.base.lock import only_writer
from fairway.base.log import logger
from fairway.base.runs import RunFolder
from fairway.base.values import difference, from_dict, to_dict
from fairway.config import Recipe
from fairway.data.build import build_dataset
from fairway.data.dataset import Dataset
from fairway.train.clock import Clock
from fairway.train.distributed import Ranks, start_ranks
from fairway.train.interrupt import StopRequest, stop_on_signals
from fairway.train.machine import Machine, choose

EMBEDDED_VAL_DOCUMENTS = 40
"""Files of the standard library that are held out: about 5 % of them, enough text for a steady figure."""


@dataclass(frozen=True)
class Walk:
    """What every stage of one run shares."""

    recipe: Recipe
    folder: RunFolder
    dataset: Dataset
    machine: Machine
    ranks: Ranks
    clock: Clock
    stop: StopRequest


@contextmanager
def open_walk(recipe: Recipe, *, data: Path | None, out: Path, resume: bool, overwrite: bool = False) -> Iterator[Walk]:
    """Prepare folder, data, machine, ranks and clock; check that they fit together before any work begins.

    Raises:
        BusyError: another process is writing the folder.
    """
    folder = RunFolder(out)
    machine = choose(recipe.machine, head_width=recipe.model.head_width)
    with (
        start_ranks(machine.device.type) as ranks,
        only_writer(out) if ranks.leads else nullcontext(),
        stop_on_signals() as stop,
    ):
        if ranks.leads:
            _prepare_folder(folder, recipe, resume=resume, overwrite=overwrite)
            data = data or _embedded_data(recipe, out)
        ranks.barrier()
        dataset = Dataset.open(data or out / "data")
        dataset.check_vocabulary(recipe.model.vocab_size)
        clock = Clock(settle=machine.settle)
        if resume and folder.clock.exists():
            clock.restore(read_json(folder.clock))
        for subject, reason in machine.reasons.items():
            logger.info(f"{subject} {reason}")
        if ranks.leads:
            _describe(folder, recipe, machine, dataset, ranks)
        yield Walk(recipe, folder, dataset, machine, ranks, clock, stop)


def open_recipe(folder: RunFolder) -> Recipe:
    """The recipe that a run folder was made with."""
    return from_dict(Recipe, read_json(folder.recipe))


def _prepare_folder(folder: RunFolder, recipe: Recipe, *, resume: bool, overwrite: bool) -> None:
    """Refuse to mix two runs in one folder."""
    if not folder.recipe.exists():
        if resume:
            raise DataError(f"{folder.root} holds no run to resume; start without --resume")
        return
    if resume:
        changed = [
            f"{now.path}={now.value!r} (was {then.value!r})"
            for then, now in difference(open_recipe(folder), recipe)
            if not now.path.startswith("machine.")
        ]
        if changed:
            raise RecipeError(f"--resume needs the settings of {folder.recipe}, but {', '.join(changed)}")
        return
    if not overwrite:
        raise DataError(f"{folder.root} already holds a run; use --resume to continue it or --overwrite to discard it")
    results = (
        folder.metrics, folder.clock, folder.state, folder.weights, folder.artifact, folder.code,
        folder.tensors, folder.score, folder.ledger, folder.proof, folder.coded, folder.audit, folder.samples, folder.report,
    )  # fmt: skip
    for path in results:
        path.unlink(missing_ok=True)


def _embedded_data(recipe: Recipe, out: Path) -> Path:
    """Data that every machine has: the source text of the running Python's standard library."""
    folder = out / "data"
    if not (folder / "manifest.json").exists():
        build_dataset(["python-stdlib"], folder, vocab_size=recipe.model.vocab_size, val_documents=EMBEDDED_VAL_DOCUMENTS)
    return folder


def _describe(folder: RunFolder, recipe: Recipe, machine: Machine, dataset: Dataset, ranks: Ranks) -> None:
    """Write what was asked and what it runs on."""
    write_json(folder.recipe, to_dict(recipe))
    write_json(folder.environment, _environment(machine, dataset, ranks))


def _environment(machine: Machine, dataset: Dataset, ranks: Ranks) -> dict[str, Any]:
    return {
        "versions": {
            "fairway": fairway.__version__,
            "python": platform.python_version(),
            **installed_versions(),
            "torch": torch.__version__,
        },
        "device": str(machine.device),
        "device_name": torch.cuda.get_device_name(machine.device) if machine.device.type == "cuda" else "cpu",
        "ranks": ranks.world,
        "choices": machine.reasons,
        "attention": machine.reasons["attention"],
        "attention_passed_over": machine.attention_passed_over,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "host_cpus": os.cpu_count(),
        "data": str(dataset.folder.resolve()),
        "data_fingerprint": dataset.fingerprint,
    }

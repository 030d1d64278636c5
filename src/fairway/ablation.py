"""An ablation: many ordinary runs under one data folder, byte cap and budget, made so that a part of them is a smaller whole.

Seed by seed, every group is run once before any is run again. Groups that differ only in what comes after training share the
weights of the first of them, so a change of quantization or scoring is measured on the very same network.
"""

import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from fairway import pipeline
from fairway.base.errors import BusyError, DataError, MachineError, RecipeError
from fairway.base.files import atomic_path, read_json, sha256_file, write_json, write_text
from fairway.base.log import logger
from fairway.base.runs import RunFolder
from fairway.base.values import suggest, to_dict, with_fields
from fairway.config import PassName, Recipe, TiltConfig
from fairway.recipes import Step
from fairway.record.ablation_plan import PLAN, TRAINER, Group, Plan, Rung, first_difference, read_plan, run_folder
from fairway.train.interrupt import Interrupted, stop_on_signals
from fairway.walk import open_recipe

TRAINING = ("model", "optim", "train")
"""Parts of a recipe that decide, with the seed and the data, which weights training ends with."""
GIVEN_ELSEWHERE = ("name", "summary", "seed")
"""Settings that an ablation gives itself."""


@dataclass(frozen=True)
class Progress:
    """Where an ablation is after one run."""

    done: int
    total: int
    run: str
    """Name of the run's folder."""
    bits_per_byte: Mapping[str, float]
    """By pass."""
    seconds: float | None
    """Wall-clock time of the run; None for one that was there already."""
    trainer: str | None
    """The run whose weights it took over; None where it trained its own."""
    rest: float | None
    """Estimated seconds of all runs that are left; None while nothing tells."""


def make_plan(
    systems: Sequence[Recipe],
    steps: Sequence[Step],
    *,
    seeds: Sequence[int],
    changes: Mapping[str, Any],
    data_fingerprint: str,
    also: Sequence[PassName] = (),
) -> Plan:
    """The groups of an ablation, each set of settings once.

    Args:
        systems: Recipes that are compared with the first of them.
        steps: Recipes of which each is compared with the one before it.
        seeds: At least one, all different.
        changes: Dotted settings that hold for all groups.
        data_fingerprint: Of the data folder that all runs use.
        also: Passes that every group has besides its own; see `with_passes`.

    Raises:
        RecipeError: nothing to compare, a seed twice, a setting that is unknown, or two different recipes of one name.
    """
    if len(systems) < 2 and len(steps) < 2:
        raise RecipeError("an ablation needs two recipes or more: --systems NAME NAME..., --ladder OLD NEW, or both")
    if not seeds or len(set(seeds)) < len(seeds):
        raise RecipeError(f"--seeds {' '.join(map(str, seeds))} must name at least one seed, and none twice")
    for name in set(changes) & set(GIVEN_ELSEWHERE):
        raise RecipeError(f"{name} is not a setting to change for all runs; seeds are given with --seeds")
    groups: list[Group] = []
    everything = [*systems, *(step.recipe for step in steps)]
    tilt = next((recipe.score.tilt for recipe in everything if "tilted" in recipe.score.passes), None)

    def group(recipe: Recipe) -> str:
        return _grouped(with_fields(with_passes(recipe, also, tilt), dict(changes)), groups)

    named = [group(recipe) for recipe in systems]
    rungs = [Rung(group(step.recipe), step.technique) for step in steps]
    return Plan(tuple(groups), tuple(named), tuple(rungs), tuple(seeds), data_fingerprint)


def with_passes(recipe: Recipe, also: Sequence[PassName], tilt: TiltConfig | None) -> Recipe:
    """``recipe`` with more passes before its last one, which stays its result.

    Args:
        recipe: The recipe.
        also: Passes to add where they are missing.
        tilt: Tilt of an added ``tilted`` pass, so that it is the same in all groups; None keeps the recipe's own.
    """
    missing = tuple(name for name in also if name not in recipe.score.passes)
    if not missing:
        return recipe
    *own, last = recipe.score.passes
    changes: dict[str, Any] = {"score.passes": (*own, *missing, last)}
    if tilt is not None and "tilted" in missing:
        changes["score.tilt"] = tilt
    return with_fields(recipe, changes)


def _grouped(recipe: Recipe, groups: list[Group]) -> str:
    """Name of the group of ``recipe``, which is added unless one with its settings is there."""
    content = to_dict(recipe)
    for group in groups:
        same = {name for name, value in to_dict(group.recipe).items() if value == content[name]}
        if same >= set(content) - set(GIVEN_ELSEWHERE):
            return group.name
        if group.name == recipe.name:
            raise RecipeError(f"two recipes with different settings are called {recipe.name}; give one of them another name")
    alike = (
        group.trainer for group in groups if all(getattr(group.recipe, part) == getattr(recipe, part) for part in TRAINING)
    )
    groups.append(Group(recipe, next(alike, recipe.name)))
    return recipe.name


def parse_changes(words: Sequence[str], recipe: Recipe) -> dict[str, Any]:
    """Changes from words such as ``train.budget=200`` or ``score.passes=float,plain``.

    A value is read as JSON where it is JSON and as text elsewhere; commas separate the items of a setting that is a list.

    Raises:
        RecipeError: a word has no ``=``, or a setting is unknown or given twice.
    """
    current = _flat(to_dict(recipe))
    changes: dict[str, Any] = {}
    for word in words:
        path, sign, text = word.partition("=")
        if not sign:
            raise RecipeError(f"--set {word} must have the form setting=value, such as train.budget=200")
        if path not in current or path in changes:
            why = "is given twice" if path in changes else f"is no setting of a recipe{suggest(path, current)}"
            raise RecipeError(f"--set {word}: {path} {why}")
        value = _json_or_text(text)
        if isinstance(current[path], tuple) and not isinstance(value, list):
            value = [_json_or_text(item) for item in text.split(",")]
        changes[path] = value
    return changes


def _flat(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in content.items():
        found |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return found


def _json_or_text(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def open_folder(plan: Plan, out: Path) -> Plan:
    """Write ``ablation.json``, or check that the one in ``out`` asks for the same; returns the plan to perform.

    Seeds may be added: the plan that is returned has those of the folder first, then the new ones.

    Raises:
        RecipeError: the folder was made with other groups or settings; names the first difference.
        DataError: it was made with other data, or holds something else.
    """
    if (out / PLAN).exists():
        earlier = read_plan(out)
        _refuse_changes(earlier, plan, out)
        plan = replace(earlier, seeds=tuple(dict.fromkeys((*earlier.seeds, *plan.seeds))))
    elif out.exists() and any(out.iterdir()):
        raise DataError(f"{out} is not empty and holds no {PLAN}; choose an empty --out, or the folder of an ablation")
    write_json(out / PLAN, plan.to_dict())
    return plan


def _refuse_changes(then: Plan, now: Plan, out: Path) -> None:
    remedy = f"give the same settings again, or another --out than {out}"
    if then.data_fingerprint != now.data_fingerprint:
        raise DataError(f"{out} was made with data {then.data_fingerprint}, not {now.data_fingerprint}; use the same --data")
    for what, old, new in (
        ("groups", [group.name for group in then.groups], [group.name for group in now.groups]),
        ("systems", then.systems, now.systems),
        ("ladder", [rung.group for rung in then.ladder], [rung.group for rung in now.ladder]),
    ):
        for index in range(max(len(old), len(new))):
            before, after = (names[index] if index < len(names) else "nothing" for names in (old, new))
            if before != after:
                raise RecipeError(f"number {index + 1} of the {what} is {after}, but was {before}; {remedy}")
    for old, new in zip(then.groups, now.groups, strict=True):
        changed = first_difference(old.recipe, new.recipe)
        if changed:
            raise RecipeError(f"{new.name}: {changed}; {remedy}")


def perform(plan: Plan, *, data: Path, out: Path, say: Callable[[Progress], None]) -> int:
    """Make every run that is not there yet, seed by seed; ``say`` hears of each.

    Several processes may work on one folder: each passes over the runs that another is making, and those that wait for them.

    Returns:
        Number of runs that were left to other processes.

    Raises:
        Interrupted: a signal asked to stop; what is finished stays, and the same call continues.
        RecipeError: a run folder holds a run of other settings.
        MachineError: called under torchrun.
    """
    if torch.distributed.is_torchelastic_launched():
        raise MachineError("fairway ablate makes its runs in one process; start it without torchrun")
    runs = [(group, seed) for seed in plan.seeds for group in plan.groups]
    pace, left_to_others = Pace(plan, out), 0
    with stop_on_signals() as stop:
        for number, (group, seed) in enumerate(runs, start=1):
            folder = RunFolder(run_folder(out, group.name, seed))
            trainer = None if group.trainer == group.name else run_folder(out, group.trainer, seed)
            seconds = None
            if finished(folder):
                _refuse_other_run(folder, group.at(seed))
            else:
                began = time.perf_counter()
                try:
                    _perform_run(group.at(seed), folder, trainer, data)
                except Interrupted as stopped:
                    raise Interrupted(_stopped(str(stopped).split(";")[0], number - 1, len(runs))) from None
                except BusyError as busy:
                    logger.info("%s: left to another process (%s)", folder.root.name, busy)
                    left_to_others += 1
                    continue
                seconds = time.perf_counter() - began
                pace.note(group, seconds)
            passes = read_json(folder.score)["passes"]
            scores = {name: float(figures["bits_per_byte"]) for name, figures in passes.items()}
            rest = pace.rest(runs[number:])
            say(Progress(number, len(runs), folder.root.name, scores, seconds, trainer.name if trainer else None, rest))
            if stop and number < len(runs):
                raise Interrupted(_stopped(f"stopped by {stop.signal_name}", number, len(runs)))
    return left_to_others


def _stopped(why: str, done: int, total: int) -> str:
    return f"{why}; {done} of {total} runs are finished, and the same command continues"


def finished(folder: RunFolder) -> bool:
    """Whether a run has come to its end: the report is the last file of the walk."""
    return folder.score.exists() and folder.report.exists()


def _refuse_other_run(folder: RunFolder, recipe: Recipe) -> None:
    changed = first_difference(open_recipe(folder), recipe)
    if changed:
        raise RecipeError(f"{folder.root} holds a run of other settings: {changed}; move it away, or choose another --out")


def _perform_run(recipe: Recipe, folder: RunFolder, trainer: Path | None, data: Path) -> None:
    if trainer and not RunFolder(trainer).weights.exists():
        raise BusyError(f"another process is still training {trainer}; give the same command again when it is done")
    # The recipe is the last file that ``take_weights`` writes, so where it is there, the folder can be resumed.
    if trainer and not folder.recipe.exists():
        take_weights(RunFolder(trainer), folder, recipe)
    pipeline.run(recipe, data=data, out=folder.root, resume=folder.recipe.exists(), overwrite=False)


def take_weights(source: RunFolder, target: RunFolder, recipe: Recipe) -> None:
    """Give a run the weights of another that trained with the same settings, seed and data.

    The log of training comes along, and of the clock the phases of training, as the log has them; ``trained_by.json`` says
    whose they are.
    """
    with atomic_path(target.weights) as partial:
        shutil.copyfile(source.weights, partial)
    log = source.metrics.read_text("utf-8")
    write_text(target.metrics, log)
    phases = [event for event in map(json.loads, log.splitlines()) if event["event"] == "phase"]
    write_json(target.clock, {event["name"]: {"seconds": event["seconds"], "counted": event["counted"]} for event in phases})
    note = {"run": source.root.name, "weights_sha256": sha256_file(target.weights)}
    write_json(target.root / TRAINER, {**note, "metrics_and_training_clock": f"copied from {source.root.name}"})
    write_json(target.recipe, to_dict(recipe))


@dataclass
class Pace:
    """How long runs take here, with training and without it."""

    plan: Plan
    out: Path
    taken: dict[bool, list[float]] = field(default_factory=lambda: {True: [], False: []})

    def note(self, group: Group, seconds: float) -> None:
        """Remember the time of a run."""
        self.taken[group.trainer == group.name].append(seconds)

    def rest(self, left: Sequence[tuple[Group, int]]) -> float | None:
        """Estimated seconds of the runs among ``left`` that are not finished: the mean of those like them."""
        known = [*self.taken[True], *self.taken[False]]
        total = 0.0
        for group, seed in left:
            if not finished(RunFolder(run_folder(self.out, group.name, seed))):
                like = self.taken[group.trainer == group.name] or known
                if not like:
                    return None
                total += sum(like) / len(like)
        return total

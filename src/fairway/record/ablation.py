"""What an ablation shows: bits per byte of every group, what each technique gains, and how much of that is noise."""

import json
import statistics
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from fairway.base.errors import DataError
from fairway.base.fields import REMEDY, Fields
from fairway.base.files import read_json
from fairway.base.runs import RunFolder
from fairway.config import PassName
from fairway.recipes import Technique
from fairway.record.ablation_plan import TRAINER, Group, Plan, first_difference, read_plan, run_folder
from fairway.record.comparable import refuse_different_text
from fairway.record.figures import digest_of
from fairway.record.paired import paired_difference
from fairway.record.pooled import Interval, Spread, difference_interval, pooled_spread, student_interval
from fairway.record.results import Result, read_run

PASSES: tuple[str, ...] = typing.get_args(PassName)
RESULT = "result"
"""Stands for the last pass of each run, whichever it is."""
COLUMNS = (*PASSES, RESULT)


@dataclass(frozen=True)
class Run:
    """One finished run of a group."""

    results: Mapping[str, Result]
    """By pass; the last one of the run is also under ``RESULT``."""
    trainer: str
    """Name of the run that trained its weights, its own where it did."""
    steps: int | None
    """Optimizer steps, where the log of training is there."""
    code: str | None = None
    """SHA-256 of the packed source that it was made with, where it is there."""


@dataclass(frozen=True)
class GroupRuns:
    """The finished runs of a group."""

    group: Group
    runs: Mapping[int, Run]
    """By seed; not empty."""

    @property
    def passes(self) -> tuple[str, ...]:
        """The passes that every run has, ``RESULT`` last."""
        return tuple(name for name in COLUMNS if all(name in run.results for run in self.runs.values()))

    @property
    def family(self) -> str:
        """Equal for groups that score the same trained weights."""
        return self.runs[min(self.runs)].trainer

    def by_seed(self, name: str) -> dict[int, float]:
        """Bits per byte of a pass at every seed."""
        return {seed: run.results[name].bits_per_byte for seed, run in self.runs.items()}

    def values(self, name: str) -> list[float]:
        """Bits per byte of a pass, seed by seed."""
        return list(self.by_seed(name).values())

    def mean(self, name: str) -> float:
        """Mean bits per byte of a pass over seeds."""
        return statistics.fmean(self.values(name))

    def deviation(self, name: str) -> float | None:
        """Deviation over seeds (ddof 1); None for one seed."""
        return statistics.stdev(self.values(name)) if len(self.runs) > 1 else None

    def stated(self, name: str) -> float | None:
        """Mean over seeds of a figure that every run states, such as ``model_bytes``; None where one does not."""
        figures = [getattr(run.results[RESULT].stated, name) for run in self.runs.values()]
        return None if None in figures else statistics.fmean(figures)

    @property
    def steps(self) -> float | None:
        """Mean number of optimizer steps."""
        counts = [run.steps for run in self.runs.values() if run.steps is not None]
        return statistics.fmean(counts) if len(counts) == len(self.runs) else None

    @property
    def byte_cap(self) -> int:
        """Largest allowed sum of artifact and code."""
        return self.group.recipe.artifact.byte_cap


@dataclass(frozen=True)
class Gain:
    """What one group saves against another in one pass, in bits per byte; positive is better."""

    value: float
    by_seed: Mapping[int, float]
    """The same for each seed that both have."""
    noise: str
    """What the interval is about: other ``seeds``, or other ``documents`` where both score the same trained weights."""
    error: float | None = None
    """Standard error; None where nothing tells it."""
    degrees: float | None = None
    interval: Interval | None = None

    @property
    def paired(self) -> Interval | None:
        """Interval from the gains of equal seeds alone, ``n - 1`` degrees of freedom; None for one seed.

        What a seed does to both sides alike cancels in it, whatever that is; but three gains say little about their spread.
        """
        gains = list(self.by_seed.values())
        if len(gains) < 2:
            return None
        return student_interval(statistics.fmean(gains), statistics.stdev(gains) / len(gains) ** 0.5, len(gains) - 1.0)

    @property
    def verdict(self) -> str:
        """``better``, ``worse``, ``within noise`` or ``unchanged``; empty without an interval."""
        return self.interval.verdict if self.interval else ""


@dataclass(frozen=True)
class Difference:
    """One group against another, pass by pass."""

    new: str
    old: str
    technique: Technique | None
    """None where more than one technique separates them."""
    gains: Mapping[str, Gain]
    """By pass that both have, and ``RESULT``; empty while a run is missing."""

    @property
    def same_settings(self) -> bool:
        """Whether the technique changes nothing at this size, so that both are one group."""
        return self.new == self.old

    @property
    def verdict(self) -> str:
        """Verdict on the result."""
        if self.same_settings:
            return "same settings"
        return self.gains[RESULT].verdict if self.gains else "not run yet"


@dataclass(frozen=True)
class Ablation:
    """All finished runs of an ablation and what they show."""

    plan: Plan
    groups: Mapping[str, GroupRuns]
    """Groups with at least one finished run, in the order of the plan."""
    missing: tuple[str, ...]
    """Runs that are not there yet."""

    @cached_property
    def passes(self) -> tuple[str, ...]:
        """Passes that any group has, ``RESULT`` last."""
        return tuple(name for name in COLUMNS if any(name in group.passes for group in self.groups.values()))

    @property
    def sources(self) -> int:
        """How many different sources the runs were made with."""
        return len({run.code for group in self.groups.values() for run in group.runs.values() if run.code is not None})

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """The passes that a table shows: ``RESULT`` only where not all runs end with the same pass."""
        last = {run.results[RESULT].pass_name for group in self.groups.values() for run in group.runs.values()}
        return self.passes if len(last) > 1 else self.passes[:-1]

    @cached_property
    def spreads(self) -> Mapping[str, Spread | None]:
        """Deviation of every pass between groups at equal seeds, pooled over all groups."""
        found = {}
        for name in self.passes:
            families: dict[str, list[dict[int, float]]] = {}
            for group in self.groups.values():
                if name in group.passes:
                    families.setdefault(group.family, []).append(group.by_seed(name))
            found[name] = pooled_spread(families.values())
        return found

    @cached_property
    def systems(self) -> tuple[Difference, ...]:
        """Every system against the first."""
        return tuple(self.difference(name, self.plan.systems[0], None) for name in self.plan.systems[1:])

    @cached_property
    def ladder(self) -> tuple[Difference, ...]:
        """Every step of the ladder against the step before it."""
        pairs = zip(self.plan.ladder[1:], self.plan.ladder, strict=False)
        return tuple(self.difference(new.group, old.group, new.technique) for new, old in pairs)

    @cached_property
    def whole_ladder(self) -> Difference | None:
        """The last step of the ladder against the first; None where there are no two steps to add up."""
        if len(self.plan.ladder) < 3:
            return None
        return self.difference(self.plan.ladder[-1].group, self.plan.ladder[0].group, None)

    @property
    def differences(self) -> tuple[Difference, ...]:
        """All differences, systems first."""
        whole = [self.whole_ladder] if self.whole_ladder else []
        return (*self.systems, *self.ladder, *whole)

    def difference(self, new: str, old: str, technique: Technique | None) -> Difference:
        """One group against another; without gains while they share no seed, or where both are one group."""
        if new == old or new not in self.groups or old not in self.groups:
            return Difference(new, old, technique, {})
        here, there = self.groups[new], self.groups[old]
        if not set(here.runs) & set(there.runs):
            return Difference(new, old, technique, {})
        shared = [name for name in here.passes if name in there.passes]
        return Difference(new, old, technique, {name: gain(here, there, name, self.spreads[name]) for name in shared})


def gain(new: GroupRuns, old: GroupRuns, name: str, spread: Spread | None) -> Gain:
    """What ``new`` saves against ``old`` in the pass ``name`` at the seeds that both have, with the noise that fits.

    Groups that were trained apart differ by their seeds too, so the interval is over seeds, with the pooled deviation. Groups
    that score the same weights do not: there the difference is paired over the documents of the text, seeds averaged.
    """
    common = [seed for seed in new.runs if seed in old.runs]
    pairs = {seed: (new.runs[seed].results[name], old.runs[seed].results[name]) for seed in common}
    by_seed = {seed: there.bits_per_byte - here.bits_per_byte for seed, (here, there) in pairs.items()}
    if all(new.runs[seed].trainer == old.runs[seed].trainer for seed in common):
        return _over_documents([here for here, _ in pairs.values()], [there for _, there in pairs.values()], by_seed)
    value = statistics.fmean(by_seed.values())
    if spread is None:
        return Gain(value, by_seed, "seeds")
    interval = difference_interval(value, spread, len(common))
    error = spread.deviation * (2 / len(common)) ** 0.5
    return Gain(value, by_seed, "seeds", error, float(spread.degrees), interval)


def _over_documents(new: Sequence[Result], old: Sequence[Result], by_seed: Mapping[int, float]) -> Gain:
    value = statistics.fmean(by_seed.values())
    costs = [[result.costs for result in side if result.costs is not None] for side in (new, old)]
    if len(costs[0]) < len(new) or len(costs[1]) < len(old) or len(costs[0][0].starts) < 2:
        return Gain(value, by_seed, "documents")
    paired = paired_difference(*costs)
    degrees = paired.documents - 1.0
    interval = student_interval(paired.difference, paired.standard_error, degrees)
    return Gain(paired.difference, by_seed, "documents", paired.standard_error, degrees, interval)


def read_ablation(root: Path) -> Ablation:
    """Read the plan of an ablation and every finished run of it.

    Raises:
        DataError: no run is finished, a folder holds another run, runs scored different texts, or a file is damaged.
    """
    plan = read_plan(root)
    groups: dict[str, GroupRuns] = {}
    missing = []
    for group in plan.groups:
        runs = {}
        for seed in plan.seeds:
            folder = run_folder(root, group.name, seed)
            if RunFolder(folder).score.exists():
                runs[seed] = _read(folder, group, seed)
            else:
                missing.append(folder.name)
        if runs:
            groups[group.name] = GroupRuns(group, runs)
    if not groups:
        raise DataError(f"{root} holds no finished run yet; give the fairway ablate command that made it again")
    refuse_different_text([run.results[RESULT] for group in groups.values() for run in group.runs.values()])
    return Ablation(plan, groups, tuple(missing))


def _read(folder: Path, group: Group, seed: int) -> Run:
    last = read_run(folder)
    assert last.recipe is not None
    changed = first_difference(group.recipe, last.recipe)
    if changed or last.recipe.seed != seed:
        raise DataError(
            f"{folder} is not a run of {group.name} with seed {seed}: {changed or f'seed={last.recipe.seed}'}; "
            "move it away and give the fairway ablate command again"
        )
    files = RunFolder(folder)
    stated = Fields(read_json(files.score), str(files.score)).part("passes").content
    results = {name: read_run(folder, name) for name in PASSES if name in stated}
    note = folder / TRAINER
    trainer = Fields(read_json(note), str(note)).text("run") if note.exists() else folder.name
    return Run({**results, RESULT: last}, trainer, _steps(files.metrics), digest_of(files.code))


def _steps(metrics: Path) -> int | None:
    """Optimizer steps by the last ``stop`` event of the training log."""
    if not metrics.exists():
        return None
    stops = [line for line in metrics.read_text("utf-8").splitlines() if '"event": "stop"' in line]
    try:
        return Fields(json.loads(stops[-1]), f"{metrics}: last stop").whole("step") if stops else None
    except json.JSONDecodeError as error:
        raise DataError(f"{metrics}: the last stop event is not valid JSON ({error}); {REMEDY}") from None

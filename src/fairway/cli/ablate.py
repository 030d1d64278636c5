"""``fairway ablate``."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from fairway.base.errors import DataError, RecipeError
from fairway.cli.parse import Switch, emit, parse
from fairway.config import PassName
from fairway.recipes import ladder, proxy, recipe
from fairway.recipes.technique import Step

if TYPE_CHECKING:
    from fairway.ablation import Progress


@dataclass(frozen=True, kw_only=True)
class AblateArguments:
    """Run systems side by side, and one technique at a time between two of them, all on the same data, cap and budget.

    The same command skips finished runs and continues interrupted ones; more seeds may be added. Given again beside a running
    one, it takes the runs that the other has not begun. Then: fairway compare OUT.
    """

    systems: tuple[str, ...] = ()
    """Recipes to run side by side; each is compared with the first."""
    ladder: tuple[str, str] | None = None
    """Two systems, the second descending from the first: every technique between them is added in turn."""
    seeds: tuple[int, ...] = (1, 2, 3)
    """Seeds of every group of runs."""
    data: Path | None = None
    """Folder made by fairway data build or fetch; the same for all runs."""
    out: Path = Path("runs") / "ablation"
    """Folder of the ablation; every run has a folder in it."""
    proxy: bool = True
    """Run every recipe at laptop size."""
    also: tuple[PassName, ...] = ()
    """Passes to run besides each recipe's own, such as tilted; the result stays the recipe's own last pass."""
    changes: Annotated[tuple[str, ...], tyro.conf.arg(name="set", metavar="SETTING=VALUE ...")] = ()
    """Settings that hold for all runs, such as train.budget=200 or score.passes=float,plain."""
    json: Switch = False
    """Print one JSON document at the end instead of a line after each run."""


def ablate(argv: Sequence[str]) -> int:
    """Make the runs of an ablation; 130 when interrupted."""
    arguments = parse(AblateArguments, argv, "ablate")
    systems = [recipe(name) for name in arguments.systems]
    steps = ladder(*arguments.ladder) if arguments.ladder else []
    if arguments.proxy:
        systems = [proxy(item) for item in systems]
        steps = [Step(proxy(step.recipe), step.technique) for step in steps]
    first = next(iter([*systems, *(step.recipe for step in steps)]), None)
    if first is None:
        raise RecipeError("fairway ablate needs recipes: --systems NAME NAME..., --ladder OLD NEW, or both")
    if arguments.data is None:
        raise DataError("fairway ablate needs --data DIR, one folder for all runs; make it with fairway data build")
    from fairway.ablation import make_plan, open_folder, parse_changes, perform
    from fairway.data.dataset import Dataset

    dataset = Dataset.open(arguments.data)
    plan = make_plan(
        systems,
        steps,
        seeds=arguments.seeds,
        changes=parse_changes(arguments.changes, first),
        data_fingerprint=dataset.fingerprint,
        also=arguments.also,
    )
    for group in plan.groups:
        dataset.check_vocabulary(group.recipe.model.vocab_size)
    plan = open_folder(plan, arguments.out)
    made: list[Progress] = []

    def say(progress: "Progress") -> None:
        made.append(progress)
        if not arguments.json:
            # At once, for the next run may take minutes.
            print(_line(progress), flush=True)

    left = perform(plan, data=arguments.data, out=arguments.out, say=say)
    document = {
        "out": str(arguments.out),
        "runs": [
            {"run": item.run, "bits_per_byte": item.bits_per_byte, "seconds": item.seconds, "trained_by": item.trainer}
            for item in made
        ],
        "left_to_other_processes": left,
    }
    waiting = f"; {left} runs were left to other processes" if left else ""
    emit(document, f"fairway compare {arguments.out} shows what the techniques are worth{waiting}", as_json=arguments.json)
    return 0


def _line(progress: "Progress") -> str:
    """One run in one line: how many are done, its score by pass, its time, and the rest."""
    scores = ", ".join(f"{name} {bits:.4f}" for name, bits in progress.bits_per_byte.items())
    seconds = "was there" if progress.seconds is None else f"{progress.seconds:.0f} s"
    weights = f", weights of {progress.trainer}" if progress.trainer else ""
    left = progress.total - progress.done
    rest = f"; about {_span(progress.rest)} left" if left and progress.rest is not None else ""
    return f"{progress.done} of {progress.total}  {progress.run}: {scores} bpb; {seconds}{weights}{rest}"


def _span(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"

"""``report.html``: one file that opens offline, reads without a script, and follows the reader's light or dark scheme."""

import base64
import json
from dataclasses import dataclass
from pathlib import Path

import fairway
from fairway.base.errors import FairwayError, RecipeError
from fairway.base.files import write_bytes, write_text
from fairway.base.log import logger
from fairway.base.values import leaves, to_dict
from fairway.config import Recipe
from fairway.recipes import recipe as known_recipe
from fairway.report import look
from fairway.report.budgets import Budget, budgets
from fairway.report.claimable import why_not_claimable
from fairway.report.figures import PLOT_NAMES, Drawing, all_plots, render, require_matplotlib
from fairway.report.load import load_run
from fairway.report.plots_score import ladder_finding
from fairway.report.plots_size import by_group
from fairway.report.records import RunData, TensorRecord
from fairway.report.templates import open_template

REPORT = "report.html"
TEMPLATE = "page.html.jinja"


@dataclass(frozen=True)
class Picture:
    """A plot as the page shows it."""

    title: str
    caption: str
    address: str
    """Data URI of its PNG."""
    width: int
    height: int


@dataclass(frozen=True)
class Setting:
    """One setting that differs from the default."""

    path: str
    value: str
    default: str
    doc: str
    by_hand: bool
    """Whether it differs from the recipe of that name too."""


@dataclass(frozen=True)
class Group:
    """Totals of one class of tensors."""

    name: str
    tensors: int
    weights: int
    bytes: int
    bits: float
    """Stored bits per weight."""


def write_report(run: Path) -> Path:
    """Write ``report.html`` and its PNG plots into a run folder; returns the path of the page.

    Every file is whole or absent. A plot that the folder no longer supports is removed, so no picture outlives its data.

    Raises:
        DataError: the folder is not a run, or a file in it is malformed; nothing is written.
        MachineError: matplotlib or jinja2 is not installed, or the folder cannot be written.
    """
    run = Path(run)
    require_matplotlib()
    template = open_template(TEMPLATE)
    data = load_run(run)
    pictures: dict[str, list[Picture]] = {"score": [], "budgets": [], "training": [], "tensors": []}
    files: dict[str, bytes] = {}
    for plot in all_plots(data):
        drawing = render(plot)
        files[plot.name] = drawing.png
        pictures[plot.section].append(_picture(drawing, plot.caption))
    page = template.render(**_content(data, pictures))
    for name, png in files.items():
        write_bytes(run / f"{name}.png", png)
    for name in PLOT_NAMES:
        if name not in files:
            (run / f"{name}.png").unlink(missing_ok=True)
    write_text(run / REPORT, page)
    return run / REPORT


def refresh_report(run: Path) -> None:
    """Write the page anew where the folder has one, so that it lacks nothing that the folder holds.

    Whatever prevents that is logged and not raised: it says nothing about the work whose outcome was to be shown.
    """
    page = Path(run) / REPORT
    if not page.exists():
        return
    try:
        write_report(run)
    except FairwayError as error:
        logger.warning(f"{page} is as it was, without the newest outcome: {error}")
    else:
        logger.info(f"{page} is written anew")


def _picture(drawing: Drawing, caption: str) -> Picture:
    address = f"data:image/png;base64,{base64.b64encode(drawing.png).decode('ascii')}"
    return Picture(drawing.title, caption, address, *drawing.pixels)


def _content(data: RunData, pictures: dict[str, list[Picture]]) -> dict[str, object]:
    """Every value that the template names."""
    limits = budgets(data)
    return {
        "data": data,
        "recipe": data.recipe,
        "score": data.score,
        "metrics": data.metrics,
        "pictures": pictures,
        "budgets": limits,
        "size": _named(limits, "Size"),
        "training": _named(limits, "Training"),
        "unclaimable": _unclaimable(data),
        "finding": ladder_finding(data.score) if data.score is not None else "",
        "meaning": look.PASS_MEANING,
        "asked": look.CONDITION_MEANING,
        "signs": look.VERDICT_SIGN,
        "colours": look.COLOURS,
        "groups": _groups(data.tensors or ()),
        "settings": _settings(data.recipe),
        "recipe_json": json.dumps(to_dict(data.recipe), indent=2),
        "facts": _facts(data),
        "version": fairway.__version__,
    }


def _unclaimable(data: RunData) -> str:
    score = data.score
    if score is None:
        return ""
    return why_not_claimable(score.mode, score.passes[-1].name, score.tokens, score.settings or data.recipe.score)


def _named(limits: tuple[Budget, ...], name: str) -> Budget | None:
    return next((budget for budget in limits if budget.name == name), None)


def _groups(tensors: tuple[TensorRecord, ...]) -> list[Group]:
    found = []
    for name, records in by_group(tensors).items():
        weights, size = sum(record.weights for record in records), sum(record.bytes for record in records)
        found.append(Group(name, len(records), weights, size, 8 * size / weights if weights else 0.0))
    return found


def _settings(recipe: Recipe) -> list[Setting]:
    """Settings that differ from the defaults of the configuration, or from the recipe of the same name."""
    defaults = Recipe(name=recipe.name, summary=recipe.summary)
    try:
        named = known_recipe(recipe.name)
    except RecipeError:
        named = recipe
    found = []
    for default, own, used in zip(leaves(defaults), leaves(named), leaves(recipe), strict=True):
        by_hand = used.value != own.value and used.path != "summary"
        if by_hand or used.value != default.value:
            found.append(Setting(used.path, _shown(used.value), _shown(default.value), used.doc, by_hand))
    return found


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(str(item) for item in value)
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _facts(data: RunData) -> list[tuple[str, str]]:
    """Name and value of what the run was made of and ran on."""
    facts: list[tuple[str, str]] = []
    environment = dict(data.environment or {})
    versions = environment.pop("versions", {})
    for name, value in environment.items():
        facts.append((name.replace("_", " "), value if isinstance(value, str) else json.dumps(value)))
    if isinstance(versions, dict):
        facts.extend(
            (f"{name} version", value if isinstance(value, str) else json.dumps(value)) for name, value in versions.items()
        )
    if data.score is not None:
        facts.append(("data fingerprint", data.score.data_fingerprint))
        facts.append(("predictor", data.score.predictor))
    facts.append(("seed", str(data.recipe.seed)))
    return facts

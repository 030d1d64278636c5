"""``fairway recipe`` and ``fairway model``."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import tyro

from fairway.base.errors import FairwayError
from fairway.base.values import difference, leaves, suggest, to_dict
from fairway.cli.parse import Switch, emit, named_recipe, parse, table
from fairway.config import Recipe
from fairway.recipes import PROXY_PREFIX, RECIPES, Technique, lineage
from fairway.recipes import recipe as find_recipe

ACTIONS = ("list", "show", "diff")


@dataclass(frozen=True, kw_only=True)
class RecipeArguments:
    """fairway recipe list | show NAME | diff A B."""

    action: Annotated[str, tyro.conf.Positional]
    """list, show or diff."""
    names: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """Names of recipes."""
    json: Switch = False
    """Print one JSON document instead of a table."""


def recipe(argv: Sequence[str]) -> int:
    """List, show or compare recipes."""
    arguments = parse(RecipeArguments, argv, "recipe")
    count = {"list": 0, "show": 1, "diff": 2}.get(arguments.action)
    if count is None:
        raise FairwayError(
            f"fairway recipe has no action {arguments.action!r}; use list, show or diff{suggest(arguments.action, ACTIONS)}"
        )
    if len(arguments.names) != count:
        raise FairwayError(f"fairway recipe {arguments.action} takes {count} names of recipes, not {len(arguments.names)}")
    found = [find_recipe(name) for name in arguments.names]
    document, text = {"list": _list, "show": _show, "diff": _diff}[arguments.action](*found)
    emit(document, text, as_json=arguments.json)
    return 0


def _list() -> tuple[Any, str]:
    built = [build() for build in RECIPES.values()]
    document = [{"name": item.name, "summary": item.summary, "data_variant": item.data_variant} for item in built]
    return document, table([(item.name, item.summary) for item in built], ("recipe", "what it is"))


def _show(shown: Recipe) -> tuple[Any, str]:
    rows = [(leaf.path, _value(leaf.value), leaf.doc) for leaf in leaves(shown)]
    return to_dict(shown), table(rows, ("setting", "value", "meaning and source"))


def _diff(old: Recipe, new: Recipe) -> tuple[Any, str]:
    """The techniques that separate two recipes, each with its settings; then the settings that belong to none."""
    pairs = {
        before.path: (before.value, after.value, after.doc)
        for before, after in difference(old, new)
        if before.path not in ("name", "summary")
    }
    document: list[dict[str, Any]] = []
    parts = []
    for technique, sign in _techniques(old, new):
        paths = [path for path in pairs if _touches(technique, path)]
        settings = {path: pairs.pop(path) for path in paths}
        if settings:
            title, why = f"{sign} {technique.title}", technique.why
            document.append({"technique": technique.name, "title": title, "why": why, "source": technique.source})
            document[-1]["settings"] = [_setting(old, new, path, item) for path, item in settings.items()]
            lines = [f"    {path}: {_value(was)} -> {_value(now)}" for path, (was, now, _) in settings.items()]
            parts.append("\n".join([f"{title} ({technique.source})", f"    {why}", *lines]))
    if pairs:
        document.extend(_setting(old, new, path, item) for path, item in pairs.items())
        rows = [(path, _value(was), _value(now), doc) for path, (was, now, doc) in pairs.items()]
        parts.append(table(rows, ("setting", old.name, new.name, "meaning and source")))
    return document, "\n\n".join(parts) or f"{old.name} and {new.name} have the same settings"


def _techniques(old: Recipe, new: Recipe) -> list[tuple[Technique, str]]:
    """Techniques of ``new`` that ``old`` lacks (+), then those of ``old`` that ``new`` lacks (-)."""
    ours, theirs = (lineage(item.name.removeprefix(PROXY_PREFIX)) for item in (old, new))
    added = [(technique, "+") for technique in theirs if technique not in ours]
    return added + [(technique, "-") for technique in ours if technique not in theirs]


def _touches(technique: Technique, path: str) -> bool:
    return any(path == changed or path.startswith(f"{changed}.") for changed in technique.changes)


def _setting(old: Recipe, new: Recipe, path: str, item: tuple[Any, Any, str]) -> dict[str, Any]:
    was, now, doc = item
    return {"setting": path, old.name: was, new.name: now, "doc": doc}


def _value(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def model(argv: Sequence[str]) -> int:
    """Show a recipe's network without allocating it."""
    base, rest = named_recipe(argv, "model")

    @dataclass(frozen=True, kw_only=True)
    class Arguments:
        json: Switch = False
        """Print one JSON document instead of a table."""
        recipe: Annotated[Recipe, tyro.conf.arg(name="")] = field(default_factory=lambda: base)

    arguments = parse(Arguments, rest, f"model {base.name}")
    from fairway.model.summary import summarize

    summary = summarize(arguments.recipe)
    parts = [
        (part.name, "x".join(map(str, part.shape)) or "scalar", part.count, part.parameters, part.bits, part.bytes)
        for part in summary.parts
    ]
    costs = [
        (
            name,
            cost.applications,
            *(f"{flops / 1e6:,.1f}" for flops in (cost.training_flops, cost.scoring_flops, cost.sliding_flops)),
        )
        for name, cost in (("plain", summary.plain), ("looped", summary.looped))
    ]
    text = [
        table(parts, ("part", "shape", "count", "parameters", "bits", "bytes")),
        "",
        table(costs, ("depth", "blocks", "training MFLOP/token", "scoring MFLOP/token", "sliding MFLOP/target")),
        "",
        f"{summary.parameters:,} parameters, {summary.matrix_parameters:,} of them in matrices; "
        f"{summary.planned_bytes:,} bytes planned before entropy coding",
    ]
    emit(summary.to_dict(), "\n".join(text), as_json=arguments.json)
    return 0

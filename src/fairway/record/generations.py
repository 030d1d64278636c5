"""A recipe told as its ancestors, oldest first, each with what separates it from its parent: techniques, and settings."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fairway.base.errors import RecipeError
from fairway.base.values import difference
from fairway.config import Recipe
from fairway.recipes import PROXY_PREFIX, Technique
from fairway.recipes import recipe as named_recipe
from fairway.recipes.lineage import SYSTEMS

LOCAL_PARENTS = {"tiny": "pr1413", "small": "tiny"}
"""Recipes that are told from another one by plain settings."""
NOT_SETTINGS = ("name", "summary", "seed")
"""Leaves of a recipe that name a run and do not change what it does."""


@dataclass(frozen=True)
class Change:
    """One setting that changed."""

    path: str
    was: Any
    now: Any


@dataclass(frozen=True)
class Told:
    """A technique with the settings that it changed."""

    technique: Technique
    changes: tuple[Change, ...]


@dataclass(frozen=True)
class Generation:
    """One ancestor."""

    name: str
    summary: str
    parent: str | None
    """None for the root."""
    techniques: tuple[Told, ...]
    settings: tuple[Change, ...]
    """Changes that belong to no technique."""


def generations(recipe: Recipe) -> list[Generation]:
    """The ancestors of ``recipe``, oldest first, and as the last one what was set by hand, where anything was."""
    base = base_of(recipe)
    found = []
    name: str | None = base.name
    while name is not None:
        current, parent = named_recipe(name), parent_of(name)
        found.append(_generation(current, parent))
        name = parent
    by_hand = changes_between(base, recipe)
    if by_hand:
        found.insert(0, Generation(f"this run of {base.name}", "settings given by hand", base.name, (), by_hand))
    return found[::-1]


def base_of(recipe: Recipe) -> Recipe:
    """The recipe of this package that a run's recipe was made from, by its name; ``NAME+TECHNIQUE`` was made from ``NAME``."""
    name = recipe.name.partition("+")[0]
    try:
        return named_recipe(name)
    except RecipeError:
        return named_recipe("pr1394")


def parent_of(name: str) -> str | None:
    """Name of the recipe that ``name`` is told from."""
    if name.startswith(PROXY_PREFIX):
        return name.removeprefix(PROXY_PREFIX)
    return SYSTEMS[name].parent if name in SYSTEMS else LOCAL_PARENTS.get(name)


def _generation(recipe: Recipe, parent: str | None) -> Generation:
    if parent is None:
        return Generation(recipe.name, recipe.summary, None, (), ())
    left = {change.path: change for change in changes_between(named_recipe(parent), recipe)}
    told = []
    for technique in SYSTEMS[recipe.name].techniques if recipe.name in SYSTEMS else ():
        paths = [path for path in left if _touches(technique.changes, path)]
        told.append(Told(technique, tuple(left.pop(path) for path in paths)))
    return Generation(recipe.name, recipe.summary, parent, tuple(told), tuple(left.values()))


def changes_between(old: Recipe, new: Recipe) -> tuple[Change, ...]:
    """Settings that differ, the run's name and seed left out."""
    return tuple(Change(now.path, was.value, now.value) for was, now in difference(old, new) if now.path not in NOT_SETTINGS)


def _touches(changes: Mapping[str, Any], path: str) -> bool:
    return any(path == changed or path.startswith(f"{changed}.") for changed in changes)


def flags(recipe: Recipe) -> list[str]:
    """Command-line words that turn the named recipe into ``recipe``: ``--model.layers 6``, ``--model.no-skip-gates``."""
    words = []
    for change in changes_between(base_of(recipe), recipe):
        *parents, last = change.path.replace("_", "-").split(".")
        name = ".".join([*parents, f"no-{last}" if change.now is False else last])
        words.append(f"--{name}")
        if isinstance(change.now, tuple):
            words += map(str, change.now)
        elif not isinstance(change.now, bool):
            words.append(str(change.now))
    return words

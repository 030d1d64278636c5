"""Recipes by name. A published system is its parent with named techniques. Imports no torch."""

from collections.abc import Callable
from functools import partial

from fairway.base.errors import RecipeError
from fairway.base.values import suggest
from fairway.config import Recipe
from fairway.recipes.lineage import SYSTEMS, baseline, pr1394
from fairway.recipes.local import small, tiny
from fairway.recipes.scaled import proxy
from fairway.recipes.technique import Step, System, Technique, climb


def system(name: str) -> Recipe:
    """A published system that is told as a difference."""
    found = SYSTEMS[name]
    return found.build(name, RECIPES[found.parent]())


RECIPES: dict[str, Callable[[], Recipe]] = {
    "baseline": baseline,
    "pr1394": pr1394,
    **{name: partial(system, name) for name in SYSTEMS},
    "tiny": lambda: tiny(system("pr1413")),
    "small": lambda: small(system("pr1413")),
}

PROXY_PREFIX = "proxy-"


def recipe(name: str) -> Recipe:
    """The recipe called ``name``; ``proxy-NAME`` is NAME at laptop size.

    Raises:
        RecipeError: no recipe has this name.
    """
    base = name.removeprefix(PROXY_PREFIX)
    if base not in RECIPES:
        known = [*RECIPES, *(PROXY_PREFIX + full for full in RECIPES)]
        raise RecipeError(
            f"no recipe is called {name!r}; known are {', '.join(RECIPES)} and {PROXY_PREFIX}NAME{suggest(name, known)}"
        )
    built = RECIPES[base]()
    return proxy(built) if name != base else built


def lineage(name: str) -> list[Technique]:
    """All techniques of a system, its ancestors' first; none for a recipe that is no system."""
    if name not in SYSTEMS:
        return []
    return [*lineage(SYSTEMS[name].parent), *SYSTEMS[name].techniques]


def ladder(old: str, new: str) -> list[Step]:
    """From the system ``old`` to its descendant ``new``, one technique at a time; the last step has the settings of ``new``.

    Raises:
        RecipeError: a name is unknown, or ``new`` does not descend from ``old``.
    """
    start, end = recipe(old), recipe(new)
    techniques: list[Technique] = []
    while end.name != old:
        if end.name not in SYSTEMS:
            raise RecipeError(f"{new} does not descend from {old}; a ladder goes from a system to one that is told from it")
        techniques = [*SYSTEMS[end.name].techniques, *techniques]
        end = recipe(SYSTEMS[end.name].parent)
    return climb(start, techniques)


__all__ = [
    "PROXY_PREFIX",
    "RECIPES",
    "Step",
    "System",
    "Technique",
    "ladder",
    "lineage",
    "proxy",
    "recipe",
]

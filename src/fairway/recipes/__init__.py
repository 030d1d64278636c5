"""Recipes by name. Each is one function; a child is its parent with named differences. Imports no torch."""

from collections.abc import Callable

from fairway.base.errors import RecipeError
from fairway.base.values import suggest
from fairway.config import Recipe
from fairway.recipes.lineage import baseline, pr1394, pr1413
from fairway.recipes.local import small, tiny
from fairway.recipes.scaled import proxy

RECIPES: dict[str, Callable[[], Recipe]] = {
    "tiny": tiny,
    "small": small,
    "baseline": baseline,
    "pr1394": pr1394,
    "pr1413": pr1413,
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


__all__ = ["PROXY_PREFIX", "RECIPES", "proxy", "recipe"]

"""A recipe as its parent and the techniques that separate them; the same list is its description and its ablation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fairway.base.values import with_fields
from fairway.config import Recipe


@dataclass(frozen=True, kw_only=True)
class Technique:
    """One idea: the settings it changes together, and why."""

    name: str
    """Short name for folders and tables, words joined by hyphens."""
    title: str
    """What it is, in the field's words."""
    why: str
    """What it is for, in one line."""
    source: str
    """Pull request or paper."""
    changes: Mapping[str, Any]
    """New values by dotted setting, such as ``{"model.query_gain": 5.0}``."""

    def apply(self, recipe: Recipe) -> Recipe:
        """``recipe`` with this technique and an unchanged name."""
        return with_fields(recipe, dict(self.changes))


@dataclass(frozen=True, kw_only=True)
class System:
    """A published system as a difference."""

    summary: str
    """What it is and what it scored, in one line."""
    parent: str
    """Name of the recipe that it changes."""
    techniques: tuple[Technique, ...]
    """The changes, in an order in which each is a working recipe."""

    def build(self, name: str, parent: Recipe) -> Recipe:
        """The recipe called ``name``: all techniques at once, so that only the end result is checked."""
        changes = {path: value for technique in self.techniques for path, value in technique.changes.items()}
        return replace(with_fields(parent, changes), name=name, summary=self.summary)


@dataclass(frozen=True)
class Step:
    """One recipe of a ladder, and the technique that separates it from the one before."""

    recipe: Recipe
    technique: Technique | None
    """None for the first."""


def climb(start: Recipe, techniques: Sequence[Technique]) -> list[Step]:
    """``start`` and, for each technique, the recipe with it and all before it.

    Recipes are called ``START+TECHNIQUE``, after the last technique that came in.
    """
    steps = [Step(start, None)]
    for technique in techniques:
        recipe = technique.apply(steps[-1].recipe)
        named = replace(recipe, name=f"{start.name}+{technique.name}", summary=f"up to: {technique.title}")
        steps.append(Step(named, technique))
    return steps

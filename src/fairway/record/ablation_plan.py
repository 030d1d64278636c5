"""``ablation.json``: which recipes an ablation compares, what separates each from the one before, and with which seeds."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fairway.base.errors import DataError, RecipeError
from fairway.base.fields import REMEDY, Fields, objects
from fairway.base.files import read_json
from fairway.base.values import Value, difference, from_dict, to_dict
from fairway.config import Recipe
from fairway.recipes import Technique

PLAN = "ablation.json"
TRAINER = "trained_by.json"
"""In a run folder whose weights another run of the ablation trained: the name of that run, and the hash of the weights."""


@dataclass(frozen=True)
class Group:
    """Runs of one recipe that differ in their seed alone."""

    recipe: Recipe
    """Its name is the group's; its seed is replaced for every run."""
    trainer: str
    """The group that trains its weights: itself, or an earlier one that differs in nothing that training sees."""

    @property
    def name(self) -> str:
        """The recipe's name."""
        return self.recipe.name

    def at(self, seed: int) -> Recipe:
        """The recipe of one run."""
        return replace(self.recipe, seed=seed)


@dataclass(frozen=True)
class Rung:
    """One step of a ladder."""

    group: str
    technique: Technique | None
    """What separates it from the step before; None for the first."""


@dataclass(frozen=True)
class Plan:
    """A whole ablation: systems side by side, and a ladder of techniques from one of them to another."""

    groups: tuple[Group, ...]
    """Every recipe once, in the order in which its runs are made."""
    systems: tuple[str, ...]
    """Groups that are compared with the first of them."""
    ladder: tuple[Rung, ...]
    seeds: tuple[int, ...]
    data_fingerprint: str

    def group(self, name: str) -> Group:
        """The group called ``name``."""
        return next(group for group in self.groups if group.name == name)

    def to_dict(self) -> dict[str, Any]:
        """The plan as ``ablation.json`` holds it."""
        return {
            "seeds": list(self.seeds),
            "data_fingerprint": self.data_fingerprint,
            "systems": list(self.systems),
            "ladder": [{"group": rung.group, "technique": technique_document(rung.technique)} for rung in self.ladder],
            "groups": [
                {
                    "name": group.name,
                    "settings": settings_digest(to_dict(group.recipe)),
                    "trained_by": group.trainer,
                    "recipe": to_dict(group.recipe),
                }
                for group in self.groups
            ],
        }


def run_folder(root: Path, group: str, seed: int) -> Path:
    """The folder of one run."""
    return root / f"{group}-{seed}"


def settings_digest(recipe: Mapping[str, Any]) -> str:
    """SHA-256 of everything that a recipe, given as JSON holds it, does: all but its name, its summary and its seed."""
    settings = {name: value for name, value in recipe.items() if name not in ("name", "summary", "seed")}
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def first_difference(then: Recipe, now: Recipe) -> str | None:
    """The first setting in which two recipes differ, with both values; summary, seed and machine are left out."""
    for old, new in difference(then, now):
        if not new.path.startswith(("summary", "seed", "machine.")):
            return f"{new.path}={new.value!r} (was {old.value!r})"
    return None


def technique_document(technique: Technique | None) -> dict[str, Any] | None:
    """A technique as JSON holds it."""
    if technique is None:
        return None
    changes = {path: to_dict(value) if isinstance(value, Value) else value for path, value in technique.changes.items()}
    return {
        "name": technique.name,
        "title": technique.title,
        "why": technique.why,
        "source": technique.source,
        "changes": changes,
    }


def read_plan(root: Path) -> Plan:
    """Read the plan of an ablation's folder.

    Raises:
        DataError: there is none, or it is damaged, was edited, or is of another version.
    """
    where = str(root / PLAN)
    content = Fields(read_json(root / PLAN), where)
    groups = tuple(_group(item) for item in objects(content.content.get("groups"), f"{where}: field 'groups'"))
    ladder = tuple(_rung(item) for item in objects(content.content.get("ladder"), f"{where}: field 'ladder'"))
    systems, seeds = (content.content.get(name) for name in ("systems", "seeds"))
    if not isinstance(seeds, list) or not seeds or not all(type(seed) is int for seed in seeds):
        raise content.refuse("seeds", "a list of whole numbers")
    known = {group.name for group in groups}
    if not isinstance(systems, list) or not known.issuperset((*systems, *(rung.group for rung in ladder))):
        raise DataError(f"{where}: systems and ladder must name groups of the same file; {REMEDY}")
    return Plan(groups, tuple(systems), ladder, tuple(seeds), content.text("data_fingerprint"))


def _group(content: Fields) -> Group:
    settings = content.part("recipe").content
    try:
        recipe = from_dict(Recipe, settings)
    except RecipeError as error:
        raise DataError(f"{content.where}: {error}; it is damaged or of another version, make the ablation again") from None
    if settings_digest(settings) != content.text("settings"):
        raise DataError(f"{content.where}: the settings of {recipe.name} are not those of their hash; {REMEDY}, never edit it")
    return Group(recipe, content.text("trained_by"))


def _rung(content: Fields) -> Rung:
    group = content.text("group")
    if content.content.get("technique") is None:
        return Rung(group, None)
    item = content.part("technique")
    name, title, why, source = (item.text(key) for key in ("name", "title", "why", "source"))
    return Rung(group, Technique(name=name, title=title, why=why, source=source, changes=item.part("changes").content))

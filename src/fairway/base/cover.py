"""Exact cover: every name matches exactly one rule. Used for initial values, optimizer groups and quantization schemes."""

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import TypeVar

from fairway.base.errors import RecipeError

T = TypeVar("T")


def exact_cover(names: Iterable[str], rules: Sequence[tuple[str, T]], *, what: str) -> dict[str, T]:
    """Assign to every name the value of the one rule whose pattern matches it.

    Args:
        names: Parameter names, such as ``blocks.3.mlp.up.weight``.
        rules: Pairs of a shell-style pattern and a value; the order carries no meaning.
        what: What is being assigned, for the message ("optimizer group").

    Raises:
        RecipeError: a name matches no rule or several, or a rule matches no name.
    """
    assigned: dict[str, T] = {}
    used: set[str] = set()
    for name in names:
        matches = [(pattern, value) for pattern, value in rules if fnmatchcase(name, pattern)]
        if len(matches) != 1:
            found = ", ".join(pattern for pattern, _ in matches) or "none"
            raise RecipeError(f"parameter {name} has {len(matches)} rules for its {what} ({found}); it needs exactly one")
        used.add(matches[0][0])
        assigned[name] = matches[0][1]
    idle = [pattern for pattern, _ in rules if pattern not in used]
    if idle:
        raise RecipeError(f"rules for the {what} that match no parameter: {', '.join(idle)}; remove or correct them")
    return assigned

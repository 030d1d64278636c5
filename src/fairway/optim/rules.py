"""Which optimizer a parameter belongs to. The learning rate of a parameter is the one of its group in ``OptimConfig``."""

from collections.abc import Iterable
from typing import Literal

from fairway.model.roles import Role, parameter_roles

Group = Literal["matrices", "embedding", "scalars"]

GROUPS: dict[Role, Group] = {"matrices": "matrices", "embedding": "embedding", "controls": "scalars"}
"""Optimizer group of a role; ``OptimConfig`` has one field per group. PR #1394."""


def parameter_groups(names: Iterable[str]) -> dict[str, Group]:
    """Optimizer group of every parameter, in the given order.

    Args:
        names: Names as in ``model.named_parameters()``.

    Raises:
        RecipeError: a parameter has no rule or several, or a required part of the network is missing.
    """
    return {name: GROUPS[role] for name, role in parameter_roles(names, what="optimizer group").items()}

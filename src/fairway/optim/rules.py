"""Which optimizer a parameter belongs to. The learning rate of a parameter is the one of its group in ``OptimConfig``."""

from collections.abc import Iterable
from typing import Literal

from fairway.base.cover import exact_cover

Group = Literal["matrices", "embedding", "scalars"]

RULES: tuple[tuple[str, Group], ...] = (
    ("embedding.weight", "embedding"),
    ("blocks.*.attention.query.weight", "matrices"),
    ("blocks.*.attention.key.weight", "matrices"),
    ("blocks.*.attention.value.weight", "matrices"),
    ("blocks.*.attention.output.weight", "matrices"),
    ("blocks.*.mlp.up.weight", "matrices"),
    ("blocks.*.mlp.down.weight", "matrices"),
    ("blocks.*.attention.query_gain", "scalars"),
    ("blocks.*.attention_scale", "scalars"),
    ("blocks.*.mlp_scale", "scalars"),
    ("blocks.*.residual_mix", "scalars"),
    ("skips.weight", "scalars"),
    ("skips.gate", "scalars"),
)
"""Name pattern and group; ``OptimConfig`` has one field per group. PR #1394."""

OPTIONAL = ("skips.weight", "skips.gate")
"""Patterns of parts that a network may lack."""


def parameter_groups(names: Iterable[str]) -> dict[str, Group]:
    """Optimizer group of every parameter, in the given order.

    Args:
        names: Names as in ``model.named_parameters()``.

    Raises:
        RecipeError: a parameter has no rule or several, or a required part of the network is missing.
    """
    names = list(names)
    rules: list[tuple[str, Group]] = [
        (pattern, group) for pattern, group in RULES if pattern not in OPTIONAL or pattern in names
    ]
    return exact_cover(names, rules, what="optimizer group")

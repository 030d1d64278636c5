"""What every parameter is: a matrix of a block, the tied embedding, or a control. Optimizers and quantization follow it."""

from collections.abc import Iterable
from fnmatch import filter as matching
from typing import Literal

from fairway.base.cover import exact_cover

Role = Literal["matrices", "embedding", "controls"]

RULES: tuple[tuple[str, Role], ...] = (
    ("embedding.weight", "embedding"),
    ("blocks.*.attention.query.weight", "matrices"),
    ("blocks.*.attention.key.weight", "matrices"),
    ("blocks.*.attention.value.weight", "matrices"),
    ("blocks.*.attention.output.weight", "matrices"),
    ("blocks.*.mlp.up.weight", "matrices"),
    ("blocks.*.mlp.down.weight", "matrices"),
    ("blocks.*.attention.query_gain", "controls"),
    ("blocks.*.attention_scale", "controls"),
    ("blocks.*.mlp_scale", "controls"),
    ("blocks.*.residual_mix", "controls"),
    ("blocks.*.attention.gate", "controls"),
    ("smear.*", "controls"),
    ("softcaps.*", "controls"),
    ("skips.weight", "controls"),
    ("skips.gate", "controls"),
    ("residual.*", "controls"),
)
"""Name pattern and role. Controls are gains, scales, mixes, gates and lane weights: few, and stored as float16. PR #1394."""

OPTIONAL = ("blocks.*.attention.gate", "smear.*", "softcaps.*", "skips.weight", "skips.gate", "residual.*")
"""Patterns of parts that a network may lack."""


def parameter_roles(names: Iterable[str], *, what: str) -> dict[str, Role]:
    """Role of every parameter, in the given order.

    Args:
        names: Names as in ``model.named_parameters()``.
        what: What the role decides, for the message ("optimizer group").

    Raises:
        RecipeError: a parameter has no rule or several, or a required part of the network is missing.
    """
    names = list(names)
    rules: list[tuple[str, Role]] = [
        (pattern, role) for pattern, role in RULES if pattern not in OPTIONAL or matching(names, pattern)
    ]
    return exact_cover(names, rules, what=what)

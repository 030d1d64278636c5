"""What every parameter is: a matrix of a block, the tied embedding, or a control. Optimizers and quantization follow it."""

from collections.abc import Iterable
from fnmatch import filter as matching
from fnmatch import fnmatchcase
from typing import Literal

from fairway.base.cover import exact_cover

Role = Literal["matrices", "embedding", "controls"]
StorageClass = Literal["attention", "mlp", "embedding", "gates", "controls"]

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


STORAGE: tuple[tuple[str, StorageClass], ...] = (
    ("embedding.weight", "embedding"),
    ("blocks.*.attention.*.weight", "attention"),
    ("blocks.*.mlp.*.weight", "mlp"),
    ("blocks.*.attention.gate", "gates"),
)
"""Name pattern and the setting of ``quant`` that says how a parameter is stored; what no pattern names is a control."""


def storage_class(name: str) -> StorageClass:
    """Class of one parameter, whatever network it belongs to."""
    for pattern, storage in STORAGE:
        if fnmatchcase(name, pattern):
            return storage
    return "controls"


def storage_classes(names: Iterable[str], *, what: str) -> dict[str, StorageClass]:
    """Class of every parameter, in the given order: a finer table than the roles, and checked against them.

    Args:
        names: Names as in ``model.named_parameters()``.
        what: What the class decides, for the message ("quantization scheme").

    Raises:
        RecipeError: as `parameter_roles`.
    """
    roles = parameter_roles(names, what=what)
    classes: dict[str, StorageClass] = {name: storage_class(name) for name in roles}
    allowed = {"matrices": ("attention", "mlp"), "embedding": ("embedding",), "controls": ("gates", "controls")}
    odd = [name for name, role in roles.items() if classes[name] not in allowed[role]]
    assert not odd, f"{odd[0]} is one of the {roles[odd[0]]} but stored as {classes[odd[0]]}"
    return classes

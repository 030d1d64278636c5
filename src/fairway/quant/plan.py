"""Which tensor is stored how: a scheme per parameter, by its role in the network and never by its size."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from fairway.base.cover import exact_cover
from fairway.config import QuantConfig, SchemeConfig

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
    ("skips.weight", "controls"),
    ("skips.gate", "controls"),
)
"""Name pattern and role; ``QuantConfig`` has a field for each role but the controls, which are stored as float16."""

OPTIONAL = ("skips.weight", "skips.gate")
"""Patterns of parts that a network may lack."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How every tensor of a network is stored."""

    roles: Mapping[str, Role]
    """Role of every parameter, in the order of the network."""
    schemes: Mapping[str, SchemeConfig | None]
    """Scheme of every parameter; None stores it as float16."""
    damping: float
    """Share of the mean Hessian diagonal added to the diagonal."""


def make_plan(names: Iterable[str], config: QuantConfig) -> Plan:
    """Give every parameter its scheme, by exact cover.

    Args:
        names: Parameter names, in the order of the network.
        config: Schemes of the matrices and of the embedding.

    Raises:
        RecipeError: a parameter has no rule or several, or a required part of the network is missing.
    """
    names = list(names)
    rules: list[tuple[str, Role]] = [(pattern, role) for pattern, role in RULES if pattern not in OPTIONAL or pattern in names]
    roles = exact_cover(names, rules, what="quantization scheme")
    by_role: dict[Role, SchemeConfig | None] = {"matrices": config.matrices, "embedding": config.embedding, "controls": None}
    return Plan(roles=roles, schemes={name: by_role[role] for name, role in roles.items()}, damping=config.damping)

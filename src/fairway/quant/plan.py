"""Which tensor is stored how: a scheme per parameter, by its role in the network and never by its size."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from fairway.config import QuantConfig, SchemeConfig
from fairway.model.roles import Role, parameter_roles


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
    roles = parameter_roles(names, what="quantization scheme")
    by_role: dict[Role, SchemeConfig | None] = {"matrices": config.matrices, "embedding": config.embedding, "controls": None}
    return Plan(roles=roles, schemes={name: by_role[role] for name, role in roles.items()}, damping=config.damping)

"""Which tensor is stored how: a scheme per parameter, by its role in the network and never by its size."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from fairway.base.errors import RecipeError
from fairway.config import ProtectionConfig, QuantConfig, RepairConfig, SchemeConfig
from fairway.model.roles import Role, StorageClass, parameter_roles, storage_classes


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How every tensor of a network is stored."""

    roles: Mapping[str, Role]
    """Role of every parameter, in the order of the network."""
    schemes: Mapping[str, SchemeConfig | None]
    """Scheme of every parameter; None stores it as float16, or as int8 where it is one of ``gates``."""
    gates: frozenset[str]
    """Parameters that are stored as int8 with the largest magnitude of each row as the end of its grid."""
    protection: ProtectionConfig
    """Columns with more bits, chosen over all matrices."""
    repair: RepairConfig
    """Matrices that get a low-rank correction."""
    damping: float
    """Share of the mean Hessian diagonal added to the diagonal."""
    shared: bool
    """Whether the steps of the matrices stand to each other as is best for the loss, so that one factor on all of them fits a
    size; otherwise each has the steps of its scheme."""


def make_plan(names: Iterable[str], config: QuantConfig) -> Plan:
    """Give every parameter its scheme, by exact cover.

    Args:
        names: Parameter names, in the order of the network.
        config: Schemes of the classes, and what goes beyond them.

    Raises:
        RecipeError: a parameter has no rule or several, a required part of the network is missing, or gates that the network
            lacks shall be stored as int8.
    """
    classes = storage_classes(names, what="quantization scheme")
    by_class: dict[StorageClass, SchemeConfig] = {
        "attention": config.attention,
        "mlp": config.mlp,
        "embedding": config.embedding,
    }
    gates = frozenset(name for name, storage in classes.items() if storage == "gates" and config.gates == "int8")
    if config.gates == "int8" and not gates:
        raise RecipeError("quant.gates=int8, but the network has no attention gates; set quant.gates=float16 or add gates")
    return Plan(
        roles=parameter_roles(classes, what="quantization scheme"),
        schemes={name: by_class.get(storage) for name, storage in classes.items()},
        damping=config.damping,
        shared=config.target_bytes > 0,
        gates=gates,
        protection=config.protection,
        repair=config.repair,
    )

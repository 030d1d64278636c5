"""Initial values by rule: every parameter is matched by exactly one line of the table below."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fairway.base.cover import exact_cover
from fairway.config import ModelConfig
from fairway.model.gpt import GPT
from fairway.model.residual import TOPOLOGIES

Draw = Callable[[torch.Size, torch.Generator], Tensor]


def orthogonal(shape: torch.Size, generator: torch.Generator) -> Float[Tensor, "rows columns"]:
    """Random matrix with orthonormal rows, or orthonormal columns when it has more rows than columns. arXiv 1312.6120."""
    return nn.init.orthogonal_(torch.empty(shape), generator=generator)


def normal(std: float) -> Draw:
    """Independent draws from N(0, std**2)."""
    return lambda shape, generator: torch.randn(shape, generator=generator) * std


def constant(value: float) -> Draw:
    """Every entry equal to ``value``."""
    return lambda shape, generator: torch.full(shape, value)


def residual_mix(shape: torch.Size, generator: torch.Generator) -> Float[Tensor, "2 width"]:
    """Stream 1, first embedding 0: blocks start as plain residual blocks."""
    return torch.tensor([1.0, 0.0])[:, None].expand(shape)


def initial_rules(config: ModelConfig) -> list[tuple[str, Draw]]:
    """Pattern of parameter names and how its initial value is drawn. Source: PR #1394, PR #1413."""
    rules = [
        ("embedding.weight", normal(config.embedding_std)),
        ("blocks.*.attention.query.weight", orthogonal),
        ("blocks.*.attention.key.weight", orthogonal),
        ("blocks.*.attention.value.weight", orthogonal),
        ("blocks.*.attention.output.weight", constant(0.0)),
        ("blocks.*.attention.query_gain", constant(config.query_gain)),
        ("blocks.*.mlp.up.weight", orthogonal),
        ("blocks.*.mlp.down.weight", constant(0.0)),
        ("blocks.*.attention_scale", constant(1.0)),
        ("blocks.*.mlp_scale", constant(1.0)),
        ("blocks.*.residual_mix", residual_mix),
        ("skips.weight", constant(1.0)),
    ]
    if config.skip_gates:
        rules.append(("skips.gate", constant(0.0)))
    if config.gates.attention:
        rules.append(("blocks.*.attention.gate", constant(0.0)))
    if config.gates.smear:
        rules.append(("smear.*", constant(0.0)))
    if config.asymmetric_softcap != "off":
        rules.append(("softcaps.*", constant(config.softcap)))
    topology = TOPOLOGIES[config.residual.topology]
    return [*rules, *((f"residual.{name}", constant(value)) for name, value in topology.initial.items())]


@torch.no_grad()
def initialize(model: GPT, seed: int) -> None:
    """Fill every parameter of ``model`` by rule, from one generator on the CPU; values are rounded to bfloat16 once.

    Blocks start as the identity (output and down projections are zero), so a fresh model predicts each token from the
    token before it alone. Drawing on the CPU makes the values independent of the device.

    Args:
        model: The network; parameters keep their device and dtype.
        seed: Seed of the generator.

    Raises:
        RecipeError: a parameter has no rule or several, or a rule no parameter.
    """
    generator = torch.Generator(device="cpu").manual_seed(seed)
    parameters = dict(model.named_parameters())
    for name, draw in exact_cover(parameters, initial_rules(model.config), what="initial value").items():
        parameter = parameters[name]
        parameter.copy_(draw(parameter.shape, generator).bfloat16())

"""What a recipe's network consists of and costs, without allocating a weight: the content of ``fairway model RECIPE``."""

import dataclasses
import re
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from fairway.config import Recipe
from fairway.model.gpt import GPT
from fairway.model.linear import Linear
from fairway.model.roles import StorageClass, storage_classes

CONTROL_BITS = 16
"""Gains, scales, mixes, skip weights and lane weights are stored as float16; gates where the recipe does not ask for int8."""
SCALE_BYTES = 2
"""Every row of a quantized matrix carries one float16 scale."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """One parameter, or the same parameter of every block."""

    name: str
    """Name in the network; ``*`` stands for the index of the block."""
    shape: tuple[int, ...]
    """Shape of one of them."""
    count: int
    """How many there are."""
    parameters: int
    """Parameters of all of them."""
    bits: int
    """Planned bits per parameter in the artifact, before entropy coding."""
    bytes: int
    """Planned bytes of all of them, row scales included, before entropy coding, protected columns and low-rank repair."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Floating-point operations per token with one schedule of layers."""

    applications: int
    """Block applications of a forward pass."""
    training_flops: int
    """Forward and backward of one training token, at ``train.context``."""
    scoring_flops: int
    """Forward of one token of a full row of ``score.context`` tokens."""
    sliding_flops: int
    """Forward passes behind one scored target of the sliding window: ``context / stride`` tokens each."""


@dataclass(frozen=True, kw_only=True)
class ModelSummary:
    """Parts and costs of a network."""

    recipe: str
    """Name of the recipe."""
    parts: tuple[Part, ...]
    """All parameters, blocks folded together."""
    parameters: int
    """Sum over the parts."""
    matrix_parameters: int
    """Those in the matrices of the blocks."""
    planned_bytes: int
    """Sum over the parts, before entropy coding."""
    plain: Cost
    """Cost while recurrence is off."""
    looped: Cost
    """Cost while recurrence is on: late training and all scoring."""

    def to_dict(self) -> dict[str, Any]:
        """The summary as plain dictionaries, lists and numbers for JSON."""
        values = dataclasses.asdict(self)
        values["parts"] = [{**part, "shape": list(part["shape"])} for part in values["parts"]]
        return values


def summarize(recipe: Recipe) -> ModelSummary:
    """Parts, planned bytes and FLOPs per token of ``recipe``'s network, computed on the meta device.

    FLOPs count matrix products and causal attention: forward ``2 (applications * block matrices + vocab * width)`` plus
    ``2 * context * width`` per application (two products over half the context on average); training is three times that.

    Source: the usual counting of model FLOPs, arXiv 2204.02311, appendix B, with the causal half of attention.
    """
    with torch.device("meta"):
        model = GPT(recipe.model)
    parts = _parts(model, recipe)
    config = recipe.model
    matrices = sum(module.weight.numel() for module in model.modules() if isinstance(module, Linear))

    def cost(recurrent: bool) -> Cost:
        applications = model.schedules[recurrent].applications
        products = applications * (matrices // config.layers) + config.vocab_size * config.width

        def forward(context: int) -> int:
            return 2 * (products + applications * context * config.width)

        scoring = forward(recipe.score.context)
        return Cost(
            applications=applications,
            training_flops=3 * forward(recipe.train.context),
            scoring_flops=scoring,
            sliding_flops=scoring * recipe.score.context // recipe.score.stride,
        )

    return ModelSummary(
        recipe=recipe.name,
        parts=parts,
        parameters=sum(part.parameters for part in parts),
        matrix_parameters=matrices,
        planned_bytes=sum(part.bytes for part in parts),
        plain=cost(recurrent=False),
        looped=cost(recurrent=True),
    )


def _parts(model: GPT, recipe: Recipe) -> tuple[Part, ...]:
    parameters = dict(model.named_parameters())
    quant = recipe.quant
    bits: dict[StorageClass, int] = {
        "attention": quant.attention.bits,
        "mlp": quant.mlp.bits,
        "embedding": quant.embedding.bits,
        "gates": 8 if quant.gates == "int8" else CONTROL_BITS,
        "controls": CONTROL_BITS,
    }
    groups: dict[tuple[str, StorageClass], list[nn.Parameter]] = {}
    for name, storage in storage_classes(parameters, what="planned bits").items():
        groups.setdefault((re.sub(r"^blocks\.\d+\.", "blocks.*.", name), storage), []).append(parameters[name])
    parts = []
    for (name, storage), group in groups.items():
        one, total = group[0], sum(parameter.numel() for parameter in group)
        scales = 0 if bits[storage] == CONTROL_BITS else len(one) * len(group)
        planned = (total * bits[storage] + 7) // 8 + SCALE_BYTES * scales
        parts.append(
            Part(name=name, shape=tuple(one.shape), count=len(group), parameters=total, bits=bits[storage], bytes=planned)
        )
    return tuple(parts)

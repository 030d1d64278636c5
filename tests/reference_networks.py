"""Networks of the stored systems: the settings that lie beside their data, as our configuration, and their weights."""

from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor

from fairway.config import GateConfig, ModelConfig, RecurrenceConfig, ResidualConfig
from fairway.model.gpt import GPT
from reference_names import to_fairway

TOPOLOGIES = {
    "1413": "sequential",
    "1533": "decoupled_lanes",
    "1557": "routed_lanes",
    "1776": "single_stream",
    "2140": "routed_lanes",
}
"""Residual topology of each PR; the stored settings only say from which layer on."""


def stored_network(pr: str, settings: Mapping[str, float], state: dict[str, Tensor]) -> GPT:
    """A network of the stored settings with the stored weights.

    Args:
        pr: Number of the system.
        settings: Names and values as the data has them.
        state: Tensors under the names of the reference; its rotary frequencies are ours to the last bit and left out.
    """
    whole = {name: int(value) for name, value in settings.items()}
    residual = ResidualConfig()
    if whole["parallel_start"] >= 0:
        residual = ResidualConfig(topology=TOPOLOGIES[pr], parallel_from=whole["parallel_start"])
    config = ModelConfig(
        vocab_size=whole["vocab_size"],
        layers=whole["layers"],
        width=whole["width"],
        query_heads=whole["heads"],
        kv_heads=whole["kv_heads"],
        mlp_hidden=whole["width"] * whole["mlp_multiplier"],
        rotary_channels=whole["rotary_dims"],
        exclusive_attention_layers=whole["layers"],
        softcap=settings["softcap"],
        recurrence=RecurrenceConfig(first=whole["loop_start"], last=whole["loop_end"], extra_passes=whole["extra_passes"]),
        residual=residual,
    )
    if pr == "2140":
        config = _with_later_parts(config, settings)
    model = GPT(config)
    weights = {name: tensor for name, tensor in state.items() if name != "rope_inv_freq"}
    model.load_state_dict(to_fairway(weights, config.layers))
    return model


def _with_later_parts(config: ModelConfig, settings: Mapping[str, float]) -> ModelConfig:
    """What PR #2140 has and its forerunners have not."""
    return replace(
        config,
        activation_slope=settings["mlp_slope"],
        asymmetric_softcap="fixed",
        residual=replace(config.residual, opening_skip="attention_lane"),
        gates=GateConfig(
            attention=True, smear=True, window=int(settings["gate_window"]), attention_scale=settings["gate_scale"]
        ),
    )

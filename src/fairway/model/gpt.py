"""The network: tied embedding, a U-Net of transformer blocks walked by a schedule, softcapped head."""

from functools import partial
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from fairway.config import ModelConfig
from fairway.model.block import Block
from fairway.model.head import capped_logits, cross_entropy
from fairway.model.norm import rms_norm
from fairway.model.residual import TOPOLOGIES, Lanes, Step
from fairway.model.rotary import RotaryTables, Rotation
from fairway.model.schedule import layer_schedule
from fairway.model.skips import Skips


class GPT(nn.Module):
    """A decoder-only language model; every technique in it is a part chosen by ``config``.

    Parameters are zero until ``fairway.model.initial.initialize`` or a checkpoint fills them.

    Args:
        config: The network.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.compute_dtype = torch.float32
        """Dtype of activations; parameters are cast to it at use."""
        self.embedding = nn.Embedding(config.vocab_size, config.width, _weight=torch.zeros(config.vocab_size, config.width))
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.layers))
        self.skips = Skips(config)
        self.residual = TOPOLOGIES[config.residual.topology](config)
        self.rotary = RotaryTables(config.rotary_channels, config.rotary_base, bfloat16=config.rotary_bfloat16)
        self.schedules = {on: layer_schedule(config.layers, config.recurrence, recurrent=on) for on in (False, True)}

    def forward(
        self, ids: Int[Tensor, "batch time"], targets: Int[Tensor, "batch time"], *, recurrent: bool
    ) -> Float[Tensor, ""]:
        """Mean loss in nats per token over all positions.

        Args:
            ids: Token ids, one row per sequence.
            targets: The token after each position of ``ids``.
            recurrent: Whether the extra passes of depth recurrence run.
        """
        hidden = self.hidden(ids, recurrent=recurrent)
        return cross_entropy(hidden.flatten(0, 1), self.embedding.weight, targets.flatten(), self.config.softcap)

    def hidden(self, ids: Int[Tensor, "batch time"], *, recurrent: bool) -> Float[Tensor, "batch time width"]:
        """Normalised output of the last layer; position t depends on ``ids[:, :t+1]`` only."""
        schedule, rotation = self.schedules[recurrent], self.rotation(ids)
        first = rms_norm(nn.functional.embedding(ids, self.embedding.weight).to(self.compute_dtype))
        lanes: Lanes = (first,)
        kept = []
        for layer in schedule.encoder:
            lanes = self.residual.step(self.block(layer), lanes, Step(first, rotation))
            kept.append(lanes[0])
        for slot, layer in enumerate(schedule.decoder):
            step = Step(first, rotation)
            if kept:
                step = Step(first, rotation, partial(self.skips, skip=kept.pop(), slot=slot))
            lanes = self.residual.step(self.block(layer), lanes, step)
        return rms_norm(self.residual.merge(lanes))

    def use_attention(self, backend: str) -> None:
        """Let every layer attend by the back end that ``machine.attention`` names; a new network has ``auto``."""
        for layer in range(self.config.layers):
            self.block(layer).attention.backend = backend

    def block(self, layer: int) -> Block:
        """The layer with physical index ``layer``."""
        return cast("Block", self.blocks[layer])

    def logits(self, hidden: Float[Tensor, "... width"]) -> Float[Tensor, "... vocab"]:
        """Softcapped logits of ``hidden`` rows, float32 (float64 for float64 rows)."""
        return capped_logits(hidden, self.embedding.weight, self.config.softcap)

    def rotation(self, ids: Int[Tensor, "batch time"]) -> Rotation:
        """Rotary tables for the positions of ``ids``, in the dtype of the activations."""
        cos, sin = self.rotary.rows(ids.shape[1], ids.device, self.compute_dtype)
        return Rotation(cos.to(self.compute_dtype), sin.to(self.compute_dtype))

"""The network: tied embedding, a U-Net of transformer blocks walked by a schedule, softcapped head."""

from collections.abc import Sequence
from functools import partial
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from fairway.config import ModelConfig
from fairway.kernels.attention import Segments
from fairway.model.block import Block
from fairway.model.gates import SmearGate
from fairway.model.head import Caps, Softcaps, cross_entropy, raw_logits, wide_softcap
from fairway.model.norm import rms_norm
from fairway.model.residual import TOPOLOGIES, Lanes
from fairway.model.rotary import RotaryTables, Rotation
from fairway.model.schedule import layer_schedule
from fairway.model.skips import Skips
from fairway.model.step import Adapt, Step, unchanged


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
        self.fused_loss = False
        """Whether the training loss takes the fused kernel; `use_fused_kernels` sets it."""
        self.embedding = nn.Embedding(config.vocab_size, config.width, _weight=torch.zeros(config.vocab_size, config.width))
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.layers))
        self.skips = Skips(config)
        self.smear = SmearGate(config) if config.gates.smear else None
        own_caps = config.asymmetric_softcap
        self.softcaps = Softcaps(trained=own_caps == "trained") if own_caps != "off" else None
        self.residual = TOPOLOGIES[config.residual.topology](config)
        self.rotary = RotaryTables(config.rotary_channels, config.rotary_base, bfloat16=config.rotary_bfloat16)
        self.schedules = {on: layer_schedule(config.layers, config.recurrence, recurrent=on) for on in (False, True)}

    def forward(
        self,
        ids: Int[Tensor, "batch time"],
        targets: Int[Tensor, "batch time"],
        *,
        recurrent: bool,
        segments: Segments | None = None,
    ) -> Float[Tensor, ""]:
        """Mean loss in nats per token over all positions.

        Args:
            ids: Token ids, one row per sequence.
            targets: The token after each position of ``ids``.
            recurrent: Whether the extra passes of depth recurrence run.
            segments: Documents of one packed row (batch 1), each of which is computed as if it were alone.
        """
        hidden = self.hidden(ids, recurrent=recurrent, segments=segments)
        caps = self.caps() if self.config.asymmetric_softcap == "trained" else self.config.softcap
        return cross_entropy(hidden.flatten(0, 1), self.embedding.weight, targets.flatten(), caps, fused=self.fused_loss)

    def hidden(
        self,
        ids: Int[Tensor, "batch time"],
        *,
        recurrent: bool,
        segments: Segments | None = None,
        adapters: Sequence[Adapt] | None = None,
    ) -> Float[Tensor, "batch time width"]:
        """Normalised output of the last layer; position t depends on ``ids[:, :t+1]`` only.

        Args:
            ids: Token ids, one row per sequence.
            recurrent: Whether the extra passes of depth recurrence run.
            segments: Documents of one packed row (batch 1). Positions run over the whole row, of which attention sees the
                differences alone.
            adapters: What test-time training adds, one for each block application in their order.
        """
        schedule, first = self.schedules[recurrent], self.embed(ids)
        adapts = iter(adapters if adapters is not None else [unchanged] * schedule.applications)
        plain = Step(first, self.rotation(ids), segments=segments)
        lanes: Lanes = (first,)
        kept = []
        for layer in schedule.encoder:
            lanes = self.residual.step(self.block(layer), lanes, plain._replace(adapt=next(adapts)))
            kept.append(lanes[0])
        for slot, layer in enumerate(schedule.decoder):
            step = plain._replace(adapt=next(adapts))
            if kept:
                step = step._replace(bring=partial(self.skips, skip=kept.pop(), slot=slot))
            lanes = self.residual.step(self.block(layer), lanes, step)
        return rms_norm(self.residual.merge(lanes))

    def embed(self, ids: Int[Tensor, "batch time"]) -> Float[Tensor, "batch time width"]:
        """Normalised embedding, smeared first where the network has that gate."""
        embedded = nn.functional.embedding(ids, self.embedding.weight).to(self.compute_dtype)
        return rms_norm(embedded if self.smear is None else self.smear(embedded, ids))

    def use_attention(self, backend: str) -> None:
        """Let every layer attend by the back end that ``machine.attention`` names; a new network has ``auto``."""
        for layer in range(self.config.layers):
            self.block(layer).attention.backend = backend

    def use_fused_kernels(self, fused: bool) -> None:
        """Let training take the fused kernels of the loss and of every MLP; a new network has plain operations."""
        self.fused_loss = fused
        for layer in range(self.config.layers):
            self.block(layer).mlp.fused = fused

    def block(self, layer: int) -> Block:
        """The layer with physical index ``layer``."""
        return cast("Block", self.blocks[layer])

    def logits(self, hidden: Float[Tensor, "... width"], adapt: Adapt = unchanged) -> Float[Tensor, "... vocab"]:
        """Softcapped logits of ``hidden`` rows, float32 (float64 for float64 rows); ``adapt`` is the adapter of the head."""
        return wide_softcap(adapt("head", hidden, raw_logits(hidden, self.embedding.weight)), self.caps())

    def caps(self) -> Caps | float:
        """Bounds of the logits in scoring."""
        return self.softcaps() if self.softcaps is not None else self.config.softcap

    def rotation(self, ids: Int[Tensor, "batch time"]) -> Rotation:
        """Rotary tables for the positions of ``ids``, in the dtype of the activations."""
        cos, sin = self.rotary.rows(ids.shape[1], ids.device, self.compute_dtype)
        return Rotation(cos.to(self.compute_dtype), sin.to(self.compute_dtype))

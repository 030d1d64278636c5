"""U-Net skip connections: a decoder step receives the latest encoder output that no step has used yet."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fairway.config import ModelConfig
from fairway.model.schedule import skip_slots


class Skips(nn.Module):
    """Skip ``slot`` adds ``weight[slot] * skip``; with gates it blends ``g * x + (1 - g) * weight[slot] * skip``.

    ``g = sigmoid(gate[slot])`` per channel. A slot belongs to a decoder step, not to a layer, so recurrence gives one row
    other pairs of layers; the number of slots is that of the schedule with recurrence, whether it runs or not.

    Args:
        config: Width, layers, recurrence, and whether skips have gates.

    Source: plain: the challenge's baseline; gated: PR #1394.
    """

    gate: nn.Parameter | None

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        shape = (skip_slots(config.layers, config.recurrence), config.width)
        self.weight = nn.Parameter(torch.zeros(shape))
        self.gate = nn.Parameter(torch.zeros(shape)) if config.skip_gates else None

    def forward(
        self,
        x: Float[Tensor, "batch time width"],
        skip: Float[Tensor, "batch time width"],
        slot: int,
    ) -> Float[Tensor, "batch time width"]:
        """Bring the encoder output ``skip`` into the decoder stream ``x``."""
        skip = self.weight[slot].to(x.dtype) * skip
        if self.gate is None:
            return x + skip
        return torch.lerp(skip, x, torch.sigmoid(self.gate[slot].to(x.dtype)))

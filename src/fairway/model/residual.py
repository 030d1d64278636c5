"""Residual topology: how a block's attention and MLP read from and write to the residual stream."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fairway.config import ModelConfig
from fairway.model.attention import Attention
from fairway.model.mlp import MLP
from fairway.model.norm import rms_norm
from fairway.model.rotary import Rotation


class Block(nn.Module):
    """One layer, sequential: ``u = mix(x, x0)``, ``y = u + attend(u)``, ``out = y + feed(y)``.

    The three pieces are methods of their own, because a topology is nothing but the order in which they are applied.

    Args:
        config: The network.
        layer: Physical index of the layer, from 0; the depth scale ``1 / sqrt(layer + 1)`` keeps it in every pass.
    """

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.depth_scale = (layer + 1) ** -0.5 if config.depth_scale else 1.0
        self.attention = Attention(config, layer)
        self.mlp = MLP(config)
        self.attention_scale = nn.Parameter(torch.zeros(config.width))
        self.mlp_scale = nn.Parameter(torch.zeros(config.width))
        self.residual_mix = nn.Parameter(torch.zeros(2, config.width))

    def forward(
        self,
        x: Float[Tensor, "batch time width"],
        first: Float[Tensor, "batch time width"],
        rotation: Rotation,
    ) -> Float[Tensor, "batch time width"]:
        """Apply the block to the stream ``x``; ``first`` is the normalised embedding of the same tokens."""
        x = self.mix(x, first)
        x = x + self.attend(x, rotation)
        return x + self.feed(x)

    def mix(
        self, x: Float[Tensor, "batch time width"], first: Float[Tensor, "batch time width"]
    ) -> Float[Tensor, "batch time width"]:
        """Blend the stream with the first embedding per channel: ``mix[0] * x + mix[1] * first``. PR #1394."""
        stream, embedding = self.residual_mix.to(x.dtype).unbind()
        return torch.addcmul(stream * x, embedding, first)

    def attend(self, x: Float[Tensor, "batch time width"], rotation: Rotation) -> Float[Tensor, "batch time width"]:
        """What attention adds: ``attention_scale * attention(depth_scale * rms(x))``."""
        return self.attention_scale.to(x.dtype) * self.attention(rms_norm(x, self.depth_scale), rotation)

    def feed(self, x: Float[Tensor, "batch time width"]) -> Float[Tensor, "batch time width"]:
        """What the MLP adds: ``mlp_scale * mlp(depth_scale * rms(x))``."""
        return self.mlp_scale.to(x.dtype) * self.mlp(rms_norm(x, self.depth_scale))

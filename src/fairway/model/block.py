"""One layer: attention and MLP with their norms and scales. In which order they are applied is the residual topology's."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fairway.config import ModelConfig
from fairway.model.attention import Attention
from fairway.model.mlp import MLP
from fairway.model.norm import rms_norm
from fairway.model.step import Step


class Block(nn.Module):
    """The three pieces of a layer, from which every residual topology is put together.

    Args:
        config: The network.
        layer: Physical index of the layer, from 0; the depth scale ``1 / sqrt(layer + 1)`` keeps it in every pass.
    """

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.depth_scale = (layer + 1) ** -0.5 if config.depth_scale else 1.0
        self.attention = Attention(config, layer)
        self.mlp = MLP(config)
        self.attention_scale = nn.Parameter(torch.zeros(config.width))
        self.mlp_scale = nn.Parameter(torch.zeros(config.width))
        self.residual_mix = nn.Parameter(torch.zeros(2, config.width))

    def mix(
        self, x: Float[Tensor, "batch time width"], first: Float[Tensor, "batch time width"]
    ) -> Float[Tensor, "batch time width"]:
        """Blend the stream with the first embedding per channel: ``mix[0] * x + mix[1] * first``. PR #1394."""
        stream, embedding = self.residual_mix.to(x.dtype).unbind()
        return torch.addcmul(stream * x, embedding, first)

    def attend(self, x: Float[Tensor, "batch time width"], step: Step) -> Float[Tensor, "batch time width"]:
        """What attention adds: ``attention_scale * attention(depth_scale * rms(x))``."""
        attended = self.attention(rms_norm(x, self.depth_scale), step.rotation, step.segments, step.adapt)
        return self.attention_scale.to(x.dtype) * attended

    def feed(self, x: Float[Tensor, "batch time width"], step: Step) -> Float[Tensor, "batch time width"]:
        """What the MLP adds: ``mlp_scale * mlp(depth_scale * rms(x))``."""
        normal = rms_norm(x, self.depth_scale)
        return self.mlp_scale.to(x.dtype) * step.adapt("mlp", normal, self.mlp(normal))

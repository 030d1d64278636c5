"""The MLP of a block."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fairway.config import ModelConfig
from fairway.kernels.activation import leaky_relu_squared
from fairway.kernels.fused_mlp import fused_mlp
from fairway.model.linear import Linear


class MLP(nn.Module):
    """``leaky_relu_squared(x Wup, slope) Wdown``.

    Args:
        config: Width, hidden width and slope.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.slope = config.activation_slope
        self.fused = False
        """Whether training takes the fused kernels; ``GPT.use_fused_kernels`` sets it. Without gradients the two maps are
        called as modules, so that hooks see what goes into them."""
        self.up = Linear(config.width, config.mlp_hidden)
        self.down = Linear(config.mlp_hidden, config.width)

    def forward(self, x: Float[Tensor, "batch time width"]) -> Float[Tensor, "batch time width"]:
        """Apply the MLP to every position alone."""
        if self.fused and torch.is_grad_enabled():
            return fused_mlp(x, self.up.weight.to(x.dtype), self.down.weight.to(x.dtype), self.slope)
        return self.down(leaky_relu_squared(self.up(x), self.slope))

"""The one linear map of the network, so that quantizers, optimizers and hooks find every matrix by its class."""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Linear(nn.Linear):
    """``y = x @ weight.T`` without bias; the master weight is cast to the dtype of ``x`` at use.

    Masters stay float32 while activations may be bfloat16, so small optimizer steps are not lost to rounding. Weights are
    zero until ``fairway.model.initial.initialize`` or a checkpoint fills them.

    Args:
        inputs: Channels of ``x``.
        outputs: Channels of ``y``; the weight has shape ``(outputs, inputs)``.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, bias=False)

    def reset_parameters(self) -> None:
        """Set the weight to zero; initial values are drawn by rule, in one place, from one generator."""
        with torch.no_grad():
            self.weight.zero_()

    def forward(self, input: Float[Tensor, "... inputs"]) -> Float[Tensor, "... outputs"]:
        """Apply the map to the last axis of ``input``; the result has the dtype of ``input``."""
        return nn.functional.linear(input, self.weight.to(input.dtype))

"""Gates that read the first few channels of their input."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from fairway.config import ModelConfig
from fairway.data.tokenizer import BOS


def channel_gate(
    x: Float[Tensor, "batch time width"], weight: Float[Tensor, "gates window"], scale: float = 1.0
) -> Float[Tensor, "batch time gates"]:
    """``sigmoid(scale * x[..., :window] @ weight.T)``: one number in (0, 1) per position and gate; a half for zero weights.

    Args:
        x: What the gates read.
        weight: A row per gate.
        scale: Constant factor before the sigmoid.

    Source: PR #1787.
    """
    window = weight.shape[1]
    return torch.sigmoid(scale * nn.functional.linear(x[..., :window], weight.to(x.dtype)))


class SmearGate(nn.Module):
    """``e'[t] = e[t] + strength * sigmoid(e[t, :window] . weight) * e[t-1]``; a document marker and position 0 stay ``e[t]``.

    Without the exception for markers the first token of a document would carry the end of the one before it past every
    attention mask. A long document that is cut into segments is smeared over the cut, within the same document.

    Args:
        config: Width of the window.

    Source: PR #1667; the mask of document markers: PR #1851, PR #1855.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, config.gates.window))
        self.strength = nn.Parameter(torch.zeros(1))

    def forward(
        self, embedded: Float[Tensor, "batch time width"], ids: Int[Tensor, "batch time"]
    ) -> Float[Tensor, "batch time width"]:
        """Smear the embedded tokens ``ids``, before their first norm."""
        gate = self.strength.to(embedded.dtype) * channel_gate(embedded[:, 1:], self.weight)
        gate = gate * (ids[:, 1:, None] != BOS)
        return torch.cat([embedded[:, :1], torch.addcmul(embedded[:, 1:], gate, embedded[:, :-1])], dim=1)

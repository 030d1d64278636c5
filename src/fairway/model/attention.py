"""Causal grouped-query attention with normalised queries and keys, a learned query gain, and exclusive output (XSA)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fairway.config import ModelConfig
from fairway.kernels.attention import Segments, causal_attention
from fairway.model.gates import channel_gate
from fairway.model.linear import Linear
from fairway.model.norm import rms_norm
from fairway.model.rotary import Rotation, rotate
from fairway.model.step import Adapt, unchanged

SMALLEST_NORM = 1e-12


def exclude_own_value(
    attended: Float[Tensor, "batch time query_heads channels"], values: Float[Tensor, "batch time kv_heads channels"]
) -> Float[Tensor, "batch time query_heads channels"]:
    """Remove from each head's output its part along the token's own value: ``y - (y . v) v / max(|v|, 1e-12)**2``.

    What a token knows of itself already runs in the residual stream, so the head's channels are left to the context. A
    token that sees only itself gets zero. Consecutive query heads share a value head.

    Args:
        attended: Output ``y`` of the attention, before the output projection.
        values: Unrotated value ``v`` of every token.

    Source: exclusive self-attention, PR #1394.
    """
    batch, time, kv_heads, channels = values.shape
    wide = torch.promote_types(values.dtype, torch.float32)
    own = values.to(wide).unsqueeze(3)
    grouped = attended.reshape(batch, time, kv_heads, -1, channels).to(wide)
    share = (grouped * own).sum(-1, keepdim=True) / own.square().sum(-1, keepdim=True).clamp_min(SMALLEST_NORM**2)
    exclusive = torch.addcmul(grouped, share, own, value=-1)
    return exclusive.to(attended.dtype).reshape(attended.shape)


class Attention(nn.Module):
    """Attention of one layer; its input is the normalised residual stream, its output is added to it.

    ``q = gain * rotate(rms(x Wq))``, ``k = rotate(rms(x Wk))``, ``v = x Wv``, ``y = softmax(q k / sqrt(d)) v`` over earlier
    tokens and itself, ``y`` without its part along ``v`` (XSA), with gates ``y * sigmoid(s * x[:window] Wg)`` per head,
    ``out = y Wo``.

    Args:
        config: Widths, heads, gates, and how many last layers use XSA.
        layer: Physical index of the layer, from 0.
    """

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.head_width = config.head_width
        self.exclusive = layer >= config.layers - config.exclusive_attention_layers
        kv_width = config.kv_heads * config.head_width
        self.query = Linear(config.width, config.width)
        self.key = Linear(config.width, kv_width)
        self.value = Linear(config.width, kv_width)
        self.output = Linear(config.width, config.width)
        self.query_gain = nn.Parameter(torch.zeros(config.query_heads))
        self.gate_scale = config.gates.attention_scale
        gate = torch.zeros(config.query_heads, config.gates.window)
        self.gate = nn.Parameter(gate) if config.gates.attention else None
        self.backend = "auto"
        """Which attention kernel runs, a value of ``machine.attention``; ``GPT.use_attention`` sets it."""

    def forward(
        self,
        x: Float[Tensor, "batch time width"],
        rotation: Rotation,
        segments: Segments | None = None,
        adapt: Adapt = unchanged,
    ) -> Float[Tensor, "batch time width"]:
        """Attend from every position of ``x`` to itself and the positions before it.

        Args:
            x: Normalised stream.
            rotation: Rotary tables of its positions.
            segments: Segments of a packed row, inside which attention stays.
            adapt: What an adapter adds to the four maps.
        """
        heads = (*x.shape[:2], -1, self.head_width)
        query = rotate(rms_norm(adapt("query", x, self.query(x)).view(heads)), rotation) * self.query_gain.to(x.dtype)[:, None]
        key = rotate(rms_norm(adapt("key", x, self.key(x)).view(heads)), rotation)
        value = adapt("value", x, self.value(x)).view(heads)
        attended = causal_attention(query, key, value, segments, wanted=self.backend)
        if self.exclusive:
            attended = exclude_own_value(attended, value)
        if self.gate is not None:
            opened = channel_gate(x, self.gate, self.gate_scale)
            attended = attended * opened.unsqueeze(-1)
        return adapt("output", x, self.output(attended.reshape(x.shape)))

"""Attention written out: what every back end must compute."""

import torch
from jaxtyping import Float
from torch import Tensor

from fairway.kernels.attention.segments import Segments


def plain_causal_attention(
    query: Float[Tensor, "batch time query_heads channels"],
    key: Float[Tensor, "batch time kv_heads channels"],
    value: Float[Tensor, "batch time kv_heads channels"],
    segments: Segments | None = None,
) -> Float[Tensor, "batch time query_heads channels"]:
    """``softmax(q k / sqrt(channels) + mask) v`` written out in float32 or wider: what every back end must compute.

    The mask is minus infinity at later positions, and with ``segments`` also at positions of other segments. Query head h
    uses key and value head ``h // (query_heads / kv_heads)``.
    """
    time, group = query.shape[1], query.shape[2] // key.shape[2]
    wide = torch.promote_types(query.dtype, torch.float32)
    keys = key.to(wide).repeat_interleave(group, dim=2)
    values = value.to(wide).repeat_interleave(group, dim=2)
    scores = torch.einsum("bqhc,bkhc->bhqk", query.to(wide), keys) * query.shape[3] ** -0.5
    seen = torch.ones(time, time, dtype=torch.bool, device=query.device).tril() if segments is None else segments.mask(time)
    weights = scores.masked_fill(~seen, float("-inf")).softmax(-1)
    return torch.einsum("bhqk,bkhc->bqhc", weights, values).to(query.dtype)

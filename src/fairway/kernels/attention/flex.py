"""FlexAttention of torch: kernels generated for a mask, here causal, or causal inside segments. Not measured on a GPU."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from fairway.kernels.attention.segments import Segments


def flex_attention(query: Tensor, key: Tensor, value: Tensor, segments: Segments | None = None) -> Tensor:
    """FlexAttention with a block mask, which skips the blocks that no query may see. Source: arXiv 2412.05496.

    Outside a compiled graph the causal mask of each length is kept; inside one it is part of the graph.
    """
    from torch.nn.attention.flex_attention import flex_attention as attend

    time = query.shape[1]
    if segments is not None:
        mask = _segment_mask(segments, time)
    else:
        mask = _causal_mask(time, query.device) if torch.compiler.is_compiling() else _kept_causal_mask(time, query.device)
    # Interpreted on a GPU it would hold all scores in memory; on a CPU it only serves tests.
    run = attend if torch.compiler.is_compiling() or query.device.type == "cpu" else _compiled()
    heads_first = (query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2))
    return run(*heads_first, block_mask=mask, enable_gqa=True).transpose(1, 2)


def _causal_mask(time: int, device: torch.device) -> Any:
    from torch.nn.attention.flex_attention import create_block_mask

    return create_block_mask(lambda _batch, _head, query, key: query >= key, None, None, time, time, device=device)


@lru_cache(maxsize=16)
def _kept_causal_mask(time: int, device: torch.device) -> Any:
    # A tensor created in inference mode could not take part in later training.
    with torch.inference_mode(False):
        return _causal_mask(time, device)


def _segment_mask(segments: Segments, time: int) -> Any:
    from torch.nn.attention.flex_attention import create_block_mask

    owners = segments.owners(time)
    return create_block_mask(
        lambda _batch, _head, query, key: (query >= key) & (owners[query] == owners[key]),
        None,
        None,
        time,
        time,
        device=owners.device,
    )


@lru_cache(maxsize=1)
def _compiled() -> Callable[..., Tensor]:
    from torch.nn.attention.flex_attention import flex_attention as attend

    return torch.compile(attend)

"""Scaled dot product attention of torch: on a CPU, on flash kernels, and on kernels that know no groups of heads."""

import torch
from torch import Tensor, nn

from fairway.kernels.attention.flash import use_implementation
from fairway.kernels.attention.segments import Segments


def grouped_sdpa(query: Tensor, key: Tensor, value: Tensor, segments: Segments | None = None) -> Tensor:
    """Scaled dot product attention of torch, which reads the shared key and value heads in place.

    Segments are attended one by one, so that the work grows with the sum of their squared lengths. A compiled graph cannot
    depend on their number; it takes a mask over the whole row. Without gradients they are rows of one length; see `_padded`.
    """
    if segments is None:
        return _attend(query, key, value)
    if torch.compiler.is_compiling():
        return _attend(query, key, value, segments.mask(query.shape[1]))
    if not torch.is_grad_enabled():
        return _padded(query, key, value, segments)
    # The gradient of a split is written once; that of a slice is a whole row of zeros for every segment.
    sizes = [end - begin for begin, end in segments.ranges()]
    pieces = zip(*(tensor.split(sizes, dim=1) for tensor in (query, key, value)), strict=True)
    return torch.cat([_attend(*piece) for piece in pieces], dim=1)


def _padded(query: Tensor, key: Tensor, value: Tensor, segments: Segments) -> Tensor:
    """Every segment as a row of the greatest length, so that no bit of an output hangs on the text that follows it.

    The kernel cuts a row into blocks by its length. Were that the length of the segment, an encoder, which knows where a
    document ends, and a decoder, which does not, would sum in different orders, and the code would come apart.
    """
    time = query.shape[1]
    width, owners = min(segments.longest, time), segments.owners(time)
    offsets = torch.arange(time, device=query.device) - segments.starts[owners]
    attended = torch.empty_like(query[0])
    # Few rows at a time: most of a short document's row is padding.
    rows = max(1, 4 * time // width)
    for first in range(0, int(owners[-1]) + 1, rows):
        inside = (owners >= first) & (owners < first + rows)
        places = owners[inside] - first, offsets[inside]
        padded = [tensor.new_zeros(int(places[0][-1]) + 1, width, *tensor.shape[2:]) for tensor in (query, key, value)]
        for target, tensor in zip(padded, (query, key, value), strict=True):
            target[places] = tensor[0, inside]
        attended[inside] = _attend(*padded)[places]
    return attended[None]


def flash_sdpa(query: Tensor, key: Tensor, value: Tensor, segments: Segments | None = None) -> Tensor:
    """Torch's own flash kernel through scaled dot product attention; it takes no mask, so no segments."""
    assert segments is None, "flash kernels take no mask; choose sends segments elsewhere"
    use_implementation(None)
    return _attend(query, key, value)


def repeated_sdpa(query: Tensor, key: Tensor, value: Tensor, segments: Segments | None = None) -> Tensor:
    """Scaled dot product attention of torch on repeated key and value heads, for kernels that know no groups.

    Segments become a mask over the whole row: the work grows with the squared length of the row.
    """
    group = query.shape[2] // key.shape[2]
    mask = None if segments is None else segments.mask(query.shape[1])
    return _attend(query, key.repeat_interleave(group, dim=2), value.repeat_interleave(group, dim=2), mask)


def _attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
    attended = nn.functional.scaled_dot_product_attention(
        query.transpose(1, 2),
        key.transpose(1, 2),
        value.transpose(1, 2),
        attn_mask=mask,
        is_causal=mask is None,
        enable_gqa=query.shape[2] != key.shape[2],
    )
    return attended.transpose(1, 2)

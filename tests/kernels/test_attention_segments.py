"""Cutting a packed row into segments, and the mask that follows from it."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fairway.kernels.attention import Segments
from fairway.kernels.attention.plain import plain_causal_attention
from fairway.kernels.attention.sdpa import grouped_sdpa


def test_the_example_of_the_published_system():
    segments = Segments.cut([4, 11], 20, 5)
    assert segments.starts.tolist() == [0, 4, 9, 11, 16, 20] + [20] * 58
    assert segments.starts.dtype == torch.int32
    assert segments.longest == 5
    assert segments.ranges() == [(0, 4), (4, 9), (9, 11), (11, 16), (16, 20)]


def one_by_one(documents, length, longest):
    """The segment of every position, walking along the row."""
    owners, owner, begin = [], -1, 0
    for position in range(length):
        if position == 0 or position in documents:
            begin, owner = position, owner + 1
        elif (position - begin) % longest == 0:
            owner += 1
        owners.append(owner)
    return owners


@given(
    length=st.integers(1, 300),
    begins=st.sets(st.integers(0, 299)),
    longest=st.integers(1, 300),
    padding=st.sampled_from([1, 8, 64]),
)
def test_cutting_is_walking_along_the_row(length, begins, longest, padding):
    documents = sorted(begin for begin in begins if begin < length)
    segments = Segments.cut(documents, length, longest, padding=padding)
    starts = segments.starts.tolist()
    expected = one_by_one(documents, length, longest)
    assert segments.owners(length).tolist() == expected
    assert len(starts) % padding == 0
    assert (starts[0], starts[-1]) == (0, length)
    assert len(segments.ranges()) == expected[-1] + 1
    assert sum(end - begin for begin, end in segments.ranges()) == length
    assert max(end - begin for begin, end in segments.ranges()) <= longest
    fewest = len(segments.ranges()) + 1
    assert fewest <= len(starts) < fewest + padding


@given(length=st.integers(1, 40), begins=st.sets(st.integers(0, 39)), longest=st.integers(1, 40))
def test_the_mask_is_block_diagonal_and_causal(length, begins, longest):
    documents = sorted(begin for begin in begins if begin < length)
    owners = one_by_one(documents, length, longest)
    expected = [[key <= query and owners[key] == owners[query] for key in range(length)] for query in range(length)]
    assert Segments.cut(documents, length, longest).mask(length).tolist() == expected


@settings(max_examples=40, deadline=None)
@given(
    begins=st.sets(st.integers(1, 299), max_size=12),
    others=st.sets(st.integers(1, 299), max_size=12),
    longest=st.sampled_from([7, 64, 200, 300]),
    position=st.integers(0, 298),
)
def test_without_gradients_no_bit_hangs_on_what_follows(begins, others, longest, position):
    """Not on later values, and not on where later segments begin: a decoder knows neither."""
    generator = torch.Generator().manual_seed(0)
    first, later = ([torch.randn(1, 300, heads, 4, generator=generator) for heads in (4, 2, 2)] for _ in range(2))
    known = position + 1
    changed = [torch.cat([a[:, :known], b[:, known:]], dim=1) for a, b in zip(first, later, strict=True)]
    kept = {begin for begin in begins if begin <= position}
    segments = Segments.cut(sorted(begins), 300, longest)
    moved = Segments.cut(sorted(kept | {begin for begin in others if begin > position}), 300, longest)
    with torch.no_grad():
        found, again = grouped_sdpa(*first, segments), grouped_sdpa(*changed, moved)
        torch.testing.assert_close(found, plain_causal_attention(*first, segments), atol=1e-5, rtol=1e-5)
    assert torch.equal(found[:, :known], again[:, :known])

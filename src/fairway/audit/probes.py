"""Where to look: entries at which the mechanisms of a scorer are likely at work."""

from itertools import chain, zip_longest

import numpy as np
from jaxtyping import Int64

from fairway.audit.streams import AuditStream


def longest_matches(
    tokens: Int64[np.ndarray, " tokens"],
) -> tuple[Int64[np.ndarray, " tokens"], Int64[np.ndarray, " tokens"]]:
    """For each place, the length of the longest run that ends there and also ended earlier, and the latest such earlier end.

    Quadratic in the length, one row at a time: streams of an audit have a few hundred to a few thousand tokens.
    """
    count = len(tokens)
    lengths, ends = np.zeros(count, dtype=np.int64), np.full(count, -1, dtype=np.int64)
    row = np.zeros(count, dtype=np.int64)
    for place in range(count):
        shifted = np.concatenate([[0], row[:-1]])
        row = np.where(tokens == tokens[place], shifted + 1, 0)
        earlier = row[:place]
        if len(earlier) and earlier.max() > 0:
            lengths[place] = earlier.max()
            ends[place] = place - 1 - int(np.argmax(earlier[::-1]))
    return lengths, ends


def probe_entries(stream: AuditStream, count: int, seed: int) -> list[int]:
    """At most ``count`` entries, drawn in turn from six kinds so that a small number already covers all.

    After a context seen before and followed by its old continuation; the same followed by another; the first targets of
    documents; the targets that are document markers; borders that the stream knows of or that powers of two suggest; any.
    """
    rng = np.random.default_rng(seed)
    tokens = stream.tokens
    lengths, ends = longest_matches(tokens[:-1])
    followed = (lengths > 0) & (tokens[ends + 1] == tokens[1:])
    by_length = np.argsort(-lengths, kind="stable")
    hits = [int(entry) for entry in by_length if followed[entry]]
    misses = [int(entry) for entry in by_length if lengths[entry] > 0 and not followed[entry]]
    firsts = [start for start in stream.document_starts if start < stream.targets]
    markers = [start - 1 for start in stream.document_starts if start > 0]
    borders = [*stream.landmarks, stream.targets - 1]
    borders += [edge + offset for edge in (64, 128, 256, 512, 1024) for offset in (-1, 0) if edge + offset < stream.targets]
    anywhere = [int(entry) for entry in rng.permutation(stream.targets)]
    kinds = [_spread(hits, rng), _spread(misses, rng), _spread(firsts, rng), _spread(markers, rng), borders, anywhere]
    mixed = [entry for entry in chain.from_iterable(zip_longest(*kinds)) if entry is not None]
    return list(dict.fromkeys(mixed))[:count]


def _spread(entries: list[int], rng: np.random.Generator) -> list[int]:
    """The entries in a random order, except that the first stays: for matches it is the longest."""
    return entries[:1] + [entries[1:][index] for index in rng.permutation(max(0, len(entries) - 1))]


def candidates(stream: AuditStream, entry: int, count: int, seed: int, likely: Int64[np.ndarray, " tokens"]) -> list[int]:
    """Tokens worth trying as the target of ``entry``.

    What followed like contexts before, the target itself, the marker, the likeliest tokens, then any.

    Args:
        stream: Where the entry is.
        entry: The entry.
        count: Number of tokens wanted; fewer only if the vocabulary is smaller.
        seed: Seed of the random rest.
        likely: Tokens from the likeliest down, or empty.
    """
    past, target = stream.tokens[: entry + 1], int(stream.tokens[entry + 1])
    followers: list[int] = []
    for width in (8, 4, 2, 1):
        if len(past) > width:
            windows = np.lib.stride_tricks.sliding_window_view(past, width)
            same = np.flatnonzero((windows[:-1] == past[-width:]).all(axis=1))
            followers += [int(past[place + width]) for place in same[::-1]]
    special = [target, *([] if stream.marker is None else [stream.marker]), 0, stream.vocab_size - 1]
    rest = np.random.default_rng([seed, entry]).permutation(stream.vocab_size)
    wanted = [*followers[: count // 3], *special, *likely[: count // 3].tolist(), *rest.tolist()]
    return list(dict.fromkeys(wanted))[:count]

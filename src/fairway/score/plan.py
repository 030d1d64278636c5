"""Plans: which window scores which target, and when text is revealed. Functions of positions and lengths only.

Input ``i`` of the stream predicts target ``i + 1``; with ``T`` targets, inputs are ``0 .. T-1``. A window feeds inputs
``[start, start + length)`` and scores those from ``start + first_scored`` to its end. A plan scores every input once.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from jaxtyping import Int64

from fairway.config import ScoreConfig


@dataclass(frozen=True)
class Windows:
    """Windows in the order of coding, as three arrays of equal length."""

    starts: Int64[np.ndarray, " windows"]
    lengths: Int64[np.ndarray, " windows"]
    first_scored: Int64[np.ndarray, " windows"]

    def __len__(self) -> int:
        return len(self.starts)

    def part(self, first: int, stop: int) -> "Windows":
        """Windows ``first .. stop - 1``."""
        return Windows(self.starts[first:stop], self.lengths[first:stop], self.first_scored[first:stop])

    def uniform_runs(self, largest: int) -> Iterator["Windows"]:
        """Consecutive windows of equal length and scored part, at most ``largest`` at a time."""
        shape = np.stack([self.lengths, self.first_scored])
        borders = np.flatnonzero((shape[:, 1:] != shape[:, :-1]).any(axis=0)) + 1
        edges = [0, *borders.tolist(), len(self)]
        for first, stop in pairwise(edges):
            for begin in range(first, stop, largest):
                yield self.part(begin, min(begin + largest, stop))


@dataclass(frozen=True)
class Block:
    """Windows that are scored with one state of the predictor, and the stretch of inputs revealed afterwards."""

    windows: Windows
    reveal: tuple[int, int]
    """Inputs ``[first, stop)`` handed to ``observe`` with their targets; the stretches of a plan follow on each other."""


def plain_windows(targets: int, context: int) -> Windows:
    """Rows of ``context`` inputs one after the other, every position scored; the last may be shorter."""
    starts = np.arange(0, targets, context, dtype=np.int64)
    return Windows(starts, np.minimum(context, targets - starts), np.zeros_like(starts))


def sliding_windows(targets: int, context: int, stride: int) -> Windows:
    """Windows every ``stride`` inputs; each after the first scores only the inputs that no window before it reached.

    Window ``w`` (a multiple of ``stride``) feeds ``[w, min(w + context, targets))`` and scores from ``w + context - stride``;
    window 0 scores all of its inputs. An input beyond the first ``context`` therefore sees between ``context - stride + 1``
    and ``context`` tokens. Source: PR #1394.
    """
    kept = context - stride
    starts = np.arange(0, max(1, targets - kept), stride, dtype=np.int64)
    first_scored = np.full_like(starts, kept)
    first_scored[0] = 0
    return Windows(starts, np.minimum(context, targets - starts), first_scored)


def fixed_plan(windows: Windows, windows_per_block: int = 1024) -> list[Block]:
    """Blocks of equally many windows, for predictors whose weights stay; their size only paces the progress report."""
    ends = windows.starts + windows.lengths
    blocks, begin = [], 0
    for first in range(0, len(windows), windows_per_block):
        part = windows.part(first, first + windows_per_block)
        stop = int(ends[first + len(part) - 1])
        blocks.append(Block(part, (begin, stop)))
        begin = stop
    return blocks


def chunk_count(targets: int, chunk: int) -> int:
    """Number of chunks of ``chunk`` inputs that hold ``targets`` inputs."""
    return -(-targets // chunk)


def chunked_plan(
    windows: Windows, targets: int, chunk: int, key: Literal["first_input", "last_input"] = "first_input"
) -> list[Block]:
    """Blocks of whole windows, one per chunk of ``chunk`` inputs; a window belongs to the chunk of its first scored input.

    After the block of chunk ``c`` every input below ``(c + 1) * chunk`` has been scored, whatever the stride, context and
    chunk are, so revealing the chunk reveals no unscored target. With the last scored input as the key, a window that
    straddles two chunks comes after the first of them was revealed; see `early_targets`. Source: PR #1413 (first), PR #1776
    (last).
    """
    count = chunk_count(targets, chunk)
    keys = windows.starts + (windows.first_scored if key == "first_input" else windows.lengths - 1)
    owners = keys // chunk
    edges = np.searchsorted(owners, np.arange(count + 1))
    return [
        Block(
            windows.part(int(edges[c]), int(edges[c + 1])),
            (c * chunk, min((c + 1) * chunk, targets)),
        )
        for c in range(count)
    ]


def adapted_plan(targets: int, config: ScoreConfig) -> list[Block]:
    """The sliding windows of a score in the chunks of its adaptation, whether or not a decoder can follow."""
    windows = sliding_windows(targets, config.context, config.stride)
    return chunked_plan(windows, targets, config.adaptation.chunk_tokens, config.adaptation.window_key)


def early_targets(plan: list[Block]) -> int:
    """Number of targets that a plan reveals before it scores them; 0 for every plan that a decoder can follow."""
    early, revealed = 0, 0
    for block in plan:
        windows = block.windows
        begins, ends = windows.starts + windows.first_scored, windows.starts + windows.lengths
        early += int((np.minimum(ends, revealed) - begins).clip(min=0).sum())
        revealed = block.reveal[1]
    return early

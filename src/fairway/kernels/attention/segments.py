"""Segments of a packed row: stretches of tokens that attend among themselves only."""

from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import NamedTuple

import torch
from jaxtyping import Bool, Int, Int32
from torch import Tensor

PADDING = 64
"""Lengths of ``starts`` are multiples of this, so that rows with different numbers of documents share a compiled graph."""


class Segments(NamedTuple):
    """Where the segments of one packed row begin, as variable-length attention kernels want it.

    Segment s is ``starts[s] : starts[s + 1]``. ``starts`` is non-decreasing, begins with 0 and ends with the length of the
    row, repeated as padding: a repeated entry is an empty segment.
    """

    starts: Int32[Tensor, "count"]
    """First token of every segment, then the length of the row at least once; on the device of the row."""
    longest: int
    """Bound on the length of a segment in tokens. A constant of the run, not a fact of the data: it is part of a graph."""

    @classmethod
    def cut(
        cls, documents: Iterable[int], length: int, longest: int, *, device: torch.device | None = None, padding: int = PADDING
    ) -> "Segments":
        """Segments of a row in which documents begin at ``documents``; longer ones are cut every ``longest`` tokens.

        A segment begins at position 0 even where no document does: the row then begins inside one.

        Args:
            documents: Positions of document starts, increasing, each in 0 .. length-1.
            length: Tokens in the row.
            longest: Longest segment, > 0, counted from the start of each document.
            device: Where ``starts`` is wanted; None is the CPU.
            padding: The number of entries is rounded up to a multiple of this.

        Source: PR #2140.
        """
        edges = [*sorted({0, *documents}), length]
        assert 0 <= edges[0] <= edges[-2] < length, f"documents begin at {edges[:-1]}, the row has {length} tokens"
        starts = [at for begin, end in pairwise(edges) for at in range(begin, end, longest)]
        entries = -(-(len(starts) + 1) // padding) * padding
        starts += [length] * (entries - len(starts))
        return cls(torch.tensor(starts, dtype=torch.int32, device=device), longest)

    def ranges(self) -> list[tuple[int, int]]:
        """Begin and end of every segment that is not empty; waits for the device."""
        starts = self.starts.tolist()
        return [(begin, end) for begin, end in pairwise(starts) if end > begin]

    def owners(self, length: int) -> Int[Tensor, "time"]:
        """The segment of every position of a row of ``length`` tokens."""
        positions = torch.arange(length, dtype=self.starts.dtype, device=self.starts.device)
        return torch.searchsorted(self.starts[1:], positions, right=True)

    def mask(self, length: int) -> Bool[Tensor, "time time"]:
        """True where the query (row) may see the key (column): same segment, and the key is not later."""
        owners = self.owners(length)
        return (owners[:, None] == owners[None, :]).tril()


AttentionFunction = Callable[[Tensor, Tensor, Tensor, Segments | None], Tensor]
"""Queries, keys and values of shape (batch, time, heads, channels), and the segments of a packed row (batch is then 1)."""

"""One stream read in order for ever: the training order of the challenge's baseline."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Int64

from fairway.base.errors import DataError
from fairway.data.batches import Batch, check_identity, check_stream, identity
from fairway.data.shards import Shard, check_vocabulary


class Contiguous:
    """One cursor over all shards, joined end to end and read for ever.

    A round takes ``streams * (rows * context + 1)`` tokens; stream r gets the r-th part of ``rows * context + 1``.

    Args:
        shards: All training shards in order.
        stream: Which logical stream this is.
        streams: Number of logical streams.
        context: Tokens of one row.
        rows: Rows of one micro-batch.
        vocab_size: Token ids must lie below this.

    Raises:
        DataError: the shards together hold less than one round.

    Source: the challenge's baseline.
    """

    def __init__(
        self, shards: Sequence[Shard], *, stream: int, streams: int, context: int, rows: int, vocab_size: int = 65536
    ) -> None:
        check_stream(stream, streams, context, rows)
        self._shards = list(shards)
        self._ends = np.cumsum([shard.tokens for shard in shards], dtype=np.int64)
        self._total = int(self._ends[-1]) if len(self._ends) else 0
        self._context, self._rows, self._vocab_size = context, rows, vocab_size
        self._stream, self._streams, self._span = stream, streams, rows * context + 1
        if self._total < streams * self._span:
            raise DataError(
                f"the training split has {self._total} tokens, one batch needs {streams * self._span}; "
                "use a smaller train.batch_tokens or more text"
            )
        self._own = identity(shards, stream=stream, streams=streams, context=context, rows=rows)
        self._cursor = 0

    def next_batch(self) -> Batch:
        """Inputs and targets of the next micro-batch.

        Raises:
            DataError: a token id is not below ``vocab_size``.
        """
        span = self._read((self._cursor + self._stream * self._span) % self._total)
        self._cursor = (self._cursor + self._streams * self._span) % self._total
        return span[:-1].reshape(self._rows, self._context), span[1:].reshape(self._rows, self._context)

    def _read(self, start: int) -> Int64[np.ndarray, " span"]:
        span = np.empty(self._span, np.int64)
        filled = 0
        while filled < self._span:
            which = int(np.searchsorted(self._ends, start, side="right"))
            shard = self._shards[which]
            offset = start - (int(self._ends[which]) - shard.tokens)
            values = shard.values[offset : offset + self._span - filled]
            check_vocabulary(values, self._vocab_size, str(shard.path))
            span[filled : filled + len(values)] = values
            filled += len(values)
            start = (start + len(values)) % self._total
        return span

    def state(self) -> dict[str, Any]:
        """The cursor; all JSON."""
        return {**self._own, "kind": "contiguous", "cursor": self._cursor}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue exactly where ``state`` was taken.

        Raises:
            DataError: the state belongs to other data or settings.
        """
        check_identity({**self._own, "kind": "contiguous"}, state)
        cursor = state["cursor"]
        if not isinstance(cursor, int) or not 0 <= cursor < self._total:
            raise DataError(f"the saved loader state has cursor={cursor!r}, outside 0..{self._total - 1}")
        self._cursor = cursor

"""Random windows without replacement: the training order of PR #1394 and #1413."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Int64

from fairway.base.errors import DataError
from fairway.data.batches import Batch, check_identity, check_stream, identity
from fairway.data.shards import Shard, check_vocabulary


class RandomWindows:
    """Windows of ``context + 1`` tokens drawn without replacement from the shards ``stream::streams``.

    An epoch cuts each shard, from a random phase on, into windows and shuffles them; a window's shard is drawn with
    probability proportional to the windows it has left. When all are used up, all shards are cut anew. Windows stay
    inside a shard and may cross documents. Up to ``context - 1`` leading tokens and the tail of a shard are unused in an
    epoch.

    Args:
        shards: All training shards in order.
        stream: Which logical stream this is; also the seed of its generator.
        streams: Number of logical streams.
        context: Tokens of one row.
        rows: Rows of one micro-batch.
        vocab_size: Token ids must lie below this.

    Raises:
        DataError: a stream without a shard, or without a shard of ``context + 1`` tokens.

    Source: PR #1394; the same order as a run on ``streams`` GPUs.
    """

    def __init__(
        self, shards: Sequence[Shard], *, stream: int, streams: int, context: int, rows: int, vocab_size: int = 65536
    ) -> None:
        check_stream(stream, streams, context, rows)
        if len(shards) < streams:
            raise DataError(
                f"{len(shards)} training shards cannot feed {streams} streams; build the data with smaller shards "
                f"(shard_tokens) or set train.streams to at most {len(shards)}"
            )
        self._shards = list(shards[stream::streams])
        longest = max(shard.tokens for shard in self._shards)
        if longest < context + 1:
            raise DataError(
                f"the longest shard of stream {stream} has {longest} tokens, a window needs {context + 1}; "
                "use a shorter train.context, larger shards or more text"
            )
        self._context, self._rows, self._vocab_size = context, rows, vocab_size
        self._own = identity(shards, stream=stream, streams=streams, context=context, rows=rows)
        self._generator = np.random.Generator(np.random.PCG64(stream))
        self._refill()

    def _refill(self) -> None:
        """Cut all shards into a new epoch of windows; ``_cut_from`` is the generator's state from which that repeats."""
        self._cut_from = self._generator.bit_generator.state
        self._starts = [self._cut(shard.tokens) for shard in self._shards]
        self._left = np.array([len(starts) for starts in self._starts], np.float64)

    def _cut(self, tokens: int) -> Int64[np.ndarray, " windows"]:
        context = self._context
        slack = min(context - 1, max(0, tokens - context - 1))
        phase = int(self._generator.integers(slack + 1)) if slack > 0 else 0
        windows = (tokens - 1 - phase) // context if tokens else 0
        return phase + context * self._generator.permutation(windows).astype(np.int64)

    def next_batch(self) -> Batch:
        """Inputs and targets of the next micro-batch.

        Raises:
            DataError: a token id is not below ``vocab_size``.
        """
        window = np.empty((self._rows, self._context + 1), np.int64)
        for row in range(self._rows):
            total = self._left.sum()
            if total == 0:
                self._refill()
                total = self._left.sum()
            which = int(self._generator.choice(len(self._shards), p=self._left / total))
            self._left[which] -= 1
            start = int(self._starts[which][int(self._left[which])])
            values = self._shards[which].values[start : start + self._context + 1]
            check_vocabulary(values, self._vocab_size, str(self._shards[which].path))
            window[row] = values
        return window[:, :-1], window[:, 1:]

    def state(self) -> dict[str, Any]:
        """The generator, the generator at the start of the epoch, and the windows left per shard; all JSON."""
        return {
            **self._own,
            "kind": "random_windows",
            "generator": self._generator.bit_generator.state,
            "cut_from": self._cut_from,
            "left": [int(count) for count in self._left],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue exactly where ``state`` was taken; the epoch is cut again, no batch is replayed.

        Raises:
            DataError: the state belongs to other data or settings.
        """
        check_identity({**self._own, "kind": "random_windows"}, state)
        self._generator.bit_generator.state = state["cut_from"]
        self._refill()
        left = np.array(state["left"], np.float64)
        if left.shape != self._left.shape or (left > self._left).any() or (left < 0).any():
            raise DataError("the saved loader state does not fit the shards; resume with the data of the run that saved it")
        self._left = left
        self._generator.bit_generator.state = state["generator"]

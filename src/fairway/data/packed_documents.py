"""Documents packed into one long row: the training order of PR #2140."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fairway.base.errors import DataError
from fairway.data.batches import Batch, check_identity, check_stream, identity
from fairway.data.shards import Shard, check_vocabulary
from fairway.data.tokenizer import BOS
from fairway.kernels.attention import Segments

SEARCHED_AT_ONCE = 65536
"""Tokens read at a time in search of a document; one begins within the first few thousand of nearly every shard."""


def document_segments(row: np.ndarray | Tensor, longest: int, *, device: torch.device | None = None) -> Segments:
    """Segments of a packed row on the CPU: its documents, each cut every ``longest`` tokens from its marker on."""
    return Segments.cut(np.flatnonzero(np.asarray(row) == BOS).tolist(), len(row), longest, device=device)


class PackedDocuments:
    """Rows of ``tokens`` consecutive tokens, cut from the shards in order without regard to documents.

    All streams walk together. A shard is entered at its first document. A round takes ``streams * (tokens + 1)`` tokens from
    the cursor on, of which stream r gets the r-th part; where a shard has no round left, its tail is dropped and the next
    one is entered, for ever. The last token of a part is a target only, the first one of the next part an input only.

    A micro-batch is one row, and its documents begin where its inputs are BOS: `document_segments` makes segments of them when
    the row is used, so that rows prepared ahead do not depend on the context in force. PR #2140 cuts ahead, and loses two
    rounds at each change.

    Args:
        shards: All training shards in order. Those too short for a round are passed over.
        stream: Which logical stream this is.
        streams: Number of logical streams.
        tokens: Tokens of the row.
        vocab_size: Token ids must lie below this.

    Raises:
        DataError: no shard is long enough for a round, or one that is has no document.

    Source: PR #2140; the same order as a run on ``streams`` GPUs.
    """

    def __init__(self, shards: Sequence[Shard], *, stream: int, streams: int, tokens: int, vocab_size: int = 65536) -> None:
        check_stream(stream, streams, tokens, 1)
        self._stream, self._vocab_size = stream, vocab_size
        self._span, self._round = tokens + 1, streams * (tokens + 1)
        self._own = identity(shards, stream=stream, streams=streams, tokens=tokens)
        found = [(shard, _first_document(shard)) for shard in shards if shard.tokens >= self._round]
        self._places = [(shard, first) for shard, first in found if first + self._round <= shard.tokens]
        if not self._places:
            longest = max((shard.tokens for shard in shards), default=0)
            raise DataError(
                f"no training shard holds {self._round} tokens behind its first document, one round of {streams} streams; the "
                f"longest has {longest}; use a smaller train.batch_tokens, larger shards (shard_tokens) or more text"
            )
        self._which, self._cursor = 0, self._places[0][1]

    def next_batch(self) -> Batch:
        """Inputs and targets of the next row, each int64 (1, tokens).

        Raises:
            DataError: a token id is not below ``vocab_size``.
        """
        if self._cursor + self._round > self._places[self._which][0].tokens:
            self._which = (self._which + 1) % len(self._places)
            self._cursor = self._places[self._which][1]
        shard = self._places[self._which][0]
        begin = self._cursor + self._stream * self._span
        values = shard.values[begin : begin + self._span]
        check_vocabulary(values, self._vocab_size, str(shard.path))
        self._cursor += self._round
        row = values.astype(np.int64)[None]
        return row[:, :-1], row[:, 1:]

    def state(self) -> dict[str, Any]:
        """The shard and the cursor in it; all JSON."""
        return {**self._own, "kind": "packed_documents", "shard": self._which, "cursor": self._cursor}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue exactly where ``state`` was taken.

        Raises:
            DataError: the state belongs to other data or settings.
        """
        check_identity({**self._own, "kind": "packed_documents"}, state)
        which, cursor = state["shard"], state["cursor"]
        if not isinstance(which, int) or not 0 <= which < len(self._places):
            raise DataError(f"the saved loader state has shard={which!r}, outside 0..{len(self._places) - 1}")
        shard, first = self._places[which]
        if not isinstance(cursor, int) or not first <= cursor <= shard.tokens or (cursor - first) % self._round:
            raise DataError(
                f"the saved loader state has cursor={cursor!r}, where no round of {shard.path.name} begins or ends; "
                "resume with the state that the run saved"
            )
        self._which, self._cursor = which, cursor


def _first_document(shard: Shard) -> int:
    """Position of the first BOS; the tokens before it end a document of the shard before."""
    for begin in range(0, shard.tokens, SEARCHED_AT_ONCE):
        found = np.flatnonzero(shard.values[begin : begin + SEARCHED_AT_ONCE] == BOS)
        if len(found):
            return begin + int(found[0])
    raise DataError(
        f"{shard.path} has no BOS (id {BOS}) in its {shard.tokens} tokens, so no document begins in it; "
        "use --train.loader random_windows, larger shards, or shorter documents"
    )

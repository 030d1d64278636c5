"""What every loader of training batches has in common.

Data is dealt to a fixed number of logical streams. A physical rank serves several of them in turn, so the batches of a
step do not depend on how many ranks there are. No loader depends on the seed of the run. Inputs and targets are int64,
the target is the input shifted by one, and every target counts, BOS included.
"""

import hashlib
import json
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int64

from fairway.base.errors import DataError
from fairway.data.shards import Shard

Batch = tuple[Int64[np.ndarray, "rows context"], Int64[np.ndarray, "rows context"]]


@runtime_checkable
class Loader(Protocol):
    """A source of micro-batches that can be stopped and continued."""

    def next_batch(self) -> Batch:
        """Inputs and targets of the next micro-batch."""
        ...

    def state(self) -> dict[str, Any]:
        """Where the loader stands, as a value that JSON can hold."""
        ...

    def restore(self, state: dict[str, Any]) -> None:
        """Continue exactly where `state` was taken."""
        ...


def identity(shards: Sequence[Shard], **settings: int) -> dict[str, Any]:
    """What a state belongs to: settings and the shards' names and lengths, but not where they lie."""
    names = json.dumps([[shard.path.name, shard.tokens] for shard in shards])
    return {**settings, "shards": hashlib.sha256(names.encode()).hexdigest()[:16]}


def check_identity(own: dict[str, Any], state: dict[str, Any]) -> None:
    """Refuse a saved state that belongs to other data or settings."""
    for key, value in own.items():
        if state.get(key) != value:
            raise DataError(
                f"the saved loader state has {key}={state.get(key)!r}, this run has {value!r}; "
                "resume with the data and settings of the run that saved it"
            )


def check_stream(stream: int, streams: int, context: int, rows: int) -> None:
    """Refuse a stream that is not one of ``streams``, and an empty micro-batch."""
    if streams < 1 or not 0 <= stream < streams:
        raise DataError(f"stream {stream} is outside 0..{streams - 1}; count the streams from 0")
    if context < 1 or rows < 1:
        raise DataError(f"a micro-batch of {rows} rows of {context} tokens is empty; both must be at least 1")

"""The scoring protocol. Everything that scores text is a predictor; only ``driver.py`` walks the text.

A predictor is asked twice per block of targets. ``predict`` returns a distribution over the whole vocabulary at each
scored position and must not change state; ``observe`` gets the block's tokens after the block is in the ledger and may
change state. So *score before update* and *single pass* hold for every predictor, whatever it does inside.

Predictors compose by wrapping: a wrapper changes the distribution that its inner predictor returns, or what it does with
observed blocks, and hands both calls on.
"""

from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int, Int64
from torch import Tensor


@dataclass(frozen=True)
class WindowBatch:
    """Rows of equal length, cut from the stream by the driver; the last target of a row is never among its inputs."""

    inputs: Int[Tensor, "rows length"]
    """Token ids that the prediction may depend on, each row causally."""
    first_scored: int
    """Column from which on every position is scored."""
    starts: Int[Tensor, " rows"]
    """Position in the stream of each row's first input."""
    coded: Int[Tensor, " coded"]
    """Text from the first input that no ``observe`` has covered, to the last input of the rows. All of it is coded before the
    last target of the rows; the target of input ``i`` may depend on the part up to input ``i``."""
    coded_start: int
    """Position in the stream of ``coded[0]``."""


class Turn(NamedTuple):
    """Where the order of coding takes up a document, for what reads text in that order."""

    begin: int
    """Entry of the first target; the turn ends where the next one begins."""
    recent: Int64[np.ndarray, " recent"]
    """The document's last inputs up to that target, the document marker included if it is among them."""
    document: int
    """Number of the document in the stream."""
    position: int
    """Inputs of the document before that target's."""


@dataclass(frozen=True)
class LaneBatch(WindowBatch):
    """Rows of several documents, in an order of coding of their own.

    Stream positions are entries of that order: ``starts`` is where a row's first input would be if the row were one piece, so
    that scored columns are at their entries.
    """

    lanes: tuple[int, ...]
    """Which adapters each row is computed with."""
    turns: tuple[Turn, ...]
    """All turns from ``coded_start`` on, to that of the last row."""


@dataclass(frozen=True)
class Revealed:
    """A stretch of text whose every target is in the ledger."""

    tokens: Int[Tensor, " length_plus_1"]
    """Inputs and the last target: target ``i`` of the stretch is ``tokens[i + 1]``."""
    start: int
    """Position in the stream of ``tokens[0]``."""


@dataclass(frozen=True)
class RevealedLanes(Revealed):
    """A stretch in the order of coding: one chunk of several documents."""

    inputs: Int[Tensor, "rows length"]
    """Windows of the documents that go on, each with its whole chunk."""
    targets: Int[Tensor, "rows scored"]
    """Targets of the last columns of ``inputs``."""
    lanes: tuple[int, ...]
    """Which adapters these rows have."""
    ended: tuple[int, ...]
    """Adapters whose documents ended with this chunk."""
    turns: tuple[Turn, ...]
    """The turns of the stretch."""


@dataclass(frozen=True)
class RevealedText(Revealed):
    """Text that was revealed before, to train the whole network on; adapters begin anew after it. It may be empty."""


@runtime_checkable
class Predictor(Protocol):
    """What the driver asks of a scorer."""

    @property
    def vocab_size(self) -> int:
        """Number of token ids that a distribution covers."""
        ...

    def predict(self, batch: WindowBatch) -> Float[Tensor, "rows scored vocab"]:
        """Natural-log probabilities at the scored positions, normalised over the vocabulary; changes no state."""
        ...

    def observe(self, block: Revealed) -> None:
        """Learn from a block that has been scored; called once per block, in the order of the plan."""
        ...

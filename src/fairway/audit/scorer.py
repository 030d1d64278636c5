"""What the audit examines: anything that turns a stream of tokens into nats per target."""

from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float64, Int64

SideInformation = Literal["targets", "documents"]
"""What a scorer may know besides the text coded so far: the number of targets; where every document starts."""


@dataclass(frozen=True)
class Meta:
    """Side information handed to a scorer. A scorer that uses a field must declare it."""

    targets: int
    """Number of targets of the stream; it has one more token."""
    document_starts: tuple[int, ...] = (0,)
    """Positions of the tokens that open documents; the first is 0."""


@runtime_checkable
class Scorer(Protocol):
    """A scorer as a black box. Every call starts from the same fresh state: nothing may survive from an earlier call."""

    @property
    def name(self) -> str:
        """What it is called in tables."""
        ...

    @property
    def vocab_size(self) -> int:
        """Token ids lie in ``[0, vocab_size)``."""
        ...

    @property
    def declares(self) -> frozenset[SideInformation]:
        """Side information that a prediction may depend on."""
        ...

    def score(self, tokens: Int64[np.ndarray, " targets_plus_1"], meta: Meta) -> Float64[np.ndarray, " targets"]:
        """Nats of every target; entry ``i`` belongs to target ``tokens[i + 1]``, whose past is ``tokens[: i + 1]``."""
        ...


@runtime_checkable
class Distributional(Protocol):
    """A scorer that also shows whole distributions."""

    def distributions(
        self, tokens: Int64[np.ndarray, " targets_plus_1"], meta: Meta, targets: Int64[np.ndarray, " probes"]
    ) -> Float64[np.ndarray, "probes vocab"]:
        """Natural-log probabilities of every token at the given entries, as ``score`` used them."""
        ...


@runtime_checkable
class Scheduled(Protocol):
    """A scorer that states its order of coding; without it the order is that of the stream, one target at a time."""

    def schedule(self, meta: Meta) -> list[Int64[np.ndarray, " group"]]:
        """Entries committed together, group after group; a function of side information alone.

        Inside a group every entry may depend on earlier groups and on earlier tokens of its own document or stretch.
        """
        ...


@runtime_checkable
class Independent(Protocol):
    """A scorer that claims to score every document as if no other existed."""

    @property
    def documents_independent(self) -> bool:
        """Whether that is claimed."""
        ...


@runtime_checkable
class Session(Protocol):
    """One walk of a stepwise scorer over a stream that it cannot see."""

    def propose(self) -> Float64[np.ndarray, " vocab"]:
        """Natural-log probabilities of the next token of the order of coding; changes no state."""
        ...

    def reveal(self, token: int) -> None:
        """Tell which token it was."""
        ...


@runtime_checkable
class Stepwise(Protocol):
    """A scorer that can be driven one target at a time, in the order of the stream."""

    def start(self, first: int, meta: Meta) -> Session:
        """Begin a walk after token ``first``."""
        ...

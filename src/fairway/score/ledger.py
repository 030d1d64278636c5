"""The ledger: what each target cost, written once, in the order of coding."""

import math
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float32, Int64, UInt16

from fairway.base.errors import ValidityError


@dataclass
class Ledger:
    """Append-only record of nats per target. Entry ``i`` belongs to input ``i``, whose target is token ``i + 1``."""

    byte_costs: UInt16[np.ndarray, " targets"]
    """UTF-8 bytes that each target stands for; 0 for the document marker."""
    nats: Float32[np.ndarray, " targets"] = field(init=False)
    order: Int64[np.ndarray, " targets"] = field(init=False)
    """Running number of each target in the order of coding; -1 while unscored."""
    committed: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self.nats = np.full(len(self.byte_costs), np.nan, dtype=np.float32)
        self.order = np.full(len(self.byte_costs), -1, dtype=np.int64)

    def commit(self, inputs: Int64[np.ndarray, " n"], nats: Float32[np.ndarray, " n"]) -> None:
        """Record the cost of the targets of ``inputs``.

        Raises:
            ValidityError: a target is scored a second time, or its cost is negative, infinite or not a number.
        """
        again = np.flatnonzero(self.order[inputs] >= 0)
        if len(again):
            raise ValidityError(f"target {inputs[again[0]] + 1} is scored twice; every target counts once, in its first pass")
        bad = np.flatnonzero(~(np.isfinite(nats) & (nats >= 0)))
        if len(bad):
            raise ValidityError(
                f"target {inputs[bad[0]] + 1} costs {nats[bad[0]]} nats; a normalised distribution gives a finite cost >= 0"
            )
        self.nats[inputs] = nats
        self.order[inputs] = np.arange(self.committed, self.committed + len(inputs))
        self.committed += len(inputs)

    def require_scored(self, first: int, stop: int) -> None:
        """Refuse to reveal inputs ``[first, stop)`` while one of their targets is unscored."""
        missing = np.flatnonzero(self.order[first:stop] < 0)
        if len(missing):
            raise ValidityError(f"target {first + missing[0] + 1} would be revealed before it is scored; change the plan")

    @property
    def total_nats(self) -> float:
        """Sum of the costs in nats, in float64.

        Raises:
            ValidityError: a target was never scored.
        """
        self.require_scored(0, len(self.order))
        return float(self.nats.astype(np.float64).sum())

    @property
    def total_bytes(self) -> int:
        """Bytes of the scored text."""
        return int(self.byte_costs.astype(np.int64).sum())

    @property
    def bits_per_byte(self) -> float:
        """``nats / (ln 2 * bytes)``."""
        return self.total_nats / math.log(2.0) / self.total_bytes

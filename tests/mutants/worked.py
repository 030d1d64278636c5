"""The values that the rules of the challenge give for their own toys (rules, section 5.2 K and Pitfalls 1 to 3)."""

from collections.abc import Callable

import numpy as np

from fairway.audit.scorer import Meta
from fairway.audit.witness import Case, sum_over
from mutants.base import Tilted, Toy, tilted
from mutants.breaches import (
    OracleSelection,
    Slot,
    StreamHints,
    TrainThenScore,
    TwoPass,
    UnnormalisedBlend,
    WithinWord,
)
from mutants.valid import Adaptive, Chunked, DeclaredLength

LENGTHS = ((8, (0, 4)), (8, (0, 3)), (9, (0, 3, 6)))
"""Targets and document starts of documents of 3 + 5, 2 + 6 and 2 + 3 + 4 targets; the first token is given."""

KRAFT: tuple[tuple[str, type[Toy], str], ...] = (
    ("adaptive bigram", Adaptive, "1 / 1 / 1"),
    ("score-first chunks", Chunked, "1 / 1 / 1"),
    ("prefix tilt", Tilted, "1 / 1 / 1"),
    ("length order", DeclaredLength, "1 / 1 / 1"),
    ("target-gated tilt", WithinWord, "0.977 / 0.948 / 0.965"),
    ("unnormalised blend", UnnormalisedBlend, "5.49 / 5.49 / 7.63"),
    ("oracle selection", OracleSelection, "3.63 / 3.70 / 4.42"),
    ("two passes", TwoPass, "10.5 / 10.4 / 12.3"),
    ("train, then score", TrainThenScore, "15.4 / 13.6 / 18.0"),
    ("SLOT", Slot, "14.2 / 14.4 / 16.7"),
    ("length order, stream-order hints", StreamHints, "1.31 / 1.57 / 1.56"),
)


class Constant:
    """The same nats for a token wherever it stands."""

    declares = frozenset()

    def __init__(self, name: str, nats: np.ndarray) -> None:
        self.name, self.nats, self.vocab_size = name, nats, len(nats)

    def score(self, tokens: np.ndarray, meta: Meta) -> np.ndarray:
        return self.nats[tokens[1:]]


def gated(by_target: bool) -> Constant:
    """Hint of probability 0.2, strength 2; the tilt is used on the targets of a class of mass 0.6, or on all."""
    p = np.array([0.2, 0.4, 0.25, 0.15])
    with_hint = tilted(p[None], np.array([0]), 2.0)[0]
    of_class = np.array([True, True, False, False])
    return Constant("tilt gated by the target's class", -np.log(np.where(of_class | (not by_target), with_hint, p)))


def blended() -> Constant:
    """Ten tokens of probability 0.1, mixed with weight 0.4 with a cache that says 0.9 for whatever is asked."""
    return Constant("blend on the true token alone", np.full(10, -np.log(0.6 * 0.1 + 0.4 * 0.9)))


def excess(make: Callable[[], Constant]) -> float:
    """Sum over all substitutions of one target, less 1."""
    scorer = make()
    case = Case(np.zeros(2, dtype=np.int64), Meta(1))
    return sum_over(scorer, case, 0, list(range(scorer.vocab_size))) - 1.0


WORKED: tuple[tuple[str, Callable[[], float], float], ...] = (
    ("sum at one target, tilt gated by its class", lambda: excess(lambda: gated(True)), 1.22439),
    ("sum at one target, tilt not gated", lambda: excess(lambda: gated(False)), 1.0),
    ("sum at one target, blend on the true token", lambda: excess(blended), 4.2),
)

"""Witnesses: the smallest example of a breach, made so that anyone can feed it again and see the same two numbers."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int64

from fairway.audit.finding import Witness
from fairway.audit.scorer import Distributional, Meta, Scorer, Stepwise
from fairway.base.errors import DataError


@dataclass(frozen=True, eq=False)
class Case:
    """One input of a scorer."""

    tokens: Int64[np.ndarray, " targets_plus_1"]
    meta: Meta

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        starts = [int(start) for start in self.meta.document_starts]
        return {"tokens": self.tokens.tolist(), "targets": int(self.meta.targets), "document_starts": starts}

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> "Case":
        """Back from JSON."""
        meta = Meta(content["targets"], tuple(content["document_starts"]))
        return cls(np.array(content["tokens"], dtype=np.int64), meta)


def difference(how: str, first: Case, second: Case, entry: int, expected: float, found: float, shift: int = 0) -> Witness:
    """Two inputs under which the nats of one entry ought to be equal and are not.

    Args:
        how: What was done.
        first: The stream.
        second: The stream after the change.
        entry: Entry in the first stream; in the second it is ``entry + shift``.
        expected: Nats in the first.
        found: Nats in the second.
        shift: Distance of the entry between the two.
    """
    tokens: dict[str, Any] = {"compare": "nats", "first": first.to_dict(), "second": second.to_dict(), "shift": shift}
    if len(first.tokens) == len(second.tokens) and shift == 0:
        places = np.flatnonzero(first.tokens != second.tokens)
        tokens["substituted"] = {str(place): [int(first.tokens[place]), int(second.tokens[place])] for place in places}
    return Witness(entry, tokens, expected, found, how)


def replay(witness: Witness, scorer: Scorer) -> tuple[float, float]:
    """Feed a witness to the scorer again and return the expected and the found number.

    Raises:
        DataError: the witness is of a kind that no scorer can replay, such as one about files.
    """
    kind = witness.tokens.get("compare")
    if kind not in _REPLAYS:
        raise DataError(f"this witness compares {kind!r}, which needs more than a scorer; it says: {witness.how}")
    return _REPLAYS[kind](witness, scorer)


def _nats(scorer: Scorer, case: Case) -> np.ndarray:
    return np.asarray(scorer.score(case.tokens.copy(), case.meta), dtype=np.float64)


def _replay_nats(witness: Witness, scorer: Scorer) -> tuple[float, float]:
    first = Case.from_dict(witness.tokens["first"])
    if "second" not in witness.tokens:
        values = _nats(scorer, first)
        return witness.expected, float(values.size if witness.position < 0 else values[witness.position])
    before = float(_nats(scorer, first)[witness.position])
    if "between" in witness.tokens:
        _nats(scorer, Case.from_dict(witness.tokens["between"]))
    after = float(_nats(scorer, Case.from_dict(witness.tokens["second"]))[witness.position + witness.tokens["shift"]])
    return before, after


def _replay_sum(witness: Witness, scorer: Scorer) -> tuple[float, float]:
    case = Case.from_dict(witness.tokens["first"])
    return 1.0, sum_over(scorer, case, witness.position, witness.tokens["tried"])


def sum_over(scorer: Scorer, case: Case, entry: int, tokens: list[int]) -> float:
    """``sum over v of exp(-nats)`` of an entry with its target replaced by each of ``tokens``."""
    total = 0.0
    for token in tokens:
        changed = case.tokens.copy()
        changed[entry + 1] = token
        total += float(np.exp(-_nats(scorer, Case(changed, case.meta))[entry]))
    return total


def _replay_hook(witness: Witness, scorer: Scorer) -> tuple[float, float]:
    """Nats of a target, against what the distribution shown for the original stream says of it."""
    assert isinstance(scorer, Distributional)
    first, second = Case.from_dict(witness.tokens["first"]), Case.from_dict(witness.tokens["second"])
    entry, token = witness.position, int(witness.tokens["token"])
    shown = scorer.distributions(first.tokens.copy(), first.meta, np.array([entry]))[0]
    if witness.tokens["second_is"] == "distribution":
        again = scorer.distributions(second.tokens.copy(), second.meta, np.array([entry]))[0]
        return float(-shown[token]), float(-again[token])
    return float(-shown[token]), float(_nats(scorer, second)[entry])


def _replay_normalisation(witness: Witness, scorer: Scorer) -> tuple[float, float]:
    assert isinstance(scorer, Distributional)
    case = Case.from_dict(witness.tokens["first"])
    shown = scorer.distributions(case.tokens.copy(), case.meta, np.array([witness.position]))[0]
    return 1.0, float(np.exp(shown).sum())


def _replay_kraft(witness: Witness, scorer: Scorer) -> tuple[float, float]:
    starts = tuple(witness.tokens["document_starts"])
    fixed = {int(place): token for place, token in witness.tokens["fixed"].items()}
    return 1.0, kraft_sum(scorer, witness.tokens["vocab_size"], witness.tokens["targets"], starts, fixed)


def kraft_sum(scorer: Scorer, vocab_size: int, targets: int, starts: tuple[int, ...], fixed: dict[int, int]) -> float:
    """``sum over all streams x of exp(-sum of nats(x))``, the tokens at the places ``fixed`` held."""
    total = 0.0
    for tokens in every_stream(vocab_size, targets, fixed):
        total += float(np.exp(-_nats(scorer, Case(tokens, Meta(targets, starts))).sum()))
    return total


def every_stream(vocab_size: int, targets: int, fixed: dict[int, int]) -> list[np.ndarray]:
    """All streams of ``targets`` targets after the token 0 (or the fixed one), the places ``fixed`` held."""
    free = [place for place in range(1, targets + 1) if place not in fixed]
    streams = []
    for number in range(vocab_size ** len(free)):
        tokens = np.zeros(targets + 1, dtype=np.int64)
        tokens[list(fixed)] = list(fixed.values())
        rest = number
        for place in free:
            rest, tokens[place] = divmod(rest, vocab_size)
        streams.append(tokens)
    return streams


def _replay_total(witness: Witness, scorer: Scorer) -> tuple[float, float]:
    order = witness.tokens["order"]
    return witness.expected, float(_nats(scorer, Case.from_dict(witness.tokens["first"]))[order].sum())


def _replay_walk(witness: Witness, scorer: Scorer) -> tuple[float, float]:
    """Nats that a walk hands over before it is told the target, against the nats of the score."""
    assert isinstance(scorer, Stepwise)
    case, order = Case.from_dict(witness.tokens["first"]), witness.tokens["order"]
    blind = Meta(witness.tokens["told_targets"], tuple(witness.tokens["told_starts"]))
    session = scorer.start(int(case.tokens[0]), blind)
    for entry in order:
        proposal = session.propose()
        if entry == witness.position:
            handed = -proposal[case.tokens[entry + 1]]
            if witness.tokens["second_is"] == "sum":
                return 1.0, float(np.exp(proposal).sum())
            return float(handed), float(_nats(scorer, case)[entry])
        session.reveal(int(case.tokens[entry + 1]))
    raise DataError(f"the walk does not come to entry {witness.position}")


_REPLAYS: dict[str, Callable[[Witness, Scorer], tuple[float, float]]] = {
    "nats": _replay_nats,
    "sum": _replay_sum,
    "hook": _replay_hook,
    "normalisation": _replay_normalisation,
    "kraft": _replay_kraft,
    "total": _replay_total,
    "walk": _replay_walk,
}

"""Valid toy scorers, and toys that each break one thing. All predict from smoothed bigram counts."""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from fairway.audit.scorer import Meta

VOCAB = 16
BETA = 2.0


def bigram(vocab: int, past: np.ndarray) -> np.ndarray:
    """Distribution after ``past``: bigram counts of the past, add one half."""
    counts = np.full(vocab, 0.5)
    if len(past) > 1:
        follows = np.flatnonzero(past[:-1] == past[-1])
        np.add.at(counts, past[follows + 1], 1.0)
    return counts / counts.sum()


def hint(past: np.ndarray) -> int | None:
    """What followed the last two tokens when they last stood together."""
    if len(past) < 3:
        return None
    found = np.flatnonzero((past[:-2] == past[-2]) & (past[1:-1] == past[-1]))
    return int(past[found[-1] + 2]) if len(found) else None


def tilt(p: np.ndarray, token: int) -> np.ndarray:
    boosted = p.copy()
    boosted[token] *= np.exp(BETA)
    return boosted / boosted.sum()


def is_inside(token: int) -> bool:
    """The class that a leaking gate looks at: odd tokens."""
    return token % 2 == 1


@dataclass
class Walk:
    scorer: "Toy"
    past: list[int]
    meta: Meta

    def propose(self) -> np.ndarray:
        return np.log(self.scorer.predict(np.array(self.past), self.meta))

    def reveal(self, token: int) -> None:
        self.past.append(token)


@dataclass
class Toy:
    """A distribution from the past alone: causal, normalised, one pass."""

    name: str = "adaptive bigram"
    vocab_size: int = VOCAB
    declares: frozenset = field(default_factory=frozenset)
    tilted: bool = False

    def predict(self, past: np.ndarray, meta: Meta) -> np.ndarray:
        p = bigram(self.vocab_size, past)
        proposed = hint(past) if self.tilted else None
        return p if proposed is None else tilt(p, proposed)

    def score(self, tokens: np.ndarray, meta: Meta) -> np.ndarray:
        return np.array([-np.log(self.cost(tokens, entry, meta)) for entry in range(len(tokens) - 1)])

    def cost(self, tokens: np.ndarray, entry: int, meta: Meta) -> float:
        """Probability charged for one target; a leak overrides this."""
        return float(self.predict(tokens[: entry + 1], meta)[tokens[entry + 1]])

    def distributions(self, tokens: np.ndarray, meta: Meta, targets: np.ndarray) -> np.ndarray:
        return np.log(np.stack([self.predict(tokens[: entry + 1], meta) for entry in targets]))

    def start(self, first: int, meta: Meta) -> Walk:
        return Walk(self, [first], meta)


class BlackBox:
    """A scorer of which nothing but its score is known: probability charged = cost(tokens, entry, vocabulary)."""

    def __init__(
        self, cost: Callable[[np.ndarray, int, int], float], vocab_size: int = VOCAB, declares: frozenset = frozenset()
    ) -> None:
        self.name = getattr(cost, "__name__", "black box")
        self.vocab_size, self.declares, self._cost = vocab_size, declares, cost

    def score(self, tokens: np.ndarray, meta: Meta) -> np.ndarray:
        return np.array([-np.log(self._cost(tokens, entry, self.vocab_size)) for entry in range(len(tokens) - 1)])


def honest(tokens: np.ndarray, entry: int, vocab: int) -> float:
    return float(bigram(vocab, tokens[: entry + 1])[tokens[entry + 1]])


def gated(tokens: np.ndarray, entry: int, vocab: int) -> float:
    """Tilt only where the target is of the class: each distribution sums to one, but which one it is depends on the target."""
    past, target = tokens[: entry + 1], int(tokens[entry + 1])
    p, proposed = bigram(vocab, past), hint(past)
    return float((tilt(p, proposed) if proposed is not None and is_inside(target) else p)[target])


def blend(tokens: np.ndarray, entry: int, vocab: int) -> float:
    """A ratio mixed in for the true token alone."""
    return 0.6 * honest(tokens, entry, vocab) + 0.4 * 0.9


def two_pass(tokens: np.ndarray, entry: int, vocab: int) -> float:
    """Counts of the whole text, the target's own included."""
    return float(bigram(vocab, np.concatenate([tokens, tokens[: entry + 1]]))[tokens[entry + 1]])


def next_token(tokens: np.ndarray, entry: int, vocab: int) -> float:
    """Looks one token further than the target; for the last there is none."""
    p = bigram(vocab, tokens[: entry + 1])
    return float((tilt(p, int(tokens[entry + 2])) if entry + 2 < len(tokens) else p)[tokens[entry + 1]])


def warmed_up(tokens: np.ndarray, entry: int, vocab: int) -> float:
    """The first eight targets are learnt before they are scored; all others after."""
    return float(bigram(vocab, np.concatenate([tokens[:9], tokens[: entry + 1]]))[tokens[entry + 1]])


def sure_of_what_it_knows(tokens: np.ndarray, entry: int, vocab: int) -> float:
    """The probabilities sum to 0.6 after a token that is new, and to one more than its number of earlier places, at most 5."""
    places = int((tokens[:entry] == tokens[entry]).sum())
    return (min(5.0, 1.0 + places) if places else 0.6) / vocab


def skipping(tokens: np.ndarray, entry: int, vocab: int) -> float:
    """Hard targets are free."""
    p = honest(tokens, entry, vocab)
    return 1.0 if p < 0.05 else p


class LengthRate(Toy):
    """Smoothing falls with the share of the text that is done: valid only if the number of targets is declared."""

    def predict(self, past: np.ndarray, meta: Meta) -> np.ndarray:
        counts = bigram(self.vocab_size, past) + len(past) / max(meta.targets, 1)
        return counts / counts.sum()


class LengthOrdered(Toy):
    """Documents longest first, counts carried over: its own order is a code, the stream's is not."""

    stream_hints = False
    start = None
    distributions = None

    def schedule(self, meta: Meta) -> list[np.ndarray]:
        edges = [*meta.document_starts, meta.targets + 1]
        spans = sorted(pairwise(edges), key=lambda span: span[0] - span[1])
        return [np.arange(max(0, first - 1), stop - 1) for first, stop in spans]

    def score(self, tokens: np.ndarray, meta: Meta) -> np.ndarray:
        nats = np.zeros(meta.targets)
        counts: dict[int, np.ndarray] = defaultdict(lambda: np.full(self.vocab_size, 0.5))
        for group in self.schedule(meta):
            for entry in group:
                if entry + 1 in meta.document_starts:
                    continue  # Where documents begin is declared, so their markers cost nothing.
                before, target = int(tokens[entry]), int(tokens[entry + 1])
                p = counts[before] / counts[before].sum()
                proposed = hint(tokens[: entry + 1]) if self.stream_hints else None
                nats[entry] = -np.log((tilt(p, proposed) if proposed is not None else p)[target])
                counts[before][target] += 1.0
        return nats


class StreamHints(LengthOrdered):
    """The same with hints from the stream before: no order exists in which both could be decoded."""

    stream_hints = True


class Documents(Toy):
    """Counts are forgotten at every document start."""

    documents_independent = True
    looks_back = False

    def predict(self, past: np.ndarray, meta: Meta) -> np.ndarray:
        start = max(start for start in meta.document_starts if start < len(past))
        p = bigram(self.vocab_size, past[start:])
        if self.looks_back and len(past) == start + 1 and start > 0:
            p = tilt(p, int(past[start - 1]))
        return p


class LookBack(Documents):
    """The first prediction of a document remembers the last token of the one before."""

    looks_back = True


class Forgetful(Toy):
    """Counts survive between runs."""

    def __init__(self) -> None:
        super().__init__()
        self.kept = np.zeros(0, dtype=np.int64)

    def score(self, tokens: np.ndarray, meta: Meta) -> np.ndarray:
        kept, self.kept = self.kept, tokens
        return np.array(
            [
                -np.log(bigram(VOCAB, np.concatenate([kept, tokens[: entry + 1]]))[tokens[entry + 1]])
                for entry in range(len(tokens) - 1)
            ]
        )

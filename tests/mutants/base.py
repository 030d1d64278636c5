"""A scoring machine without a network, of which valid scorers and their mutants are made.

It predicts with an adaptive bigram, ``p(v | a) = (n(a, v) + PRIOR * artifact(v | a)) / (n(a) + PRIOR)``, walks the text in
groups of targets, and counts a group only after its nats are written down. Every step of that walk is one small method, so
that a mutant is a valid scorer with one method replaced: what it replaces is its breach, and nothing else differs.
"""

import functools
from dataclasses import dataclass, field
from typing import ClassVar, Self

import numpy as np

from fairway.audit.scorer import Meta, SideInformation

VOCAB, CHUNK, PRIOR = 16, 8, 1.0
SMALL_CHUNK = 3
"""Targets of a group where all streams are enumerated, so that several groups fit into nine tokens."""
TILT = 2.0
"""Log-odds that a hint gets."""


@dataclass(frozen=True, eq=False)
class Text:
    """What lies in front of a scorer. A valid one looks at ``tokens[: entry + 1]`` when it predicts ``entry``."""

    tokens: np.ndarray
    meta: Meta

    @property
    def targets(self) -> int:
        """Targets that lie here; ``meta.targets`` counts those of the whole text, of which this may be a beginning."""
        return len(self.tokens) - 1

    @functools.cached_property
    def opens(self) -> np.ndarray:
        """Whether each token opens a document."""
        opens = np.zeros(len(self.tokens), dtype=bool)
        opens[[start for start in self.meta.document_starts if start < len(opens)]] = True
        return opens

    def documents(self) -> list[np.ndarray]:
        """Entries of each document, its first token among its targets, in the order of the stream."""
        starts = np.flatnonzero(self.opens)
        ends = [*(starts[1:] - 1), self.targets]
        return [np.arange(max(0, start - 1), end) for start, end in zip(starts, ends, strict=True)]


@dataclass
class State:
    """All that a machine learns from text."""

    counts: np.ndarray
    """How often token ``v`` followed context ``a``; the last row is the context of a document's first token."""
    bias: np.ndarray
    """Added to the logits of all targets."""
    learned: int = 0
    """Groups counted so far."""
    tables: dict[str, np.ndarray] = field(default_factory=dict)
    """Hash tables of the machines that have some."""


class Toy:
    """Score-first groups of ``CHUNK`` targets in the order of the stream. A black box: only nats come out."""

    title: ClassVar[str] = "score-first chunks"
    declares: frozenset[SideInformation] = frozenset()
    spread: ClassVar[float] = 0.0
    """Deviation of the artifact's logits; 0 predicts uniformly before anything is learned."""
    lookback: ClassVar[float] = 0.0
    """Share of the token before the last in the artifact's prediction."""

    def __init__(self, vocab_size: int = VOCAB, chunk: int = CHUNK) -> None:
        self.vocab_size, self.chunk = vocab_size, chunk
        logits = np.random.default_rng(0).normal(size=(vocab_size + 1, vocab_size)) * self.spread
        self.artifact = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)

    @property
    def name(self) -> str:
        return self.title

    def miniature(self, vocab_size: int) -> Self:
        return type(self)(vocab_size, SMALL_CHUNK)

    def score(self, tokens: np.ndarray, meta: Meta) -> np.ndarray:
        text = Text(tokens, meta)
        state, nats = self.fresh(text), np.zeros(len(tokens) - 1)
        for entries in self.groups(text):
            self.enter(state, text, entries)
            nats[entries] = self.step(state, text, entries)
        return nats

    def step(self, state: State, text: Text, entries: np.ndarray) -> np.ndarray:
        nats = self.cost(state, text, entries)
        self.learn(state, text, entries)
        return nats

    def fresh(self, text: Text) -> State:
        return State(np.zeros((self.vocab_size + 1, self.vocab_size)), np.zeros(self.vocab_size))

    def groups(self, text: Text) -> list[np.ndarray]:
        return pieces(np.arange(text.targets), self.chunk)

    def enter(self, state: State, text: Text, entries: np.ndarray) -> None:
        """Called before a group is predicted."""

    def cost(self, state: State, text: Text, entries: np.ndarray) -> np.ndarray:
        chosen = self.predict(state, text, entries)[np.arange(len(entries)), text.tokens[entries + 1]]
        return -np.log(chosen)

    def predict(self, state: State, text: Text, entries: np.ndarray) -> np.ndarray:
        """Probabilities of all tokens at each entry; changes no state."""
        rows = self.contexts(text, entries)
        counts, before = state.counts[rows], self.prior(text, entries, rows)
        p = (counts + PRIOR * before) / (counts.sum(-1, keepdims=True) + PRIOR)
        return biased(p, state.bias) if state.bias.any() else p

    def prior(self, text: Text, entries: np.ndarray, rows: np.ndarray) -> np.ndarray:
        if not self.lookback:
            return self.artifact[rows]
        reach = self.lookback * self.sees_back(text, entries)[:, None]
        return (1 - reach) * self.artifact[rows] + reach * self.artifact[text.tokens[np.maximum(entries - 1, 0)]]

    def sees_back(self, text: Text, entries: np.ndarray) -> np.ndarray:
        """Whether the token before the last may be looked at: in a document of one's own, from its second token on."""
        closed = "documents" in self.declares
        return (entries > 0) & ~(closed & (text.opens[entries] | text.opens[entries + 1]))

    def contexts(self, text: Text, entries: np.ndarray) -> np.ndarray:
        """Row of counts of each entry: its last token, or that of a beginning where documents are declared."""
        rows = text.tokens[entries]
        if "documents" in self.declares:
            rows = np.where(text.opens[entries + 1], self.vocab_size, rows)
        return rows

    def learn(self, state: State, text: Text, entries: np.ndarray) -> None:
        rate = self.rate(state.learned, text)
        np.add.at(state.counts, (self.contexts(text, entries), text.tokens[entries + 1]), rate)
        state.learned += 1

    def rate(self, group: int, text: Text) -> float:
        return 1.0


class Shown(Toy):
    """A machine that also shows its distributions and can be walked target by target."""

    def distributions(self, tokens: np.ndarray, meta: Meta, targets: np.ndarray) -> np.ndarray:
        text = Text(tokens, meta)
        state, p = self.fresh(text), np.zeros((len(tokens) - 1, self.vocab_size))
        for entries in self.groups(text):
            self.enter(state, text, entries)
            p[entries] = self.predict(state, text, entries)
            self.step(state, text, entries)
        with np.errstate(divide="ignore"):
            return np.log(p[targets])

    def start(self, first: int, meta: Meta) -> "Walk":
        return Walk(self, first, meta)


class Walk:
    """The machine's own steps over a text of which only the revealed tokens are there, and zeros elsewhere."""

    def __init__(self, toy: Shown, first: int, meta: Meta) -> None:
        self.toy, self.text = toy, Text(np.zeros(meta.targets + 1, dtype=np.int64), meta)
        self.text.tokens[0] = first
        self.state = toy.fresh(self.text)
        self.waiting = [np.sort(group) for group in toy.groups(self.text)]
        self.place = 0
        toy.enter(self.state, self.text, self.waiting[0])

    def propose(self) -> np.ndarray:
        return np.log(self.toy.predict(self.state, self.text, self.waiting[0][self.place : self.place + 1])[0])

    def reveal(self, token: int) -> None:
        group = self.waiting[0]
        self.text.tokens[group[self.place] + 1] = token
        self.place += 1
        if self.place == len(group):
            self.toy.learn(self.state, self.text, group)
            self.waiting, self.place = self.waiting[1:], 0
            if self.waiting:
                self.toy.enter(self.state, self.text, self.waiting[0])


class Tilted(Shown):
    """The token that last followed the two last tokens gets ``TILT`` nats of log-odds, and all are normalised again."""

    title = "prefix tilt"

    def predict(self, state: State, text: Text, entries: np.ndarray) -> np.ndarray:
        hints = self.hints(text, entries)
        return tilted(super().predict(state, text, entries), np.where(self.gate(text, entries), hints, -1))

    def hints(self, text: Text, entries: np.ndarray) -> np.ndarray:
        return latest_followers(text.tokens, self.vocab_size)[entries]

    def gate(self, text: Text, entries: np.ndarray) -> np.ndarray:
        """Where the hint is used."""
        return np.ones(len(entries), dtype=bool)

    def continues_word(self, tokens: np.ndarray) -> np.ndarray:
        """The upper half of the vocabulary continues words, the lower half begins them."""
        return tokens >= self.vocab_size // 2


class LongestFirst(Shown):
    """Documents in the order of falling length, known from the side; what one teaches is there for the next."""

    title = "length order, carried state"
    declares = frozenset({"documents", "targets"})

    def groups(self, text: Text) -> list[np.ndarray]:
        documents = sorted(text.documents(), key=len, reverse=True)
        return [piece for document in documents for piece in pieces(document, self.chunk)]


def pieces(entries: np.ndarray, size: int) -> list[np.ndarray]:
    """Consecutive parts of ``size`` entries; the last may be shorter."""
    return [entries[first : first + size] for first in range(0, len(entries), size)]


def tilted(p: np.ndarray, hints: np.ndarray, strength: float = TILT) -> np.ndarray:
    """``p(v) exp(strength [v = hint]) / (1 + p(hint) (exp(strength) - 1))``; a hint of -1 changes nothing."""
    rows = np.flatnonzero(hints >= 0)
    p = p.copy()
    p[rows, hints[rows]] *= np.exp(strength)
    return p / p.sum(-1, keepdims=True)


def biased(p: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """``p(v) exp(bias(v))``, normalised."""
    p = p * np.exp(bias)
    return p / p.sum(-1, keepdims=True)


def latest_followers(tokens: np.ndarray, vocab_size: int, apart: np.ndarray | None = None) -> np.ndarray:
    """For each entry the token that came after the latest earlier occurrence of its two last tokens; -1 without one.

    Args:
        tokens: The text; entry ``e`` uses ``tokens[: e + 1]`` alone.
        vocab_size: Number of token ids.
        apart: Number of the stretch that each token belongs to, where a stretch may not use what came before it.
    """
    stretches = np.zeros_like(tokens) if apart is None else apart.astype(tokens.dtype)
    return _followers(tokens.tobytes(), stretches.tobytes(), vocab_size)


@functools.lru_cache(maxsize=4)
def _followers(content: bytes, stretches: bytes, vocab_size: int) -> np.ndarray:
    tokens, apart = np.frombuffer(content, dtype=np.int64), np.frombuffer(stretches, dtype=np.int64)
    last, before = tokens[1:-1], tokens[:-2]
    pairs = np.where(apart[1:-1] == apart[:-2], (apart[:-2] * vocab_size + before) * vocab_size + last, -1)
    pairs = np.concatenate([[-1], pairs])
    order = np.argsort(pairs, kind="stable")
    again = (pairs[order][1:] == pairs[order][:-1]) & (pairs[order][1:] >= 0)
    found = np.full(len(pairs), -1)
    found[order[1:][again]] = tokens[order[:-1][again] + 1]
    return found

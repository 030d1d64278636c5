"""Streams to audit with: generated from a seed, full of what mechanisms act on, or cut from real text.

Adaptive mechanisms are silent on text without repeats, so a leak in one is silent too. The streams here repeat long phrases
with small changes, and their documents share phrases, so that caches, hints and adaptation are at work at most targets.
"""

import dataclasses
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64

from fairway.audit.scorer import Meta, Scorer

MARKER = 1
"""Token that opens documents in generated streams, as in the shards of the package."""

SMALLEST_MARKED = 5
"""Vocabulary from which on a token is spent on marking documents."""


@dataclass(frozen=True, eq=False)
class AuditStream:
    """Tokens with what is known about them."""

    name: str
    tokens: Int64[np.ndarray, " targets_plus_1"]
    vocab_size: int
    document_starts: tuple[int, ...] = (0,)
    marker: int | None = None
    """Token that stands at every document start and nowhere else; None where documents are known from the side alone."""
    source_nats: Float64[np.ndarray, " targets"] | None = None
    """Cost of every target under the distribution that the stream was drawn from, where that is known."""
    landmarks: tuple[int, ...] = ()
    """Entries where the scorer is known to change its state, such as the borders of chunks."""

    @property
    def targets(self) -> int:
        """Number of targets."""
        return len(self.tokens) - 1

    def meta(self) -> Meta:
        """Side information of the stream as it is."""
        return Meta(self.targets, self.document_starts)

    def change(self, tokens: Int64[np.ndarray, " targets_plus_1"]) -> "AuditStream":
        """The same stream with other tokens at the same places."""
        return dataclasses.replace(self, tokens=tokens, source_nats=None)

    def part(self, first: int, stop: int) -> "AuditStream":
        """Tokens ``[first, stop)`` as a stream of their own."""
        starts = (0, *(start - first for start in self.document_starts if first < start < stop))
        return dataclasses.replace(
            self,
            tokens=self.tokens[first:stop],
            document_starts=starts,
            source_nats=None,
            landmarks=tuple(entry - first for entry in self.landmarks if first <= entry < stop - 1),
        )

    def fixed(self, scorer: Scorer) -> Bool[np.ndarray, " targets_plus_1"]:
        """Places whose token a test must keep: the given first token, and declared document markers."""
        kept = np.zeros(len(self.tokens), dtype=bool)
        kept[0] = True
        if "documents" in scorer.declares and self.marker is not None:
            kept[list(self.document_starts)] = True
        return kept

    def alphabet(self, scorer: Scorer) -> Int64[np.ndarray, " tokens"]:
        """Tokens that a test may put elsewhere: all, less the marker where document starts are declared."""
        tokens = np.arange(self.vocab_size)
        keep = self.marker is not None and "documents" in scorer.declares
        return tokens[tokens != self.marker] if keep else tokens

    def changed_meta(self, scorer: Scorer, tokens: Int64[np.ndarray, " targets_plus_1"], seed: int) -> Meta:
        """Side information of a stream whose tokens were changed.

        Declared document starts stay. Undeclared ones are content: they follow the markers, or, where there is no marker,
        those after the first change are drawn anew, so that a score that leans on them differs.
        """
        if "documents" in scorer.declares:
            return self.meta()
        if self.marker is not None:
            return Meta(self.targets, _starts(np.flatnonzero(tokens == self.marker)))
        changed = np.flatnonzero(tokens != self.tokens)
        first = int(changed[0]) if len(changed) else len(tokens)
        before = [start for start in self.document_starts if start < first]
        fresh = np.flatnonzero(np.random.default_rng(seed).random(len(tokens)) < 0.1)
        return Meta(self.targets, _starts(np.array([*before, *fresh[fresh >= first]], dtype=np.int64)))


def _starts(places: Int64[np.ndarray, " documents"]) -> tuple[int, ...]:
    return (0, *(int(place) for place in places if place > 0))


def shared_documents(
    vocab_size: int,
    targets: int,
    seed: int,
    *,
    documents: int = 10,
    phrase: int = 18,
    noise: float = 0.1,
    text: Int64[np.ndarray, " text"] | None = None,
) -> AuditStream:
    """Documents of uneven length, short ones first, written from one small pool of phrases with some tokens changed.

    Later documents are longer, so that an order of coding by length differs from the order of the stream.

    Args:
        vocab_size: Tokens lie below.
        targets: Number of targets.
        seed: Seed of everything.
        documents: Number of documents, fewer if the stream is short.
        phrase: Length of the phrases.
        noise: Share of the tokens that are replaced.
        text: Real text to take the phrases and the replacements from; without it they are random.
    """
    rng = np.random.default_rng(seed)
    marker = MARKER if vocab_size >= SMALLEST_MARKED else None
    alphabet = np.array([token for token in range(vocab_size) if token != marker])
    documents = max(2, min(documents, targets // 12))
    weights = np.linspace(1.0, 3.0, documents)
    edges = np.round(np.concatenate([[0.0], np.cumsum(weights / weights.sum())]) * (targets + 1)).astype(np.int64)
    if text is not None:
        alphabet = text[text != marker]
    tokens = phrases(rng, alphabet, targets + 1, phrase, noise=noise, stretches=text is not None)
    starts = tuple(int(edge) for edge in edges[:-1])
    if marker is not None:
        tokens[list(starts)] = marker
    return AuditStream("documents that share phrases", tokens, vocab_size, starts, marker)


def phrases(
    rng: np.random.Generator,
    alphabet: Int64[np.ndarray, " tokens"],
    length: int,
    phrase: int,
    *,
    noise: float,
    stretches: bool = False,
) -> Int64[np.ndarray, " length"]:
    """Phrases drawn from a pool of four, whole or in part, a share ``noise`` replaced: contexts that hit and that miss.

    The phrases are ``stretches`` of ``alphabet``, or tokens of it one by one.
    """
    if stretches:
        pool = np.stack([alphabet[first : first + phrase] for first in rng.integers(max(1, len(alphabet) - phrase), size=4)])
    else:
        pool = rng.choice(alphabet, (4, phrase))
    pieces: list[np.ndarray] = []
    while sum(map(len, pieces)) < length:
        pieces.append(pool[rng.integers(len(pool))][int(rng.integers(phrase // 3)) :])
    tokens = np.concatenate(pieces)[:length].astype(np.int64)
    replaced = rng.random(length) < noise
    tokens[replaced] = rng.choice(alphabet, int(replaced.sum()))
    return tokens


def uniform(vocab_size: int, targets: int, seed: int) -> AuditStream:
    """Independent tokens, each equally likely: ``ln V`` nats per target, and nothing to learn."""
    tokens = np.random.default_rng(seed).integers(vocab_size, size=targets + 1)
    return AuditStream("uniform", tokens, vocab_size, source_nats=np.full(targets, np.log(vocab_size)))


def markov(vocab_size: int, targets: int, seed: int, *, successors: int = 4) -> AuditStream:
    """Each token is followed by one of ``successors`` others, equally likely: contexts come back, their end stays open."""
    rng = np.random.default_rng(seed)
    successors = min(successors, vocab_size)
    table = np.stack([rng.permutation(vocab_size)[:successors] for _ in range(vocab_size)])
    tokens = np.zeros(targets + 1, dtype=np.int64)
    for place, choice in enumerate(rng.integers(successors, size=targets)):
        tokens[place + 1] = table[tokens[place], choice]
    return AuditStream("Markov", tokens, vocab_size, source_nats=np.full(targets, np.log(successors)))


@dataclass(frozen=True)
class Streams:
    """What one audit runs on."""

    logic: AuditStream
    """Stream of the tests of order and normalisation."""
    sources: tuple[AuditStream, ...]
    """Streams of known source cost."""


def generate(vocab_size: int, seed: int = 0, targets: int = 300, source_targets: int = 1000) -> Streams:
    """The audit's own streams for a vocabulary."""
    return Streams(
        shared_documents(vocab_size, targets, seed),
        (uniform(vocab_size, source_targets, seed + 1), markov(vocab_size, source_targets, seed + 2)),
    )

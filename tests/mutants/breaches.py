"""One deliberately invalid scorer per breach that is a property of a scorer. Each is a valid one with one thing changed.

Numbers V1 to V21 are the rows of the taxonomy in docs/validity.md; an empty number is a breach outside of it.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fairway.audit.finding import Condition
from fairway.audit.scorer import Meta, Scorer
from fairway.audit.streams import generate
from mutants.base import VOCAB, LongestFirst, Shown, State, Text, Tilted, biased, latest_followers, pieces, tilted
from mutants.valid import (
    MIX,
    Biased,
    Chunked,
    DeclaredLength,
    DeclaredRate,
    DocumentsApart,
    GatedByPrefix,
    HashedBlend,
    SelectedByEntropy,
    bias_step,
)

OUTLIER = 3.0
"""Nats beyond which the mutants that are lenient with hard targets act."""
TEMPERATURE = 0.7
SLOT_STEPS = 3
CERTAINTY = 8.0
"""Log-odds of a token that is known beforehand."""


class UnnormalisedBlend(HashedBlend):
    """Mixes in the cache's ratio of the true token alone; the ratios of all tokens do not sum to one."""

    title = "unnormalised blend"

    def cost(self, state: State, text: Text, entries: np.ndarray) -> np.ndarray:
        at = np.arange(len(entries)), text.tokens[entries + 1]
        share, ratios = self.share(state, text, entries), self.ratios(state, text, entries)
        return -np.log(((1 - share) * Shown.predict(self, state, text, entries) + share * ratios)[at])


class TargetInKey(Chunked):
    """The row of counts that is read is ``context xor f(target)``: each a distribution, but the target chooses which."""

    title = "target in the hash key"

    def contexts(self, text: Text, entries: np.ndarray) -> np.ndarray:
        return text.tokens[entries] ^ (text.tokens[entries + 1] & 1)


class OracleSelection(SelectedByEntropy):
    """Takes whichever of model and hint is better for the true token."""

    title = "expert selected by the target"

    def cost(self, state: State, text: Text, entries: np.ndarray) -> np.ndarray:
        at = np.arange(len(entries)), text.tokens[entries + 1]
        model, hinted = Shown.predict(self, state, text, entries), Tilted.predict(self, state, text, entries)
        return -np.log(np.maximum(model[at], hinted[at]))


class TwoPass(Chunked):
    """Counts the whole text in a first pass and scores it in a second."""

    title = "two passes"

    def fresh(self, text: Text) -> State:
        state = super().fresh(text)
        for entries in self.groups(text):
            self.learn(state, text, entries)
        return state


class TrainThenScore(Chunked):
    """Counts a group before it is scored."""

    title = "train, then score"

    def step(self, state: State, text: Text, entries: np.ndarray) -> np.ndarray:
        self.learn(state, text, entries)
        return self.cost(state, text, entries)


class Slot(Chunked):
    """Fits a bias to the targets of a group, scores the group with it, and drops it."""

    title = "SLOT on the scored region"

    def predict(self, state: State, text: Text, entries: np.ndarray) -> np.ndarray:
        p = super().predict(state, text, entries)
        for _ in range(SLOT_STEPS):
            p = biased(p, bias_step(p, text.tokens[entries + 1]))
        return p


class BiasOnTheScored(Biased):
    """The bias takes its step on a group before the group is scored, and is kept."""

    title = "bias fitted on targets before they are scored"

    def enter(self, state: State, text: Text, entries: np.ndarray) -> None:
        state.bias += bias_step(self.predict(state, text, entries), text.tokens[entries + 1])

    def learn(self, state: State, text: Text, entries: np.ndarray) -> None:
        Shown.learn(self, state, text, entries)


class WithinWord(GatedByPrefix):
    """A hint is used where the target continues a word, which tells that it does."""

    title = "within-word tilt, gated by the target"

    def gate(self, text: Text, entries: np.ndarray) -> np.ndarray:
        return self.continues_word(text.tokens[entries + 1])


class WordStart(GatedByPrefix):
    """A hint is used where the target begins a word."""

    title = "word-start tilt, gated by the target"

    def gate(self, text: Text, entries: np.ndarray) -> np.ndarray:
        return ~self.continues_word(text.tokens[entries + 1])


class ByteSpreading(Chunked):
    """Gives each of a token's two bytes ``sqrt(p)`` and mixes that with a byte model that knows how tokens are spelt."""

    title = "token nats spread over bytes"

    def cost(self, state: State, text: Text, entries: np.ndarray) -> np.ndarray:
        spread = np.exp(-super().cost(state, text, entries) / 2)
        first_byte, second_byte = 1 / self.vocab_size, 1.0
        return -np.log((1 - MIX) * first_byte + MIX * spread) - np.log((1 - MIX) * second_byte + MIX * spread)


class WarmUp(Chunked):
    """Takes one step on the beginning of the text before the clock runs, and keeps part of what it learned."""

    title = "warm-up on the evaluation text"

    def fresh(self, text: Text) -> State:
        state = super().fresh(text)
        self.learn(state, text, np.arange(min(self.chunk, text.targets)))
        return state


class LookbackAcross(DocumentsApart):
    """The look-back at a document's start reaches the document before, while documents are said to be independent."""

    title = "look-back across documents"

    def sees_back(self, text: Text, entries: np.ndarray) -> np.ndarray:
        return entries > 0


class StreamHints(DeclaredLength):
    """Documents by length with carried counts, but hints from the stream's order: long and short know each other."""

    title = "length order, carried state, stream-order hints"

    def predict(self, state: State, text: Text, entries: np.ndarray) -> np.ndarray:
        return tilted(super().predict(state, text, entries), latest_followers(text.tokens, self.vocab_size)[entries])


class UndeclaredOrder(LongestFirst):
    """Documents by length, the score being presented as one of the stream's order."""

    title = "length order, not stated"


class ClampedIds(Chunked):
    """Ids beyond half of the vocabulary are clamped: half of all tokens become one."""

    title = "clamped ids"

    def score(self, tokens: np.ndarray, meta: Meta) -> np.ndarray:
        return super().score(np.minimum(tokens, self.vocab_size // 2 - 1), meta)


class SkipsHard(Chunked):
    """Targets that cost more than ``OUTLIER`` nats are left out as outliers."""

    title = "hard targets skipped"

    def cost(self, state: State, text: Text, entries: np.ndarray) -> np.ndarray:
        nats = super().cost(state, text, entries)
        return np.where(nats > OUTLIER, 0.0, nats)


class CapsNats(Chunked):
    """No target costs more than ``OUTLIER`` nats."""

    title = "nats capped"

    def cost(self, state: State, text: Text, entries: np.ndarray) -> np.ndarray:
        return np.minimum(super().cost(state, text, entries), OUTLIER)


class HalfScored(Chunked):
    """Only the first half of the text is scored; the rest counts as nothing."""

    title = "half of the text scored"

    def score(self, tokens: np.ndarray, meta: Meta) -> np.ndarray:
        nats = super().score(tokens, meta)
        nats[len(nats) // 2 :] = 0.0
        return nats


class DropsTail(Chunked):
    """The incomplete last group is dropped, so that fewer nats come back than there are targets."""

    title = "incomplete batch dropped"

    def score(self, tokens: np.ndarray, meta: Meta) -> np.ndarray:
        return super().score(tokens, meta)[: (len(tokens) - 2) // self.chunk * self.chunk]


class UndeclaredRate(DeclaredRate):
    """The cosine depends on the number of targets, which nobody was told."""

    title = "rate from the text's length, undeclared"
    declares = frozenset()


class CutByLength(Chunked):
    """Groups are short in short documents, whose end is not known yet."""

    title = "groups sized by the document's length, undeclared"

    def groups(self, text: Text) -> list[np.ndarray]:
        short, documents = 2.5 * self.chunk, text.documents()
        sizes = [max(1, self.chunk // 4) if len(document) < short else self.chunk for document in documents]
        return [part for document, size in zip(documents, sizes, strict=True) for part in pieces(document, size)]


class CutByTarget(Chunked):
    """A group ends before a target that begins a word, so the target decides whether it is scored after an update."""

    title = "groups cut where a word is about to begin"

    def groups(self, text: Text) -> list[np.ndarray]:
        begins = text.tokens[1:] < self.vocab_size // 2
        return [part for word in np.split(np.arange(text.targets), np.flatnonzero(begins)[1:]) for part in pieces(word, 8)]


class Remembers(Chunked):
    """Counts survive from one call to the next."""

    title = "state survives between runs"
    kept: State | None = None

    def fresh(self, text: Text) -> State:
        self.kept = self.kept or super().fresh(text)
        return self.kept


class Races(Chunked):
    """Some updates are lost, as in a race of workers; which ones, differs from run to run."""

    title = "updates lost at random"

    def __init__(self, *arguments: int) -> None:
        super().__init__(*arguments)
        self.chance = np.random.default_rng(0)

    def learn(self, state: State, text: Text, entries: np.ndarray) -> None:
        if self.chance.random() < 0.9:
            super().learn(state, text, entries)


class LyingHook(Chunked):
    """Shows a sharpened distribution that is normalised, and scores with the sharpened values before normalisation."""

    title = "hook shows another distribution"

    def predict(self, state: State, text: Text, entries: np.ndarray) -> np.ndarray:
        flat = super().predict(state, text, entries) ** TEMPERATURE
        return flat / flat.sum(-1, keepdims=True)

    def cost(self, state: State, text: Text, entries: np.ndarray) -> np.ndarray:
        at = np.arange(len(entries)), text.tokens[entries + 1]
        return -TEMPERATURE * np.log(super().predict(state, text, entries)[at])


class PaidPrefix(Chunked):
    """Carries the audited text in its artifact and foretells it as long as it comes; a valid code, and worthless."""

    title = "artifact that knows the text"

    def __init__(self, *arguments: int) -> None:
        super().__init__(*arguments)
        self.known = generate(VOCAB).logic.tokens % self.vocab_size

    def predict(self, state: State, text: Text, entries: np.ndarray) -> np.ndarray:
        shared = min(len(self.known) - 1, text.targets)
        as_known = np.cumprod(self.known[:shared] == text.tokens[:shared])
        hints = np.full(text.targets, -1)
        hints[:shared] = np.where(as_known, self.known[1 : shared + 1], -1)
        return tilted(super().predict(state, text, entries), hints[entries], CERTAINTY)


class BlackBox:
    """A scorer that gives away nothing but nats."""

    def __init__(self, inner: Shown) -> None:
        self.inner = inner
        self.name, self.vocab_size, self.declares = inner.name, inner.vocab_size, inner.declares

    def score(self, tokens: np.ndarray, meta: Meta) -> np.ndarray:
        return self.inner.score(tokens, meta)

    def miniature(self, vocab_size: int) -> "BlackBox":
        return BlackBox(self.inner.miniature(vocab_size))


@dataclass(frozen=True)
class Mutant:
    """An invalid scorer, what makes it invalid, and the tests that must say so."""

    breach: str
    """Row of the taxonomy."""
    build: Callable[[], Shown]
    condition: Condition
    """What it breaks, in the audit's words."""
    caught_by: str
    """Letters of the tests that must fail."""
    hidden: bool = False
    """Whether it shows nats alone, because it has no distribution to show."""

    def make(self) -> Scorer:
        """A fresh scorer."""
        return BlackBox(self.build()) if self.hidden else self.build()


MUTANTS = (
    Mutant("V1", UnnormalisedBlend, "normalised", "SKU", hidden=True),
    Mutant("V2", TargetInKey, "causal", "SHKD"),
    Mutant("V3", OracleSelection, "normalised", "SK", hidden=True),
    Mutant("V4", TwoPass, "single pass", "FGNKD"),
    Mutant("V5", TrainThenScore, "score before update", "FGKUD"),
    Mutant("V7", Slot, "score before update", "FGSKD"),
    Mutant("V8", BiasOnTheScored, "score before update", "FD"),
    Mutant("V9", WithinWord, "causal", "SHO"),
    Mutant("V9", WordStart, "causal", "SHO"),
    Mutant("V10", ByteSpreading, "normalised", "SK", hidden=True),
    Mutant("V12", WarmUp, "score before update", "SHOF"),
    Mutant("V13", LookbackAcross, "causal", "P"),
    Mutant("V14", StreamHints, "single pass", "GKFO"),
    Mutant("V14", UndeclaredOrder, "causal", "F"),
    Mutant("V20", ClampedIds, "normalised", "S", hidden=True),
    Mutant("V21", SkipsHard, "normalised", "XS", hidden=True),
    Mutant("V21", HalfScored, "single pass", "X", hidden=True),
    Mutant("V21", DropsTail, "single pass", "X", hidden=True),
    Mutant("", CapsNats, "normalised", "S", hidden=True),
    Mutant("", UndeclaredRate, "causal", "N"),
    Mutant("", CutByLength, "causal", "F"),
    Mutant("", CutByTarget, "causal", "S"),
    Mutant("", Remembers, "single pass", "E"),
    Mutant("", Races, "single pass", "E"),
    Mutant("", LyingHook, "normalised", "SH"),
)

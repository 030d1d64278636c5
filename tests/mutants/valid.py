"""Valid scorers, one for each mechanism that a mutant breaks. Nothing may flag them."""

import numpy as np

from fairway.audit.scorer import Meta
from mutants.base import LongestFirst, Shown, State, Text, Tilted, latest_followers, pieces, tilted

BIAS_STEP = 2.0
MIX = 0.4


class Fixed(Shown):
    """An artifact that learns nothing, with a look-back of one token over the whole stream."""

    title = "fixed artifact"
    spread = 0.5
    lookback = 0.3

    def learn(self, state: State, text: Text, entries: np.ndarray) -> None:
        pass


class Adaptive(Shown):
    """Counts every target at once."""

    title = "adaptive bigram"

    def groups(self, text: Text) -> list[np.ndarray]:
        return pieces(np.arange(text.targets), 1)


class Chunked(Shown):
    """The machine as it is."""


class GatedByPrefix(Tilted):
    """A hint is used where the last token known continues a word."""

    title = "prefix-gated tilt"

    def gate(self, text: Text, entries: np.ndarray) -> np.ndarray:
        return self.continues_word(text.tokens[entries])


class Biased(Shown):
    """A bias of the logits that takes one gradient step on every group after it was scored."""

    title = "bias fitted on scored groups"

    def learn(self, state: State, text: Text, entries: np.ndarray) -> None:
        state.bias += bias_step(self.predict(state, text, entries), text.tokens[entries + 1])
        super().learn(state, text, entries)


class HashedBlend(Shown):
    """Mixes in a cache of hashed pairs where the context's bucket is known, its row of ratios made a distribution first."""

    title = "hashed blend, normalised"

    @property
    def buckets(self) -> int:
        """Buckets of a table: far fewer than there are contexts and pairs, so that they collide."""
        return max(1, self.vocab_size // 4)

    def hashed(self, contexts: np.ndarray, tokens: np.ndarray | int = -1) -> np.ndarray:
        """Bucket of a context, or of a context with a token after it."""
        return (contexts * 36313 + (np.asarray(tokens) + 1) * 27191) % 65521 % self.buckets

    def fresh(self, text: Text) -> State:
        state = super().fresh(text)
        state.tables = {"context": np.zeros(self.buckets), "pair": np.zeros(self.buckets)}
        return state

    def share(self, state: State, text: Text, entries: np.ndarray) -> np.ndarray:
        """Weight of the cache."""
        return MIX * (state.tables["context"][self.hashed(text.tokens[entries])] > 0)[:, None]

    def ratios(self, state: State, text: Text, entries: np.ndarray) -> np.ndarray:
        """``n(hash(a, v)) / n(hash(a))`` for every token ``v``, at most 1."""
        contexts = text.tokens[entries]
        pairs = state.tables["pair"][self.hashed(contexts[:, None], np.arange(self.vocab_size))]
        return np.minimum(1.0, pairs / np.maximum(1.0, state.tables["context"][self.hashed(contexts)])[:, None])

    def predict(self, state: State, text: Text, entries: np.ndarray) -> np.ndarray:
        share, ratios = self.share(state, text, entries), self.ratios(state, text, entries) + 1e-3
        return (1 - share) * super().predict(state, text, entries) + share * ratios / ratios.sum(-1, keepdims=True)

    def learn(self, state: State, text: Text, entries: np.ndarray) -> None:
        super().learn(state, text, entries)
        np.add.at(state.tables["context"], self.hashed(text.tokens[entries]), 1.0)
        np.add.at(state.tables["pair"], self.hashed(text.tokens[entries], text.tokens[entries + 1]), 1.0)


class SelectedByEntropy(Tilted):
    """Model or hint, whichever the model's own entropy speaks for."""

    title = "expert selected by entropy"

    def gate(self, text: Text, entries: np.ndarray) -> np.ndarray:
        return np.ones(len(entries), dtype=bool)

    def predict(self, state: State, text: Text, entries: np.ndarray) -> np.ndarray:
        model = Shown.predict(self, state, text, entries)
        unsure = -(model * np.log(model)).sum(-1) > np.log(self.vocab_size) / 2
        return np.where(unsure[:, None], super().predict(state, text, entries), model)


class DeclaredRate(Shown):
    """Counts weigh less and less along a cosine over the number of groups, which is declared."""

    title = "cosine over the declared length"
    declares = frozenset({"targets"})

    def rate(self, group: int, text: Text) -> float:
        return 1.0 + np.cos(np.pi * group / max(1, -(-text.meta.targets // self.chunk) - 1))


class DeclaredLength(LongestFirst):
    """Documents by falling length, an order that is stated."""

    def schedule(self, meta: Meta) -> list[np.ndarray]:
        return self.groups(Text(np.zeros(meta.targets + 1, dtype=np.int64), meta))


class HintsInOrder(DeclaredLength):
    """Length order with hints from the text in the order in which it is coded."""

    title = "length order, hints in the order of coding"

    def predict(self, state: State, text: Text, entries: np.ndarray) -> np.ndarray:
        order = np.concatenate(self.groups(text))
        hints = np.empty(len(order), dtype=np.int64)
        hints[order] = latest_followers(
            np.concatenate([text.tokens[:1], text.tokens[order + 1]]),
            self.vocab_size,
            np.cumsum(text.opens[np.append(0, order + 1)]),
        )
        return tilted(super().predict(state, text, entries), hints[entries])


class DocumentsApart(Tilted):
    """Every document from a fresh state: counts, hints and the look-back begin anew."""

    title = "independent documents"
    declares = frozenset({"documents"})
    spread = 0.5
    lookback = 0.3
    documents_independent = True

    def groups(self, text: Text) -> list[np.ndarray]:
        return [piece for document in text.documents() for piece in pieces(document, self.chunk)]

    def enter(self, state: State, text: Text, entries: np.ndarray) -> None:
        if text.opens[entries[0] + 1]:
            state.counts[:] = 0.0

    def hints(self, text: Text, entries: np.ndarray) -> np.ndarray:
        found = latest_followers(text.tokens, self.vocab_size, np.cumsum(text.opens))[entries]
        return np.where(text.opens[entries + 1], -1, found)


def bias_step(p: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """One step up the gradient of the mean log-probability: frequency minus mean probability, times ``BIAS_STEP``."""
    return BIAS_STEP * (np.bincount(targets, minlength=p.shape[1]) / len(targets) - p.mean(0))


VALID = (
    Fixed,
    Adaptive,
    Chunked,
    Tilted,
    GatedByPrefix,
    Biased,
    HashedBlend,
    SelectedByEntropy,
    DeclaredRate,
    DeclaredLength,
    HintsInOrder,
    DocumentsApart,
)

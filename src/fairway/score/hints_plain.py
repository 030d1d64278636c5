"""What the n-gram scan must compute, on dictionaries: the definition, the twin of the native scan and its fallback.

Every expert keeps a table. After every token: first it is counted under the contexts before it, then the contexts that now
end the text are looked up. So a hint depends on the tokens pushed so far and on nothing else.

The kinds of counting differ in what identifies a context:

    exact   its tokens
    pr2140  K = XOR of a_j c_j, a_0 the oldest token; a pair by K M XOR v c_L; confidences compared in float32
    pr1557  K = XOR of a_j c_j, a_0 the newest token; tables of fixed size searched for 16 slots, what finds no room is lost;
            the count of the commonest token is incremented by itself and has 16 bits
"""

from collections import Counter
from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int32, UInt16

from fairway.config import TiltConfig
from fairway.score.hints_flags import TokenFlags
from fairway.score.hints_tables import BoundedTable, DictTable, Rule, Seen, Table, context_key, pair_key
from fairway.score.hints_words import word_experts


class Candidate(NamedTuple):
    """A proposal for the next token."""

    token: int
    strength: float


NOTHING = Candidate(-1, 0.0)


class PlainScan:
    """The scan of ``fairway.score.hints``, one token at a time."""

    def __init__(self, config: TiltConfig, flags: TokenFlags | None, table_bits: int) -> None:
        """Args: config: what to count; flags: for word experts, else None; table_bits: size of the tables of PR #1557."""
        self.config = config
        self.tokens: list[int] = []
        self.floor = 0
        self.experts = [
            (length, self._table(length, table_bits), Rule(count, threshold))
            for length, count, threshold in zip(config.contexts, config.minimum_counts, config.thresholds, strict=True)
        ]
        self.contexts: list[Hashable] = [None] * len(self.experts)
        self.words = word_experts(config, flags) if flags else []

    @property
    def text(self) -> UInt16[np.ndarray, " pushed"]:
        """All tokens pushed so far, and the contexts taken up in between."""
        return np.array(self.tokens, np.uint16)

    @property
    def position(self) -> int:
        """Number of tokens pushed."""
        return len(self.tokens)

    def push(
        self, tokens: UInt16[np.ndarray, " pushed"]
    ) -> tuple[Int32[np.ndarray, " pushed"], Float64[np.ndarray, " pushed"]]:
        """Hint and strength for the token after each pushed one."""
        hints, strengths = np.empty(len(tokens), np.int32), np.empty(len(tokens), np.float64)
        for index, token in enumerate(tokens.tolist()):
            self._count(token)
            self.tokens.append(token)
            self.contexts = [self._context(length) for length, _, _ in self.experts]
            hints[index], strengths[index] = choose(self._candidates(), self.config.agreement)
        return hints, strengths

    def resume(self, context: UInt16[np.ndarray, " context"]) -> tuple[int, float]:
        """Go on after ``context`` as if the text were that alone, without counting it; the hint for the next token.

        Word experts read a text from its beginning, so there must be none.
        """
        assert not self.words, "word experts cannot take up another context"
        self.floor = len(self.tokens)
        self.tokens += context.tolist()
        self.contexts = [self._context(length) for length, _, _ in self.experts]
        return choose(self._candidates(), self.config.agreement)

    def _table(self, length: int, bits: int) -> Table:
        if self.config.counting == "pr1557":
            return BoundedTable(length, bits)
        if self.config.counting == "pr2140":
            return DictTable(lambda key, token: pair_key(key, token, length))  # type: ignore[arg-type]
        return DictTable()

    def _context(self, length: int) -> Hashable:
        """What identifies the last ``length`` tokens; None while there are fewer."""
        if len(self.tokens) - self.floor < length:
            return None
        context = tuple(self.tokens[-length:])
        if self.config.counting == "exact":
            return context
        return context_key(context if self.config.counting == "pr2140" else context[::-1])

    def _count(self, token: int) -> None:
        for (_, table, _), context in zip(self.experts, self.contexts, strict=True):
            if context is not None:
                table.count(context, token)
        for expert in self.words:
            expert.push(token)

    def _candidates(self) -> list[Candidate]:
        """Proposals of the longest context that may speak, and of the word experts."""
        found = NOTHING
        for (_, table, rule), context in zip(reversed(self.experts), reversed(self.contexts), strict=True):
            if found is NOTHING and context is not None:
                found = self._speak(table.look(context), rule, self.config.strength, scaled=self.config.confidence_scaled)
        return [found, *(self._speak(expert.look(), expert.rule, expert.strength) for expert in self.words)]

    def _speak(self, seen: Seen | None, rule: Rule, strength: float, *, scaled: bool = False) -> Candidate:
        if seen is None or seen.total < rule.minimum_count:
            return NOTHING
        confidence, threshold = seen.count / seen.total, rule.threshold
        if self.config.counting == "pr2140":
            confidence, threshold = float(np.float32(seen.count) / np.float32(seen.total)), float(np.float32(threshold))
        if confidence < threshold:
            return NOTHING
        return Candidate(seen.token, strength * confidence if scaled else strength)


def choose(candidates: Sequence[Candidate], agreement: float) -> Candidate:
    """The first of the strongest; one that another expert shares is stronger by ``agreement``; no strength is no hint."""
    tokens = Counter(candidate.token for candidate in candidates)
    best = NOTHING
    for token, strength in candidates:
        total = strength + (agreement if tokens[token] > 1 else 0.0)
        if token >= 0 and total > best.strength:
            best = Candidate(token, total)
    return best

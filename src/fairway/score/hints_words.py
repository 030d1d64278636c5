"""The plain word experts of the n-gram tilt, which speak from the text before the predicted token alone.

Source: PR #1557 and #1437, in the corrected form that looks at the last token instead of the one being predicted. Exact
counting has its own, simpler experts: they count every token that followed, a new word's first token too, so that their
confidence estimates the probability of the hint.
"""

from collections.abc import Hashable

from fairway.config import TiltConfig
from fairway.score.hints_flags import TokenFlags
from fairway.score.hints_tables import COEFFICIENTS, SPAN, WORD_BITS, WORD_COUNT, BoundedTable, DictTable, Rule, Seen

WITHIN_TABLES = 3
"""PR #1557 keeps words of one, two and more tokens apart."""
WORDS = 4
"""Words before a word start. PR #1557."""

_PREFIX_MULTIPLIER = 1099511628211
_LENGTH_MULTIPLIER = 0x9E3779B185EBCA87
_64_BITS = (1 << 64) - 1


class WordExpert:
    """An expert that follows the words of the text."""

    def __init__(self, flags: TokenFlags, rule: Rule, strength: float) -> None:
        """Args: flags: facts about tokens; rule: when it may speak; strength: how loudly."""
        self.opens, self.boundary = flags.opens.tolist(), flags.boundary.tolist()
        self.rule, self.strength = rule, strength
        self.last: int | None = None

    def push(self, token: int) -> None:
        """Count ``token`` under the context before it, then read it."""
        self.count(token)
        self.read(token)
        self.last = token

    def look(self) -> Seen | None:
        """What is known of the context that ends the text."""
        raise NotImplementedError

    def count(self, token: int) -> None:
        """Count ``token`` under the context that ends the text."""
        raise NotImplementedError

    def read(self, token: int) -> None:
        """Take ``token`` into the text."""
        raise NotImplementedError

    def opens_word(self, token: int | None) -> bool:
        """Whether ``token`` opens a word by its space."""
        return token is not None and self.opens[token]

    def continues_word(self, token: int | None) -> bool:
        """Whether ``token`` belongs to the word before it."""
        return token is not None and not self.opens[token] and not self.boundary[token]


class ExactWords(WordExpert):
    """Context: the tokens from the ``words``-th latest word start to the end of the text, up to 64; none outside words."""

    def __init__(self, flags: TokenFlags, rule: Rule, strength: float, words: int) -> None:
        """Args: words: words of the context, the one being read included."""
        super().__init__(flags, rule, strength)
        self.words, self.table = words, DictTable()
        self.span: list[int] = []
        self.starts: list[int] = []

    def context(self) -> Hashable:
        """The tokens that identify the context; None where the expert is silent."""
        if self.last is None or self.boundary[self.last] or len(self.starts) < self.words:
            return None
        context = tuple(self.span[self.starts[-self.words] :])
        return context if len(context) <= SPAN else None

    def look(self) -> Seen | None:
        """What followed this context."""
        context = self.context()
        return None if context is None else self.table.look(context)

    def count(self, token: int) -> None:
        """Every token that follows counts."""
        if (context := self.context()) is not None:
            self.table.count(context, token)

    def read(self, token: int) -> None:
        """A word starts at a space, and after a boundary."""
        if self.opens_word(token) or (self.continues_word(token) and (self.last is None or self.boundary[self.last])):
            self.starts.append(len(self.span))
        self.span.append(token)


class HashedWithin(WordExpert):
    """PR #1557: context is the hash of the word so far; what counts and what is hinted are tokens that continue a word."""

    def __init__(self, flags: TokenFlags, rule: Rule, strength: float) -> None:
        """Args: see `WordExpert`."""
        super().__init__(flags, rule, strength)
        self.tables = [BoundedTable(0, WORD_BITS) for _ in range(WITHIN_TABLES)]
        self.prefix, self.length = 0, 0

    def _table(self) -> tuple[BoundedTable, int]:
        key = self.prefix ^ (self.length * _LENGTH_MULTIPLIER & _64_BITS)
        return self.tables[min(self.length, WITHIN_TABLES) - 1], key

    def look(self) -> Seen | None:
        """Speaks after a token that continued a word."""
        if not self.length or not self.continues_word(self.last):
            return None
        table, key = self._table()
        return table.look(key)

    def count(self, token: int) -> None:
        """Tokens that open a word are not counted."""
        if self.length and self.continues_word(token):
            table, key = self._table()
            table.count(key, token)

    def read(self, token: int) -> None:
        """``prefix <- prefix B XOR (token + 1) c_length``, from zero at every word start."""
        if self.boundary[token] or self.opens[token]:
            self.prefix, self.length = 0, 0
        if not self.boundary[token]:
            self.prefix = (self.prefix * _PREFIX_MULTIPLIER ^ (token + 1) * COEFFICIENTS[self.length % 32]) & _64_BITS
            self.length += 1


class HashedStart(WordExpert):
    """PR #1557: context is the hash of four words; tokens that open a word are counted under the four before it.

    As published it asks right after a word was opened, and before that word counts as complete: it proposes what opened the
    word just begun.
    """

    def __init__(self, flags: TokenFlags, rule: Rule, strength: float) -> None:
        """Args: see `WordExpert`."""
        super().__init__(flags, rule, strength)
        self.table = BoundedTable(WORDS, WORD_BITS)
        self.words: list[int] = []
        self.word: int | None = None

    def _key(self, words: list[int]) -> int | None:
        if len(words) < WORDS:
            return None
        key = 0
        for word, coefficient in zip(words[-WORDS:], COEFFICIENTS, strict=False):
            key ^= word * coefficient
        return key & _64_BITS

    def _complete(self) -> list[int]:
        return self.words if self.word is None else [*self.words[1 - WORDS :], self.word]

    def look(self) -> Seen | None:
        """Speaks after a token that opened a word."""
        key = self._key(self.words) if self.opens_word(self.last) else None
        return None if key is None else self.table.look(key)

    def count(self, token: int) -> None:
        """Only tokens that open a word are counted."""
        if self.opens_word(token) and (key := self._key(self._complete())) is not None:
            self.table.count(key, token)

    def read(self, token: int) -> None:
        """``word <- 31 word + token``; a word is complete at the next word start or boundary."""
        if self.boundary[token] or self.opens[token]:
            self.words, self.word = self._complete(), None
        if not self.boundary[token]:
            self.word = (31 * (self.word or 0) + token) & _64_BITS


def word_experts(config: TiltConfig, flags: TokenFlags) -> list[WordExpert]:
    """The expert that continues words, and the one for word starts."""
    within, start = Rule(1, config.within_word_threshold), Rule(WORD_COUNT, config.word_start_threshold)
    if config.counting == "exact":
        return [
            ExactWords(flags, within, config.within_word_strength, 1),
            ExactWords(flags, start, config.word_start_strength, WORDS),
        ]
    return [HashedWithin(flags, within, config.within_word_strength), HashedStart(flags, start, config.word_start_strength)]

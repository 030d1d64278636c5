"""Tables of the plain n-gram scan, on dictionaries: what is counted, and what a context proposes.

Under each context a table counts the tokens that followed, and remembers the commonest with its count and the total; another
token takes its place only by becoming commoner, so ties keep the incumbent.
"""

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple

COEFFICIENTS = (
    36313, 27191, 51647, 81929, 131071, 196613, 262147, 393241, 524309, 655373, 786433, 917521, 1048583, 1179653, 1310729,
    1441801, 1572869, 1703941, 1835017, 1966087, 2097169, 2228243, 2359319, 2490389, 2621471, 2752549, 2883617, 3014687,
    3145757, 3276833, 3407903, 3538973,
)  # fmt: skip
PAIR_MULTIPLIER = 1000003
SLOT_MULTIPLIER = 0x9E3779B97F4A7C15
PROBES = 16
WORD_BITS = 20
WORD_COUNT = 3
"""Occurrences that the expert for word starts asks for. PR #1557."""
SPAN = 64
"""Longest stretch of words that exact counting counts, in tokens."""

_64_BITS = (1 << 64) - 1


class Seen(NamedTuple):
    """What a table remembers of a context."""

    token: int
    """Its commonest continuation."""
    count: int
    total: int


class Rule(NamedTuple):
    """When a context may speak: seen so often, and its commonest continuation with this confidence at least."""

    minimum_count: int
    threshold: float


def context_key(tokens: Sequence[int]) -> int:
    """``XOR of tokens[j] c_j``: the hash of both systems, oldest token first in PR #2140 and newest first in PR #1557."""
    key = 0
    for token, coefficient in zip(tokens, COEFFICIENTS, strict=False):
        key ^= token * coefficient
    return key & _64_BITS


def pair_key(context: int, token: int, coefficient: int) -> int:
    """``context M XOR token c_k``: the hash of a context with a continuation."""
    return ((context * PAIR_MULTIPLIER) ^ (token * COEFFICIENTS[coefficient % 32])) & _64_BITS


class DictTable:
    """Counts without loss, keyed by whatever identifies a context and a pair."""

    def __init__(self, pair: Callable[[Hashable, int], Hashable] = lambda context, token: (context, token)) -> None:
        """Args: pair: identity of a context with a continuation."""
        self.pair = pair
        self.pairs: Counter[Hashable] = Counter()
        self.contexts: dict[Hashable, Seen] = {}

    def look(self, context: Hashable) -> Seen | None:
        """What is known of a context."""
        return self.contexts.get(context)

    def count(self, context: Hashable, token: int) -> None:
        """The commonest token changes when another one's count exceeds its own."""
        pair = self.pair(context, token)
        self.pairs[pair] += 1
        old = self.contexts.get(context, Seen(token, 0, 0))
        token, count = (token, self.pairs[pair]) if self.pairs[pair] > old.count else (old.token, old.count)
        self.contexts[context] = Seen(token, count, old.total + 1)


class BoundedTable:
    """Counts of PR #1557: ``2 ** bits`` slots for contexts and as many for pairs, linear probing that gives up."""

    def __init__(self, coefficient: int, bits: int) -> None:
        """Args: coefficient: index for pair keys; bits: logarithm of the number of slots."""
        self.coefficient, self.bits = coefficient, bits
        self.contexts: dict[int, tuple[int, Seen]] = {}
        self.pairs: dict[int, tuple[int, int]] = {}

    def _slot(self, table: dict[int, tuple[int, Seen]] | dict[int, tuple[int, int]], key: int) -> int | None:
        for probe in range(PROBES):
            slot = (key * SLOT_MULTIPLIER + probe) % (1 << self.bits)
            if slot not in table or table[slot][0] == key:
                return slot
        return None

    def look(self, context: Hashable) -> Seen | None:
        """What is known of a context, if it found room."""
        assert isinstance(context, int)
        slot = self._slot(self.contexts, context)
        return self.contexts[slot][1] if slot in self.contexts else None

    def count(self, context: Hashable, token: int) -> None:
        """The commonest token's count goes up by itself; another one takes over with the count of its pair."""
        assert isinstance(context, int)
        pair = pair_key(context, token, self.coefficient)
        place, slot = self._slot(self.pairs, pair), self._slot(self.contexts, context)
        count = 0
        if place is not None:
            count = self.pairs.get(place, (pair, 0))[1] + 1
            self.pairs[place] = (pair, count)
        if slot is None:
            return
        old = self.contexts[slot][1] if slot in self.contexts else Seen(token, 0, 0)
        new = old._replace(total=old.total + 1)
        if token == old.token:
            new = new._replace(count=(old.count + 1) % (1 << 16))
        elif count > old.count:
            new = new._replace(token=token, count=min(count, (1 << 16) - 1))
        self.contexts[slot] = (context, new)


Table = DictTable | BoundedTable

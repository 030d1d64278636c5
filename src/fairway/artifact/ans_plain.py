"""The coder of the format on Python integers, one symbol at a time: the definition, and the twin of ``ans``.

State: an integer ``x`` and a stack of 32-bit words, both empty at first. With frequency ``f``, cumulative frequency
``C`` (sum of the frequencies before the symbol) and precision ``P = 24``:

    push: if x >> 40 >= f: push the low 32 bits of x and shift x right by 32
          x = (x // f) * 2**P + C + x % f
    pop:  q = x mod 2**P; the symbol is the one with C <= q < C + f
          x = (x >> P) * f + q - C;  if x < 2**32 and the stack is not empty: x = x * 2**32 + popped word

At the end the words of ``x`` are pushed, low word first; leading zero words are left out.
"""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

PRECISION = 24
WORD = 32


def encode_plain(sections: Sequence[tuple[Sequence[int], int, Sequence[int]]]) -> list[int]:
    """Words for the sections, each a triple of symbols, lowest symbol and frequencies with sum ``2**24``."""
    state, words = 0, []
    for symbols, low, frequencies in reversed(sections):
        starts = [0, *accumulate(frequencies)]
        for symbol in reversed(symbols):
            frequency, start = frequencies[symbol - low], starts[symbol - low]
            if state >> (2 * WORD - PRECISION) >= frequency:
                words.append(state & 0xFFFFFFFF)
                state >>= WORD
            state = (state // frequency << PRECISION) + start + state % frequency
    while state:
        words.append(state & 0xFFFFFFFF)
        state >>= WORD
    return words


class PlainDecoder:
    """Takes symbols off words, section by section.

    Args:
        words: As ``encode_plain`` makes them.
    """

    def __init__(self, words: Sequence[int]) -> None:
        self._stack = list(words)
        self._state = 0
        for _ in range(2):
            if self._stack:
                self._state = self._state << WORD | self._stack.pop()

    def take(self, count: int, low: int, frequencies: Sequence[int]) -> list[int]:
        """The next ``count`` symbols under the frequencies of ``low``, ``low + 1``, ...."""
        starts = [0, *accumulate(frequencies)]
        symbols = []
        for _ in range(count):
            quantile = self._state & ((1 << PRECISION) - 1)
            index = bisect_right(starts, quantile) - 1
            self._state = (self._state >> PRECISION) * frequencies[index] + quantile - starts[index]
            if self._state < 1 << WORD and self._stack:
                self._state = self._state << WORD | self._stack.pop()
            symbols.append(index + low)
        return symbols

    def used_up(self) -> bool:
        """Whether nothing is left."""
        return self._state == 0 and not self._stack


def decode_plain(words: Sequence[int], sections: Sequence[tuple[int, int, Sequence[int]]]) -> tuple[list[list[int]], bool]:
    """Symbols of the sections, each a triple of count, lowest symbol and frequencies, and whether all data was used up."""
    decoder = PlainDecoder(words)
    return [decoder.take(*section) for section in sections], decoder.used_up()

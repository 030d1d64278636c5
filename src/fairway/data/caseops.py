"""CaseOps: a lossless transform of text to small letters and four operators, so that a word has one spelling.

Only the ASCII letters are touched; every other character, accented capitals included, is copied. A word is a maximal run of
ASCII letters. With the operators written T, C, N, E::

    The -> Tthe     NASA -> Cnasa     iPhone -> iNphone     A -> Ta     U+E002 -> E U+E002

``decode(encode(s)) == s`` for every string. Not every string of operators and letters is a result of `encode`: some decode
although `encode` spells them otherwise (``Na``), others are refused by the strict `decode` (``aTb``).

`encode_plain`, `decode_plain` and `byte_counts` go character by character and are the specification. `encode` and `decode`
touch only words with capitals or operators, and give the same results.

Source: PR #1729 (``lossless_caps_caseops_v1``), used by PR #1736, #1855 and #2140.
"""

import re
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Int64

from fairway.base.errors import DataError

TITLE, ALLCAPS, CAPNEXT, ESCAPE = "\ue001", "\ue002", "\ue003", "\ue004"
"""First letter is a capital; all letters are; the next letter is; the next character is meant literally."""

OPERATORS = TITLE + ALLCAPS + CAPNEXT + ESCAPE
"""The four operators in the order of their token ids."""

FIRST_OPERATOR_ID = 4
"""Token id of TITLE; the others follow."""

_NAMES = dict(zip(OPERATORS, ("TITLE", "ALLCAPS", "CAPNEXT", "ESC"), strict=True))
_SMALL = frozenset("abcdefghijklmnopqrstuvwxyz")
_LETTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ") | _SMALL
_KNOWN_WORDS, _KNOWN_LENGTH = 1 << 16, 64

_CAPITALS = re.compile(f"([A-Z{OPERATORS}](?:(?<=[A-Z])[A-Za-z]*+)?)")
_INSIDE = re.compile(f"([{TITLE}{ALLCAPS}])(?<=[a-z].)([a-z]*+)")
_OPERATED = re.compile(f"([{OPERATORS}]++[a-z]*+)")
_OPERATOR_BYTES = re.compile(b"\xee\x80[\x81-\x84]")


def encode_plain(text: str) -> str:
    """The plain twin of `encode`, character by character."""
    parts = []
    position = 0
    while position < len(text):
        end = position
        while end < len(text) and text[end] in _LETTERS:
            end += 1
        if end > position:
            parts.append(_spell(text[position:end]))
        else:
            end = position + 1
            parts.append(ESCAPE + text[position] if text[position] in _NAMES else text[position])
        position = end
    return "".join(parts)


def _spell(word: str) -> str:
    """A word of ASCII letters, transformed."""
    capital = [letter not in _SMALL for letter in word]
    small = word.lower()
    if not any(capital):
        return word
    if len(word) >= 2 and all(capital):
        return ALLCAPS + small
    if len(word) >= 2 and capital[0] and not any(capital[1:]):
        return TITLE + small
    head = (TITLE if capital[0] else "") + small[0]
    return head + "".join(CAPNEXT * mark + letter for mark, letter in zip(capital[1:], small[1:], strict=True))


class _Reader:
    """The decoder's state; `read` takes one character of transformed text and returns what it stands for.

    Strict reading raises at the first misplaced operator. Lenient reading lets an operator inside a word begin a new word and
    passes over an operator that has nothing to act on.
    """

    def __init__(self, lenient: bool) -> None:
        self.lenient = lenient
        self.position = -1
        self.escaped = self.capnext = self.in_word = self.all_capitals = False
        self.mode = ""

    def read(self, character: str) -> str:
        self.position += 1
        letter = character in _LETTERS
        if self.escaped:
            if self.mode and not letter:
                self._refuse(f"{_NAMES[self.mode]} before an escaped character that is no letter")
                self.mode = ""
            self.escaped, self.in_word = False, letter
            self.all_capitals = self.all_capitals and letter
            return character
        if character in _NAMES:
            self._operate(character)
            return ""
        return self._letter(character) if letter else self._other(character)

    def _operate(self, operator: str) -> None:
        if operator == ESCAPE:
            self.escaped = True
        elif operator == CAPNEXT:
            if self.capnext:
                self._refuse("CAPNEXT after CAPNEXT")
            self.capnext = True
        else:
            if self.mode or self.in_word or self.capnext:
                where = "inside a word" if self.in_word else f"after {_NAMES[self.mode] if self.mode else 'CAPNEXT'}"
                self._refuse(f"{_NAMES[operator]} {where}")
            self.mode = operator
            self.capnext = self.in_word = self.all_capitals = False

    def _letter(self, letter: str) -> str:
        if self.in_word:
            if self.mode:
                self._refuse(f"{_NAMES[self.mode]} inside a word")
                self.mode = ""
            capital = self.all_capitals or self.capnext
        else:
            capital = bool(self.mode) or self.capnext
            self.all_capitals = self.mode == ALLCAPS
            self.mode, self.in_word = "", True
        self.capnext = False
        return letter.upper() if capital else letter

    def _other(self, character: str) -> str:
        if self.mode or self.capnext:
            self._refuse(f"{_NAMES[self.mode or CAPNEXT]} before a character that is no letter")
        self.mode = ""
        self.capnext = self.in_word = self.all_capitals = False
        return character

    def finish(self) -> None:
        self.position += 1
        pending = ESCAPE if self.escaped else self.mode or CAPNEXT * self.capnext
        if pending:
            self._refuse(f"{_NAMES[pending]} at the end")

    def _refuse(self, rule: str) -> None:
        if not self.lenient:
            raise DataError(
                f"transformed text is malformed at character {self.position}: {rule}; "
                "decode it leniently if it was generated or normalised"
            )


def decode_plain(text: str, *, lenient: bool = False) -> str:
    """The plain twin of `decode`, character by character."""
    reader = _Reader(lenient)
    parts = [reader.read(character) for character in text]
    reader.finish()
    return "".join(parts)


def byte_counts(surfaces: Sequence[str]) -> list[int]:
    """UTF-8 bytes of the original text that each of some consecutive slices of transformed text stands for.

    One state runs through all slices, which may part an operator from its letter. An unescaped operator counts 0, every other
    character its UTF-8 length: case does not change the length of an ASCII letter.

    Args:
        surfaces: What each token covers of the transformed text, in order and without gaps.

    Raises:
        DataError: an operator is misplaced, as for the strict `decode`.
    """
    reader = _Reader(lenient=False)
    counts = [sum(len(reader.read(character).encode("utf-8")) for character in surface) for surface in surfaces]
    reader.finish()
    return counts


class _Known(dict[str, str]):
    """Results of a function by word, as many as a text of many millions of words needs."""

    def __init__(self, function: Callable[[str], str]) -> None:
        super().__init__()
        self._function = function

    def __missing__(self, word: str) -> str:
        result = self._function(word)
        if len(self) < _KNOWN_WORDS and len(word) <= _KNOWN_LENGTH:
            self[word] = result
        return result


_SPELLED = _Known(encode_plain)
_READ = _Known(lambda chunk: decode_plain(chunk, lenient=True))


def encode(text: str) -> str:
    """Transform a text: small letters, and operators where capitals were.

    Every stretch that begins with a capital is spelled as a word of its own, then those that continue a word are corrected:
    their T becomes N, and their C an N before each letter.

    Args:
        text: Any string. The result has no ASCII capital, and 3 UTF-8 bytes more per inserted operator.
    """
    parts = _CAPITALS.split(text)
    if len(parts) == 1:
        return text
    parts[1::2] = map(_SPELLED.__getitem__, parts[1::2])
    return _INSIDE.sub(_inside, "".join(parts))


def _inside(match: re.Match[str]) -> str:
    operator, letters = match.groups()
    return CAPNEXT + (letters if operator == TITLE else CAPNEXT.join(letters))


def decode(text: str, *, lenient: bool = False) -> str:
    """Undo `encode`.

    Stretches with operators are read one by one, as if nothing stood before them. The result is right if `encode` brings the
    transformed text back, since `encode` gives no two strings the same result; otherwise `decode_plain` has the word.

    Args:
        text: Transformed text.
        lenient: Never refuse: an operator inside a word begins a new word, one that has nothing to act on is passed over. For
            text that a model wrote or that a tokenizer normalised.

    Raises:
        DataError: an operator is misplaced; names the character and the rule. Not when lenient.
    """
    parts = _OPERATED.split(text)
    parts[1::2] = map(_READ.__getitem__, parts[1::2])
    guess = "".join(parts)
    return guess if encode(guess) == text else decode_plain(text, lenient=lenient)


def encode_bytes(content: bytes) -> bytes:
    """`encode` for any bytes: what is no UTF-8 is copied. `decode_bytes` brings ``content`` back."""
    return encode(content.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")


def decode_bytes(content: bytes) -> bytes:
    """Undo `encode_bytes`; lenient, so that every content has a result."""
    return decode(content.decode("utf-8", "surrogateescape"), lenient=True).encode("utf-8", "surrogateescape")


def original_bytes(content: bytes) -> Int64[np.ndarray, " bytes_plus_1"]:
    """Bytes of the original text before each byte of its transformed text, and in all of it.

    The original bytes that a slice stands for are the difference of the entries at its ends.

    Args:
        content: UTF-8 of transformed text as `encode` gives it.
    """
    counts = np.ones(len(content) + 1, np.int64)
    counts[0] = 0
    literal = -1
    for match in _OPERATOR_BYTES.finditer(content):
        start, end = match.span()
        if start != literal:
            counts[start + 1 : end + 1] = 0
            literal = end if content[end - 1] == ESCAPE.encode()[-1] else -1
    return np.cumsum(counts)

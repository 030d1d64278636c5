"""The case transform: lossless, canonical, strict about what it did not write, and the fast form equal to the plain one."""

import itertools
import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fairway.base.errors import DataError
from fairway.data import caseops
from fairway.data.caseops import ALLCAPS, CAPNEXT, ESCAPE, OPERATORS, TITLE

LETTER_FOR = {"T": TITLE, "C": ALLCAPS, "N": CAPNEXT, "E": ESCAPE}

SCALARS = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
WORDY = st.text("abzABZ" + OPERATORS + "\u00e9\u00c9\u0130 '-1\n\t", max_size=30)
TEXT = SCALARS | WORDY


def marked(pattern):
    """``<T>the`` with the operators in place of their letters."""
    return re.sub("<([TCNE])>", lambda match: LETTER_FOR[match[1]], pattern)


def outcome(function, text):
    try:
        return function(text)
    except DataError as error:
        return error.args


EXAMPLES = [
    ("The NASA Launch", "<T>the <C>nasa <T>launch"),
    ("A", "<T>a"),
    ("AB", "<C>ab"),
    ("aB", "a<N>b"),
    ("ABc", "<T>a<N>bc"),
    ("DON'T", "<C>don'<T>t"),
    ("iPhone OpenAI", "i<N>phone <T>open<N>a<N>i"),
    ("U.S.", "<T>u.<T>s."),
    ("x2Y", "x2<T>y"),
    ("\ue002x", "<E>\ue002x"),
    ("\u00c9COLE", "\u00c9<C>cole"),
    ("caf\u00e9 \u65e5", "caf\u00e9 \u65e5"),
    ("Hi\n\nYou", "<T>hi\n\n<T>you"),
    ("\ufb01ne", "\ufb01ne"),
    ("\u2122Abc", "\u2122<T>abc"),
    (" Hi ", " <T>hi "),
    ("", ""),
    ("xABC yAbC", "x<N>a<N>b<N>c y<N>ab<N>c"),
    ("\ue001Abc\ue004\ue004", "<E>\ue001<T>abc<E>\ue004<E>\ue004"),
]


@pytest.mark.parametrize(("text", "transformed"), EXAMPLES)
def test_worked_examples(text, transformed):
    for encode, decode in ((caseops.encode, caseops.decode), (caseops.encode_plain, caseops.decode_plain)):
        assert encode(text) == marked(transformed)
        assert decode(marked(transformed)) == text


@settings(max_examples=1500, deadline=None)
@given(text=TEXT)
@example(text="a" + TITLE + "A" + ESCAPE)
def test_every_text_comes_back_and_both_encoders_agree(text):
    transformed = caseops.encode(text)
    assert transformed == caseops.encode_plain(text)
    assert caseops.decode(transformed) == caseops.decode_plain(transformed) == text
    assert caseops.decode(transformed, lenient=True) == text
    assert not re.search("[A-Z]", transformed)


@settings(max_examples=1500, deadline=None)
@given(text=TEXT)
def test_both_decoders_agree_on_what_no_encoder_wrote(text):
    strict = outcome(caseops.decode_plain, text)
    assert outcome(caseops.decode, text) == strict
    lenient = caseops.decode_plain(text, lenient=True)
    assert caseops.decode(text, lenient=True) == lenient
    if isinstance(strict, str):
        assert lenient == strict


@pytest.mark.parametrize("longest", [4, pytest.param(5, marks=pytest.mark.long)])
def test_all_short_strings(longest):
    """Every string of so many characters over a small letter, a capital, an accent, a space and the operators."""
    for length in range(longest + 1):
        for characters in itertools.product("aB\u00e9 " + OPERATORS, repeat=length):
            text = "".join(characters)
            transformed = caseops.encode(text)
            assert transformed == caseops.encode_plain(text)
            assert caseops.decode(transformed) == text == caseops.decode_plain(transformed)
            assert outcome(caseops.decode, text) == outcome(caseops.decode_plain, text)
            assert caseops.decode(text, lenient=True) == caseops.decode_plain(text, lenient=True)


MALFORMED = [
    ("<T>", "character 1: TITLE at the end"),
    ("<T> ", "character 1: TITLE before a character that is no letter"),
    ("a<T>b", "character 1: TITLE inside a word"),
    ("<T><T>a", "character 1: TITLE after TITLE"),
    ("<T><C>a", "character 1: ALLCAPS after TITLE"),
    ("a<C>b", "character 1: ALLCAPS inside a word"),
    ("a<N><N>b", "character 2: CAPNEXT after CAPNEXT"),
    ("<N> ", "character 1: CAPNEXT before a character that is no letter"),
    ("<N><T>a", "character 1: TITLE after CAPNEXT"),
    ("a<E>", "character 2: ESC at the end"),
    ("<T><E><T>", "character 2: TITLE before an escaped character that is no letter"),
    ("a<N><E><T>", "character 4: CAPNEXT at the end"),
    ("<T><E>ab", "character 3: TITLE inside a word"),
    ("ab<N>", "character 3: CAPNEXT at the end"),
]


@pytest.mark.parametrize(("text", "message"), MALFORMED)
def test_malformed_text_is_refused_with_place_and_rule(text, message):
    for decode in (caseops.decode, caseops.decode_plain):
        with pytest.raises(DataError, match=message):
            decode(marked(text))
    with pytest.raises(DataError, match=message):
        caseops.byte_counts([marked(text)])


ACCEPTED = [("ABC", "ABC"), ("<E>a", "a"), ("<T><N>a", "A"), ("<N>a", "A"), ("<C>a<N>b", "AB"), ("<C>a", "A")]


@pytest.mark.parametrize(("text", "decoded"), ACCEPTED)
def test_some_text_decodes_although_it_is_not_canonical(text, decoded):
    for lenient in (False, True):
        assert caseops.decode(marked(text), lenient=lenient) == decoded
        assert caseops.decode_plain(marked(text), lenient=lenient) == decoded
    assert caseops.encode(decoded) != marked(text)


@pytest.mark.parametrize(
    ("text", "decoded"),
    [
        ("tm<T>abc", "tmAbc"),
        ("a<C>bc d", "aBC d"),
        ("<C>ab<T>cd", "ABCd"),
        ("<T> a", " a"),
        ("<T><C>ab", "AB"),
        ("a<N><N>b", "aB"),
        ("x<E>", "x"),
        ("<T><E>\ue001a", "\ue001a"),
        ("", ""),
    ],
)
def test_lenient_decoding_starts_a_new_word_and_drops_what_acts_on_nothing(text, decoded):
    assert caseops.decode(marked(text), lenient=True) == decoded


@st.composite
def canonical(draw):
    """Text of the grammar: units, of which no two words are adjacent."""
    parts, word_before = [], False
    for _ in range(draw(st.integers(0, 8))):
        if not word_before and draw(st.booleans()):
            letters = draw(st.text("abz", min_size=1, max_size=4))
            capital = draw(st.lists(st.booleans(), min_size=len(letters), max_size=len(letters)))
            if all(capital) and len(letters) >= 2:
                parts.append(ALLCAPS + letters)
            else:
                pairs = zip((TITLE, *CAPNEXT * 3), capital, letters, strict=False)
                parts.append("".join(operator * mark + letter for operator, mark, letter in pairs))
            word_before = True
        else:
            other = st.characters(exclude_categories=["Cs"], exclude_characters=OPERATORS).filter(
                lambda c: not (c.isascii() and c.isalpha())
            )
            parts.append(draw(st.sampled_from([ESCAPE + operator for operator in OPERATORS]) | other))
            word_before = False
    return "".join(parts)


@settings(max_examples=500, deadline=None)
@given(text=canonical())
def test_canonical_text_is_what_the_encoder_writes(text):
    assert caseops.encode(caseops.decode(text)) == text


MIXED = "(?=<T>?[a-z]+<N>)(?!<T>[a-z](?:<N>[a-z])+(?![a-z<N>]))<T>?[a-z](?:<N>?[a-z])*"
WORD = f"(?:[a-z]+|<T>[a-z]+|<C>[a-z]{{2,}}|{MIXED})"
GRAMMAR = re.compile(marked(f"(?:{WORD}?(?:<E>[<T><C><N><E>]|[^A-Za-z<T><C><N><E>]))*{WORD}?"))


@settings(max_examples=500, deadline=None)
@given(text=TEXT)
def test_the_encoder_writes_canonical_text(text):
    transformed = caseops.encode(text)
    assert GRAMMAR.fullmatch(transformed)


@pytest.mark.parametrize("text", ["<T>a<N>b", "<C>a", "a<T>b", "<T>a<N>b<N>c", "A", "<N>ab", "<E>a"])
def test_the_grammar_knows_what_the_encoder_does_not_write(text):
    assert not GRAMMAR.fullmatch(marked(text))


@settings(max_examples=500, deadline=None)
@given(text=TEXT, cuts=st.lists(st.integers(0, 60), max_size=4))
def test_bytes_are_counted_once_however_the_text_is_cut(text, cuts):
    transformed = caseops.encode(text)
    places = [0, *sorted(min(cut, len(transformed)) for cut in cuts), len(transformed)]
    slices = [transformed[first:end] for first, end in itertools.pairwise(places)]
    counts = caseops.byte_counts(slices)
    inserted = sum(transformed.count(operator) - text.count(operator) for operator in OPERATORS)
    assert sum(counts) == len(text.encode()) == len(transformed.encode()) - 3 * inserted
    before = caseops.original_bytes(transformed.encode())
    ends = [len("".join(slices[:number]).encode()) for number in range(len(slices) + 1)]
    assert [int(before[end] - before[first]) for first, end in itertools.pairwise(ends)] == counts


@settings(max_examples=500, deadline=None)
@given(content=st.binary(max_size=20) | st.lists(st.binary(max_size=3) | TEXT.map(str.encode), max_size=4).map(b"".join))
def test_any_bytes_come_back(content):
    assert caseops.decode_bytes(caseops.encode_bytes(content)) == content


def test_long_words_come_back():
    for word in ("a" * 30_000 + "B", "B" * 30_000, "aB" * 15_000, "B" + "a" * 30_000, "a" + "B" * 30_000):
        assert caseops.decode(caseops.encode(word)) == word

"""The fast coder against its plain twin on integers: same words, same symbols, no probability but the integer table's."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairway.artifact.ans import CHUNK, AnsDecoder, encode_sections
from fairway.artifact.ans_plain import decode_plain, encode_plain
from fairway.artifact.frequencies import TOTAL, FrequencyTable, entropy_bits, normalise, uniform_table
from fairway.base.errors import ArtifactError

weights = st.lists(st.one_of(st.integers(0, 3), st.integers(0, 2**20)), min_size=1, max_size=70)


@st.composite
def sections(draw):
    result = []
    for _ in range(draw(st.integers(0, 3))):
        table = FrequencyTable(draw(st.integers(-300, 300)), normalise(np.array(draw(weights), np.int64)))
        symbols = draw(st.lists(st.integers(table.low, table.high), max_size=60))
        result.append((np.array(symbols, np.int64), table))
    return result


@settings(max_examples=150, deadline=None)
@given(sections())
def test_words_equal_those_of_the_integer_coder(parts):
    payload = encode_sections(parts)
    plain = encode_plain([(symbols.tolist(), table.low, table.frequencies.tolist()) for symbols, table in parts])
    assert np.frombuffer(payload, "<u4").tolist() == plain


@settings(max_examples=150, deadline=None)
@given(sections())
def test_integer_decoder_and_library_read_the_same_symbols(parts):
    payload = encode_sections(parts)
    words = np.frombuffer(payload, "<u4").tolist()
    plain, finished = decode_plain(words, [(len(s), t.low, t.frequencies.tolist()) for s, t in parts])
    decoder = AnsDecoder(payload, "codes")
    fast = [decoder.take(len(symbols), table).tolist() for symbols, table in parts]
    decoder.finish()
    assert finished
    assert plain == fast == [symbols.tolist() for symbols, _ in parts]


@pytest.mark.parametrize("spike", [0, 1, 3, 4])
def test_extreme_tables_stay_exact(spike):
    frequencies = np.ones(5, np.int64)
    frequencies[spike] = TOTAL - 4
    table = FrequencyTable(-2, frequencies)
    symbols = np.tile(np.array([-2, -1, 0, 1, 2, spike - 2, spike - 2], np.int64), 40)
    words = encode_plain([(symbols.tolist(), -2, frequencies.tolist())])
    assert np.frombuffer(encode_sections([(symbols, table)]), "<u4").tolist() == words


@settings(max_examples=100, deadline=None)
@given(weights)
def test_frequencies_are_positive_and_complete(values):
    frequencies = normalise(np.array(values, np.int64))
    assert frequencies.min() >= 1
    assert frequencies.sum() == TOTAL


def test_coded_length_is_the_ideal_of_the_integer_table_within_two_words():
    symbols = np.random.default_rng(7).integers(-9, 10, 50_000) // 2
    counts = np.bincount(symbols + 5)
    table = FrequencyTable(-5, normalise(counts))
    bits = 8 * len(encode_sections([(symbols, table)]))
    assert 0 <= bits - table.bits(counts, -5) <= 64
    assert table.bits(counts, -5) <= entropy_bits(counts) * 1.00001


def test_chunks_of_the_library_calls_leave_no_trace():
    table = uniform_table(1)
    symbols = (np.arange(CHUNK + 5) % 3 == 0).astype(np.int8)
    payload = encode_sections([(symbols, table)])
    assert np.array_equal(AnsDecoder(payload, "codes").take(len(symbols), table), symbols)
    assert len(payload) - (CHUNK + 5) / 8 <= 8


def test_a_table_of_one_symbol_costs_nothing():
    table = FrequencyTable(4, np.array([TOTAL]))
    assert encode_sections([(np.full(1000, 4), table)]) == b""
    assert AnsDecoder(b"", "codes").take(3, table).tolist() == [4, 4, 4]


@pytest.mark.parametrize(
    "change", [lambda b: b[:-4], lambda b: b + b"\x01\0\0\0", lambda b: b[4:], lambda b: b[:-1], lambda b: b + b"\0" * 4]
)
def test_missing_and_extra_words_are_refused(change):
    symbols = np.arange(4000, dtype=np.int64) % 50
    table = FrequencyTable(0, normalise(np.arange(1, 51, dtype=np.int64)))
    payload = change(encode_sections([(symbols, table)]))
    with pytest.raises(ArtifactError, match="damaged or forged"):
        take_all(payload, 4000, table)


def take_all(payload, count, table):
    decoder = AnsDecoder(payload, "codes")
    decoder.take(count, table)
    decoder.finish()

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairway.base.errors import DataError
from fairway.data.ledger import covered_lengths, encode_document, encode_documents, piece_table
from fairway.data.tokenizer import BOS, Tokenizer

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30) | st.text(
    "ab  \n\t\u00e9\u2026\ufb01\u65e5\u2581", max_size=30
)


@settings(max_examples=200, deadline=None)
@given(texts=st.lists(TEXT, max_size=4))
def test_fast_and_plain_ledger_agree_and_add_up(tokenizer, texts):
    fast = encode_documents(tokenizer, texts, threads=2, keep_lossy=True)
    for text, encoded in zip(texts, fast, strict=True):
        plain = encode_document(tokenizer, text)
        assert encoded is not None
        assert np.array_equal(encoded.tokens, plain.tokens)
        assert np.array_equal(encoded.byte_costs, plain.byte_costs)
        assert encoded.lossless == plain.lossless == ("\u2581" not in text)
        assert encoded.tokens[0] == BOS
        assert encoded.byte_costs[0] == 0
        assert int(encoded.byte_costs.sum()) == len(text.encode())


@settings(max_examples=200, deadline=None)
@given(text=TEXT)
def test_costs_of_a_lossy_model_still_add_up_to_the_document(challenge_tokenizer, text):
    ids, _ = covered_lengths(challenge_tokenizer, text)
    if len(ids) == 0 and text:
        with pytest.raises(DataError, match="add up to 0"):
            encode_document(challenge_tokenizer, text)
        return
    encoded = encode_document(challenge_tokenizer, text)
    assert int(encoded.byte_costs.sum()) == len(text.encode())
    assert encoded.lossless == (challenge_tokenizer.decode(challenge_tokenizer.encode(text)) == text)


def test_costs_are_consecutive_slices_of_the_document(tokenizer, texts):
    for text in texts[:10]:
        encoded = encode_document(tokenizer, text)
        ends = np.cumsum(encoded.byte_costs.astype(np.int64))
        content = text.encode()
        for index, end, cost in zip(encoded.tokens, ends, encoded.byte_costs, strict=True):
            assert content[end - cost : end] == tokenizer.surfaces[index]


def test_surface_rule_equals_the_encoders_own_map_except_inside_byte_fallback(tokenizer, texts):
    for text in texts[:10]:
        encoded = encode_document(tokenizer, text)
        ids, costs = covered_lengths(tokenizer, text)
        assert np.array_equal(encoded.tokens[1:], ids)
        plain = np.array([tokenizer.kinds[index] != "byte" for index in ids])
        before_plain = np.append(plain[1:], True) & plain
        assert np.array_equal(encoded.byte_costs[1:][before_plain], costs[before_plain])


def test_lossy_documents_are_left_out_unless_kept(challenge_tokenizer):
    lossy, exact = encode_documents(challenge_tokenizer, ["the\nand  of ", "the and of"])
    assert lossy is None
    assert exact is not None
    assert exact.lossless
    kept, _ = encode_documents(challenge_tokenizer, ["the\nand  of ", "the and of"], keep_lossy=True)
    assert kept is not None
    assert not kept.lossless
    assert int(kept.byte_costs.sum()) == 12


def test_piece_table_entries(challenge_tokenizer):
    table = piece_table(challenge_tokenizer)
    pieces = challenge_tokenizer.pieces
    entries = {
        name: (int(table.base[index]), bool(table.space[index]), bool(table.boundary[index]))
        for index, name in enumerate(pieces)
    }
    for special in ("<pad>", "<s>", "</s>", "<unk>"):
        assert entries[special] == (0, False, True)
    assert entries["<0xE9>"] == (1, False, False)
    assert entries["\u2581"] == (0, True, False)
    assert entries["\u2581the"] == (3, True, False)
    assert entries["\u00e9"] == (2, False, False)
    letters = next(piece for piece in pieces[260:] if piece.isascii() and piece.isalpha() and len(piece) > 1)
    assert entries[letters] == (len(letters), False, False)


@settings(max_examples=200, deadline=None)
@given(texts=st.lists(TEXT.map(lambda text: text.replace("\ufffd", "")), min_size=1, max_size=3))
def test_piece_table_counts_the_normalised_text(challenge_tokenizer, texts):
    table = piece_table(challenge_tokenizer)
    encoded = [challenge_tokenizer.encode(text) for text in texts]
    stream = np.concatenate([np.append(np.uint16(BOS), ids) for ids in encoded]).astype(np.uint16)
    normalised = [challenge_tokenizer.decode(ids) for ids in encoded]
    assert int(table.costs(stream).sum()) == sum(len(text.encode()) for text in normalised)


def test_piece_table_and_ledger_agree_on_lossless_documents(challenge_tokenizer):
    text = "the of and \u65e5\u00e9t\u00e9 which had, <s> not."
    encoded = encode_document(challenge_tokenizer, text)
    assert encoded.lossless
    assert np.array_equal(piece_table(challenge_tokenizer).costs(encoded.tokens), encoded.byte_costs)


def test_a_space_after_a_boundary_is_not_charged(challenge_tokenizer):
    table = piece_table(challenge_tokenizer)
    the = challenge_tokenizer.pieces.index("\u2581the")
    assert table.costs(np.array([BOS, the, the], np.uint16)).tolist() == [0, 3, 4]
    assert table.costs(np.array([the], np.uint16)).tolist() == [3]
    with pytest.raises(DataError, match="token 3 at position 1"):
        table.costs(np.array([BOS, 3], np.uint16))


def test_piece_table_refuses_models_it_would_miscount(tokenizer, train_model, texts):
    with pytest.raises(DataError, match=r"has U\+2581 inside"):
        piece_table(tokenizer)
    operators = Tokenizer(train_model(texts, user_defined_symbols=["\ue001", "\ue002", "\ue003", "\ue004"]))
    assert operators.operators == (4, 5, 6, 7)
    with pytest.raises(DataError, match="4 CaseOps operator pieces"):
        piece_table(operators)


SHARED_MODEL = Path(__file__).parents[3] / "shared" / "data" / "tokenizers" / "fineweb_8192_bpe_pr640.model"


@pytest.mark.skipif(not SHARED_MODEL.exists(), reason="the challenge's 8,192-piece model is not on this machine")
def test_piece_table_of_a_published_model():
    published = Tokenizer.load(SHARED_MODEL)
    table = piece_table(published)
    text = "New  line\n\n\u2026 caf\u00e9 \u65e5 x"
    tokens = np.append(np.uint16(BOS), published.encode(text)).astype(np.uint16)
    assert int(table.costs(tokens).sum()) == len("New line ... caf\u00e9 \u65e5 x".encode())
    assert int(encode_document(published, text).byte_costs.sum()) == len(text.encode())

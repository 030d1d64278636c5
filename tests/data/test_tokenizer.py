import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairway.base.errors import DataError
from fairway.data.tokenizer import BOS, Tokenizer, train_tokenizer

CHARACTERS = st.characters(exclude_categories=["Cs"], exclude_characters="\u2581")


@settings(max_examples=300, deadline=None)
@given(text=st.text(CHARACTERS, max_size=40) | st.text("ab \n\t\r\0\u00a0\u200b\ufeff\ufffd\u00e9<s>/", max_size=30))
def test_any_text_without_the_space_sign_comes_back_exactly(tokenizer, text):
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.decode_bytes(ids) == text.encode()
    assert (ids > 3).all()


def test_source_code_and_prose_come_back_exactly(tokenizer, texts):
    sources = [*texts, "def f(x):\n\tif x:\n\t    return {'a': 1}\n\n\n# end", "", " ", "\n\n\n", "  lead and trail  \n "]
    encoded = tokenizer.encode_batch(sources, threads=2)
    assert tokenizer.decode_batch(encoded, threads=2) == sources
    for text, ids in zip(sources, encoded, strict=True):
        assert np.array_equal(ids, tokenizer.encode(text))


def test_pieces_may_hold_line_breaks_and_runs_of_spaces(tokenizer):
    assert any("\n" in piece for piece in tokenizer.pieces[260:])
    assert any(piece.startswith("\u2581\u2581") for piece in tokenizer.pieces)


def test_a_literal_space_sign_is_the_one_thing_that_is_lost(tokenizer):
    assert tokenizer.decode(tokenizer.encode("a\u2581b")) == "a b"


def test_training_is_deterministic_and_identity_is_the_hash_of_the_file(tokenizer, texts, tmp_path):
    again = train_tokenizer(iter(texts), 400)
    assert again.model == tokenizer.model
    again.save(tmp_path / "t.model")
    assert Tokenizer.load(tmp_path / "t.model").sha256 == hashlib.sha256((tmp_path / "t.model").read_bytes()).hexdigest()


def test_layout_of_ids(tokenizer):
    assert tokenizer.vocab_size == 400
    assert tokenizer.kinds[:4] == ("control", "control", "control", "unknown")
    assert tokenizer.pieces[BOS] == "<s>"
    assert tokenizer.surfaces[4:260] == tuple(bytes([value]) for value in range(256))
    assert tokenizer.surfaces[:4] == (b"", b"", b"", b"")


def test_long_documents_are_not_skipped_by_the_trainer():
    long = " ".join(f"prefix{number}" for number in range(30000))
    pieces = train_tokenizer([long], 290).pieces
    assert "prefix" in {piece.lstrip("\u2581") for piece in pieces}


@pytest.mark.parametrize(
    ("texts", "size", "message"),
    [
        ([""], 400, "give more text"),
        (["hello world"], 1000, "only 2.. can be made"),
        (["a b"], 100, "outside 264"),
        (["a b"], 70000, "outside"),
    ],
)
def test_impossible_vocabularies_are_refused(texts, size, message):
    with pytest.raises(DataError, match=message):
        train_tokenizer(texts, size)


@pytest.mark.parametrize("content", [b"", b"garbage", b"\x0a\x05"])
def test_a_file_that_is_no_model_is_refused(content):
    with pytest.raises(DataError, match="not a SentencePiece model"):
        Tokenizer(content)


def test_models_that_lose_bytes_are_refused(train_model, texts):
    with pytest.raises(DataError, match="no byte fallback"):
        Tokenizer(train_model(texts, byte_fallback=False))
    with pytest.raises(DataError, match=r"no piece U\+2581"):
        Tokenizer(train_model([text.replace(" ", "x").replace("\n", "x").replace("\t", "x") for text in texts], vocab_size=300))
    with pytest.raises(DataError, match="BOS id is 2"):
        Tokenizer(train_model(texts, bos_id=2, eos_id=1))


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"none\.model cannot be read"):
        Tokenizer.load(tmp_path / "none.model")


def test_a_lossy_model_is_accepted_and_found_out(challenge_tokenizer):
    assert challenge_tokenizer.decode(challenge_tokenizer.encode("a\nb")) == "a b"

from pathlib import Path

import pytest
from corpus_helpers import make_texts, train_challenge_model, write_jsonl

from fairway.data.build import build_dataset
from fairway.data.tokenizer import Tokenizer, train_tokenizer


@pytest.fixture(scope="session")
def texts():
    return make_texts(60)


@pytest.fixture(scope="session")
def tokenizer(texts):
    return train_tokenizer(texts, 400)


@pytest.fixture(scope="session")
def challenge_tokenizer(texts):
    """A toy model with the settings of the published exports: nmt_nfkc, spaces collapsed, no runs of spaces as pieces."""
    return Tokenizer(train_challenge_model(texts))


@pytest.fixture(scope="session")
def train_model():
    return train_challenge_model


@pytest.fixture
def corpus(tmp_path, texts):
    return write_jsonl(tmp_path / "corpus.jsonl", texts)


@pytest.fixture(scope="session")
def built(tmp_path_factory, texts) -> Path:
    """A small built data folder; tests that damage it work on a copy."""
    place = tmp_path_factory.mktemp("built")
    write_jsonl(place / "corpus.jsonl", texts)
    build_dataset([place / "corpus.jsonl"], place / "data", vocab_size=400, val_documents=6)
    return place / "data"

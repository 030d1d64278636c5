import numpy as np
from corpus_helpers import make_texts, write_jsonl

from fairway.data.build import build_dataset
from fairway.data.dataset import Dataset
from fairway.data.describe import describe, openings, overlapping_documents
from fairway.data.tokenizer import BOS


def test_summary_figures(built, texts):
    summary = describe(Dataset.open(built))
    assert (summary.val.documents, summary.train.documents) == (6, 54)
    assert summary.val.bytes == sum(len(text.encode()) for text in texts[:6])
    assert summary.train.bytes == sum(len(text.encode()) for text in texts[6:])
    assert summary.train.bytes_per_token == summary.train.bytes / summary.train.tokens
    assert (summary.val.first_document, summary.val.end_document, summary.train.end_document) == (0, 6, 60)
    assert (summary.vocab_size, summary.byte_rule, summary.lossy_documents) == (400, "sidecar", 0)
    assert summary.overlapping_documents == 0
    assert describe(Dataset.open(built), overlap=False).overlapping_documents is None


def test_the_leak_of_a_wrong_split_is_found(tmp_path, texts):
    more = make_texts(40, seed=1)
    ends = [text + "other end" for text in texts[:8]]
    train, val = write_jsonl(tmp_path / "t.jsonl", more + ends), write_jsonl(tmp_path / "v.jsonl", texts[:10])
    build_dataset([train], tmp_path / "data", vocab_size=300, validation=[val])
    long = sum(len(Dataset.open(tmp_path / "data").tokenizer.encode(text)) >= 32 for text in texts[:8])
    assert long >= 6
    assert overlapping_documents(Dataset.open(tmp_path / "data")) == long


def naive(tokens, complete):
    parts = [part[1:33].tolist() for part in np.split(tokens, np.flatnonzero(tokens == BOS)[1:])]
    if not complete and len(parts[-1]) < 32:
        parts.pop()
    return [part for part in parts if part]


def test_openings_agree_with_a_plain_walk():
    generator = np.random.default_rng(0)
    for complete in (True, False):
        for _ in range(30):
            lengths = generator.integers(0, 50, size=generator.integers(1, 6))
            tokens = np.concatenate([np.append(BOS, generator.integers(4, 300, length)) for length in lengths]).astype(
                np.uint16
            )
            found = [np.frombuffer(value.tobytes(), np.uint16) for value in openings(tokens, complete=complete)]
            assert [row[row != BOS].tolist() for row in found] == naive(tokens, complete)

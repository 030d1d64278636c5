import json

import numpy as np
import pytest
from corpus_helpers import make_texts, write_jsonl

from fairway.base.errors import DataError
from fairway.base.files import sha256_file
from fairway.data.build import build_dataset
from fairway.data.dataset import Dataset
from fairway.data.documents import Document
from fairway.data.shards import find_shards, open_shards
from fairway.data.survey import survey_documents
from fairway.data.tokenizer import BOS


def stored(folder, split):
    tokens = np.concatenate([shard.values for shard in open_shards(find_shards(folder, split))])
    costs = np.concatenate([shard.values for shard in open_shards(find_shards(folder, split, sidecar=True))])
    return tokens, costs


def documents_of(folder, tokenizer, split):
    tokens, costs = stored(folder, split)
    starts = np.flatnonzero(tokens == BOS)
    parts = np.split(tokens, starts[1:])
    assert [int(part.sum()) for part in np.split(costs, starts[1:])] == [len(tokenizer.decode_bytes(part)) for part in parts]
    return [tokenizer.decode_bytes(part).decode() for part in parts]


def test_every_document_is_stored_once_and_exactly(built, texts):
    dataset = Dataset.open(built)
    assert documents_of(built, dataset.tokenizer, "val") == texts[:6]
    assert documents_of(built, dataset.tokenizer, "train") == texts[6:]


def test_manifest_says_what_is_on_disk(built, texts):
    manifest = json.loads((built / "manifest.json").read_text())
    assert (manifest["val"]["first_document"], manifest["val"]["end_document"]) == (0, 6)
    assert (manifest["train"]["first_document"], manifest["train"]["end_document"]) == (6, 60)
    assert manifest["val"]["bytes"] == sum(len(text.encode()) for text in texts[:6])
    assert manifest["train"]["bytes"] == sum(len(text.encode()) for text in texts[6:])
    assert len(manifest["train_shards"]) == 8
    assert manifest["tokenizer_sha256"] == sha256_file(built / "tokenizer.model")
    names = {"manifest.json", "tokenizer.model"}
    for split in ("val", "train"):
        for entry in manifest[f"{split}_shards"]:
            assert sha256_file(built / entry["file"]) == entry["sha256"]
            names |= {entry["file"], entry["file"].replace("_0", "_bytes_0", 1)}
    assert {path.name for path in built.iterdir()} == names


def test_the_result_does_not_depend_on_threads_or_place(built, corpus, tmp_path):
    report = build_dataset([corpus], tmp_path / "again", vocab_size=400, val_documents=6, threads=1)
    assert report.fingerprint == Dataset.open(built).fingerprint
    for path in built.iterdir():
        if path.name != "manifest.json":
            assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()


def test_small_shards_are_cut_inside_documents(corpus, tmp_path, texts):
    build_dataset([corpus], tmp_path / "data", vocab_size=400, val_documents=2, shard_tokens=50)
    shards = open_shards(find_shards(tmp_path / "data", "train"))
    assert all(shard.tokens == 50 for shard in shards[:-1])
    assert any(shard.values[0] != BOS for shard in shards)
    dataset = Dataset.open(tmp_path / "data")
    assert documents_of(tmp_path / "data", dataset.tokenizer, "train") == texts[2:]


def test_default_share_of_validation(tmp_path):
    path = write_jsonl(tmp_path / "a.jsonl", make_texts(250))
    assert build_dataset([path], tmp_path / "data", vocab_size=400).manifest.val.documents == 2
    path = write_jsonl(tmp_path / "b.jsonl", make_texts(30))
    assert build_dataset([path], tmp_path / "few", vocab_size=400).manifest.val.documents == 1


def test_a_given_tokenizer_is_kept_byte_for_byte(corpus, tmp_path, tokenizer):
    tokenizer.save(tmp_path / "t.model")
    report = build_dataset([corpus], tmp_path / "data", tokenizer=tmp_path / "t.model")
    assert report.manifest.tokenizer_sha256 == tokenizer.sha256
    assert report.manifest.val.documents == 1
    with pytest.raises(DataError, match="400 pieces, not 300"):
        build_dataset([corpus], tmp_path / "other", tokenizer=tmp_path / "t.model", vocab_size=300)


def test_separate_validation_input(tmp_path, texts):
    train, val = write_jsonl(tmp_path / "t.jsonl", texts[10:]), write_jsonl(tmp_path / "v.jsonl", texts[:10])
    report = build_dataset([train], tmp_path / "data", vocab_size=400, validation=[val])
    assert (report.manifest.val.end_document, report.manifest.train.end_document) == (10, 60)
    dataset = Dataset.open(tmp_path / "data")
    assert documents_of(tmp_path / "data", dataset.tokenizer, "val") == texts[:10]
    with pytest.raises(DataError, match="exclude each other"):
        build_dataset([train], tmp_path / "other", vocab_size=400, validation=[val], val_documents=3)


def test_validation_text_inside_training_is_refused_dropped_or_kept(tmp_path, texts):
    train, val = write_jsonl(tmp_path / "t.jsonl", texts), write_jsonl(tmp_path / "v.jsonl", texts[:10])
    with pytest.raises(DataError, match="10 training documents are also in validation"):
        build_dataset([train], tmp_path / "data", vocab_size=400, validation=[val])
    assert not (tmp_path / "data").exists()
    report = build_dataset([train], tmp_path / "data", vocab_size=400, validation=[val], duplicates="drop")
    assert report.manifest.train.dropped_duplicates == 10
    assert report.manifest.train.documents == 50
    kept = build_dataset([train], tmp_path / "kept", vocab_size=400, validation=[val], duplicates="keep")
    assert kept.manifest.train.documents == 60


def test_duplicates_across_a_split_of_one_input_are_refused(tmp_path, texts):
    path = write_jsonl(tmp_path / "a.jsonl", [*texts, texts[0]])
    with pytest.raises(DataError, match="1 training documents are also in validation"):
        build_dataset([path], tmp_path / "data", vocab_size=400)


def test_lossy_documents_are_refused_dropped_or_marked(tmp_path, texts, challenge_tokenizer):
    challenge_tokenizer.save(tmp_path / "c.model")
    flat = [" ".join(text.split()).replace("\t", "") for text in texts]
    path = write_jsonl(tmp_path / "a.jsonl", [*flat[:20], "two  spaces", *flat[20:], "line\nend", "\n \n"])
    options = {"tokenizer": tmp_path / "c.model", "val_documents": 5}
    with pytest.raises(
        DataError, match=r"3 of 63 .* the tokenizer .*a\.jsonl:21 changed from character 4 on, U\+0020; .*a\.jsonl:62"
    ):
        build_dataset([path], tmp_path / "data", **options)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a.jsonl", "c.model"]
    report = build_dataset([path], tmp_path / "data", lossy="drop", **options)
    assert report.manifest.train.dropped_lossy == 3
    assert Dataset.open(tmp_path / "data").lossy_documents == 0
    with pytest.raises(DataError, match="has no token to charge them to"):
        build_dataset([path], tmp_path / "kept", lossy="keep", **options)
    path = write_jsonl(tmp_path / "b.jsonl", [*flat, "two  spaces", "line\nend"])
    build_dataset([path], tmp_path / "kept", lossy="keep", **options)
    dataset = Dataset.open(tmp_path / "kept")
    assert dataset.lossy_documents == 2
    assert int(stored(tmp_path / "kept", "train")[1].sum()) == sum(
        len(text.encode()) for text in [*flat[5:], "two  spaces", "line\nend"]
    )


def test_a_literal_space_sign_is_refused_with_our_own_tokenizer(tmp_path, texts):
    path = write_jsonl(tmp_path / "a.jsonl", [*texts, "a \u2581 b"])
    with pytest.raises(DataError, match=r"1 of 61 documents do not survive the tokenizer \(.*a\.jsonl:61 .* U\+2581\)"):
        build_dataset([path], tmp_path / "data", vocab_size=400)


def test_empty_records_are_a_lone_bos(tmp_path, texts):
    path = write_jsonl(tmp_path / "a.jsonl", [texts[0], "", *texts[1:], ""])
    report = build_dataset([path], tmp_path / "data", vocab_size=400, val_documents=2)
    assert report.manifest.train.documents == 60
    tokens, costs = stored(tmp_path / "data", "train")
    assert tokens[-1] == BOS
    assert costs[-1] == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "neither a vocabulary size nor a tokenizer"),
        ({"vocab_size": 400, "val_documents": 0}, "give at least 1"),
        ({"vocab_size": 400, "val_documents": 60}, "leave none for training"),
        ({"vocab_size": 400, "shard_tokens": 0}, "0 tokens per shard"),
        ({"vocab_size": 60000}, "too small for 60000 pieces"),
        ({"vocab_size": 400, "text_field": "body"}, r"corpus\.jsonl:1 has no string under 'body'"),
    ],
)
def test_bad_requests_leave_nothing_behind(corpus, tmp_path, options, message):
    with pytest.raises(DataError, match=message):
        build_dataset([corpus], tmp_path / "data", **options)
    assert [path.name for path in tmp_path.iterdir()] == ["corpus.jsonl"]


def test_bad_text_in_the_middle_leaves_nothing_behind(tmp_path, corpus):
    bad = tmp_path / "bad.txt"
    bad.write_bytes(b"caf\xe9")
    with pytest.raises(DataError, match=r"bad\.txt is not UTF-8"):
        build_dataset([corpus, bad], tmp_path / "data", vocab_size=400)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.txt", "corpus.jsonl"]


def test_overwriting_is_asked_for_and_only_for_data_folders(corpus, tmp_path):
    out = tmp_path / "data"
    out.mkdir()
    build_dataset([corpus], out, vocab_size=400)
    before = Dataset.open(out).fingerprint
    with pytest.raises(DataError, match="pass --overwrite"):
        build_dataset([corpus], out, vocab_size=300)
    with pytest.raises(DataError, match="does not exist"):
        build_dataset([tmp_path / "none"], out, vocab_size=300, overwrite=True)
    assert Dataset.open(out).fingerprint == before
    assert build_dataset([corpus], out, vocab_size=300, overwrite=True).manifest.tokenizer_pieces == 300
    assert Dataset.open(out).vocab_size == 300
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.txt").write_text("x")
    with pytest.raises(DataError, match="not a data folder"):
        build_dataset([corpus], precious, vocab_size=400, overwrite=True)
    with pytest.raises(DataError, match="not a data folder"):
        build_dataset([corpus], corpus, vocab_size=400, overwrite=True)
    assert (precious / "thesis.txt").read_text() == "x"


def test_the_sample_for_the_tokenizer_is_fixed_and_bounded(texts):
    documents = [Document(index, "", text) for index, text in enumerate(texts)]
    survey = survey_documents(documents, sample_bytes=3000)
    assert survey.documents == 60
    assert survey.bytes == sum(len(text.encode()) for text in texts)
    assert 0 < sum(len(document.text.encode()) for document in survey.sample) <= 3000
    assert survey == survey_documents(iter(documents), sample_bytes=3000)
    assert [document.index for document in survey.sample] == sorted(document.index for document in survey.sample)
    assert len(survey_documents(documents).sample) == 60


def test_the_standard_library_builds(tmp_path):
    report = build_dataset(["python-stdlib"], tmp_path / "data", vocab_size=1024, val_documents=10)
    assert report.manifest.train.documents > 200
    assert report.bytes_per_token > 2
    Dataset.open(tmp_path / "data").verify()

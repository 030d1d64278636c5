import json
import shutil

import numpy as np
import pytest

from fairway.base.errors import DataError
from fairway.data.dataset import Dataset
from fairway.data.shards import Shard, write_shard
from fairway.data.tokenizer import BOS


@pytest.fixture
def folder(built, tmp_path):
    return shutil.copytree(built, tmp_path / "data")


def edit(folder, change):
    path = folder / "manifest.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def rewrite(folder, name, change):
    values = np.array(Shard(folder / name).values)
    write_shard(folder / name, change(values).astype(np.uint16))


def put(index, value):
    def change(values):
        values[index] = value
        return values

    return change


def test_stream_and_shards(built, texts):
    dataset = Dataset.open(built)
    stream = dataset.validation()
    assert stream.byte_rule == "sidecar"
    assert len(stream.tokens) == len(stream.byte_costs)
    assert stream.documents.dtype == np.int64
    assert len(stream.documents) == 6
    assert (stream.tokens[stream.documents] == BOS).all()
    assert int(stream.byte_costs.sum()) == sum(len(text.encode()) for text in texts[:6])
    assert [shard.path.name for shard in dataset.train_shards()] == [f"train_{index:06d}.bin" for index in range(8)]
    assert dataset.vocab_size == 400
    dataset.verify()
    dataset.check_vocabulary(400)
    with pytest.raises(DataError, match=r"set model\.vocab_size=400"):
        dataset.check_vocabulary(1024)


def test_the_cost_of_a_target_has_the_targets_own_index(built):
    stream = Dataset.open(built).validation()
    tokenizer = Dataset.open(built).tokenizer
    start, end = stream.documents[1], stream.documents[2]
    targets = stream.tokens[start + 1 : end]
    assert int(stream.byte_costs[start + 1 : end].sum()) == len(tokenizer.decode_bytes(targets))


def test_fingerprint_changes_with_content_only(folder, built):
    before = Dataset.open(built).fingerprint
    edit(folder, lambda content: content.update(inputs=["elsewhere"]))
    assert Dataset.open(folder).fingerprint == before
    edit(folder, lambda content: content["train_shards"][3].update(bytes_sha256="0" * 64))
    assert Dataset.open(folder).fingerprint != before


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "manifest.json").unlink(), "manifest.json does not exist"),
        (lambda folder: (folder / "manifest.json").write_text("{"), "not valid JSON"),
        (lambda folder: (folder / "manifest.json").write_text("[]"), "not a valid manifest"),
        (lambda folder: edit(folder, lambda content: content.pop("lossy")), "lacks lossy"),
        (lambda folder: edit(folder, lambda content: content.update(lossi=1)), "no field 'lossi'"),
        (lambda folder: edit(folder, lambda content: content.update(version=2)), "version 2"),
        (lambda folder: edit(folder, lambda content: content["train"].update(first_document=5, end_document=59)), "overlap"),
        (lambda folder: edit(folder, lambda content: content["train"].update(end_document=61)), "accounts for another"),
        (lambda folder: edit(folder, lambda content: content["val"].update(tokens=1)), "val shards hold"),
        (
            lambda folder: edit(folder, lambda content: content.update(tokenizer_sha256="0" * 64)),
            "restore the matching tokenizer",
        ),
        (
            lambda folder: edit(folder, lambda content: content.update(tokenizer_pieces=401)),
            "400 pieces, the manifest says 401",
        ),
        (lambda folder: (folder / "tokenizer.model").unlink(), "tokenizer.model cannot be read"),
        (lambda folder: (folder / "train_000003.bin").unlink(), "lacks train_000003"),
        (lambda folder: (folder / "train_000007.bin").unlink(), "7 train token shards, the manifest lists 8"),
        (lambda folder: (folder / "train_bytes_000007.bin").unlink(), "7 train byte sidecars, the manifest lists 8"),
        (lambda folder: (folder / "val_bytes_000000.bin").unlink(), "0 val byte sidecars"),
        (lambda folder: (folder / "val_000000.bin").unlink(), "0 val token shards"),
        (lambda folder: rewrite(folder, "train_000001.bin", lambda values: values[:-1]), "the manifest says"),
        (lambda folder: rewrite(folder, "val_bytes_000000.bin", lambda values: values[:-1]), "tokens; build the data again"),
        (lambda folder: rewrite(folder, "val_bytes_000000.bin", lambda values: np.append(values, 1)), "build the data again"),
        (lambda folder: rewrite(folder, "val_000000.bin", put(7, 400)), "holds token 400"),
        (lambda folder: rewrite(folder, "val_000000.bin", put(0, 300)), "does not begin with BOS"),
        (lambda folder: rewrite(folder, "val_000000.bin", put(5, BOS)), "7 documents, the manifest says 6"),
        (lambda folder: rewrite(folder, "val_000000.bin", put(slice(None), 300)), "has no BOS"),
        (lambda folder: rewrite(folder, "val_bytes_000000.bin", put(0, 3)), "charges bytes to a BOS"),
        (lambda folder: rewrite(folder, "val_bytes_000000.bin", put(slice(None), 0)), "stands for 0 bytes"),
        (lambda folder: rewrite(folder, "val_bytes_000000.bin", put(5, 60000)), "bytes, the manifest says"),
    ],
)
def test_every_contradiction_is_refused_at_opening(folder, damage, message):
    damage(folder)
    with pytest.raises(DataError, match=message):
        Dataset.open(folder)


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(DataError, match="fairway data build"):
        Dataset.open(tmp_path / "none")


def test_verify_finds_a_changed_token_and_a_token_outside_the_vocabulary(folder):
    rewrite(folder, "train_000002.bin", put(9, 77))
    dataset = Dataset.open(folder)
    with pytest.raises(DataError, match=r"train_000002\.bin has SHA-256"):
        dataset.verify()
    rewrite(folder, "train_000002.bin", put(9, 500))

    def accept(content):
        from fairway.base.files import sha256_file

        content["train_shards"][2]["sha256"] = sha256_file(folder / "train_000002.bin")

    edit(folder, accept)
    with pytest.raises(DataError, match=r"train_000002\.bin holds token 500"):
        Dataset.open(folder).verify()


def test_lone_token_validation_is_refused(folder):
    rewrite(folder, "val_000000.bin", lambda values: values[:1])
    rewrite(folder, "val_bytes_000000.bin", lambda values: values[:1])

    def accept(content):
        content["val"].update(tokens=1)
        content["val_shards"][0].update(tokens=1)

    edit(folder, accept)
    with pytest.raises(DataError, match="has 1 tokens; at least 2"):
        Dataset.open(folder)

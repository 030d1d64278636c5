import json
import shutil

import numpy as np
import pytest
from published_helpers import write_export

from fairway.base.errors import DataError
from fairway.data.dataset import Dataset
from fairway.data.describe import describe
from fairway.data.published import parse_export
from fairway.data.shards import Shard, write_shard
from fairway.data.tokenizer import Tokenizer

FOLDER = "datasets/fineweb10B_sp1024"


@pytest.fixture(scope="session")
def flat(texts):
    return [" ".join(text.split()) for text in texts[:30]]


@pytest.fixture
def export(tmp_path, challenge_tokenizer, flat):
    write_export(tmp_path / "data", challenge_tokenizer, flat)
    return tmp_path / "data"


def edit(folder, change):
    content = json.loads((folder / "manifest.json").read_text())
    change(content)
    (folder / "manifest.json").write_text(json.dumps(content))


def test_an_export_without_sidecars_opens_with_the_piece_table(export, flat, challenge_tokenizer):
    dataset = Dataset.open(export)
    stream = dataset.validation()
    assert stream.byte_rule == "piece_table"
    assert len(stream.documents) == 4
    assert int(stream.byte_costs.sum()) == sum(len(text.encode()) for text in flat[:4])
    assert [shard.path.name for shard in dataset.train_shards()] == [f"fineweb_train_{index:06d}.bin" for index in range(3)]
    assert dataset.vocab_size == challenge_tokenizer.vocab_size
    dataset.verify()
    summary = describe(dataset)
    assert (summary.val.documents, summary.train.documents, summary.overlapping_documents) == (4, 26, 0)
    assert summary.train.bytes is None


def test_sidecars_are_used_where_the_export_has_them(tmp_path, tokenizer, texts):
    write_export(tmp_path, tokenizer, texts[:20], sidecars=True)
    stream = Dataset.open(tmp_path).validation()
    assert stream.byte_rule == "sidecar"
    assert int(stream.byte_costs.sum()) == sum(len(text.encode()) for text in texts[:4])
    (tmp_path / FOLDER / "fineweb_val_bytes_000000.bin").unlink()
    with pytest.raises(DataError, match="has no byte sidecar"):
        Dataset.open(tmp_path)


def test_operator_pieces_need_a_sidecar(tmp_path, train_model, texts, flat):
    operators = Tokenizer(train_model(texts, user_defined_symbols=["\ue001", "\ue002", "\ue003", "\ue004"]))
    write_export(tmp_path, operators, flat)
    with pytest.raises(DataError, match="has no byte sidecar"):
        Dataset.open(tmp_path)


def test_a_prefix_of_the_training_shards_is_enough_but_validation_is_whole(export):
    place = export / FOLDER
    (place / "fineweb_train_000002.bin").unlink()
    assert len(Dataset.open(export).train_shards()) == 2
    (place / "fineweb_train_000000.bin").unlink()
    with pytest.raises(DataError, match=r"lacks train_000000"):
        Dataset.open(export)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content.update(num_val_docs=3), "splits the list at 3"),
        (lambda content: content["datasets"][0]["stats"].update(docs_total=20), "its splits overlap"),
        (lambda content: content["datasets"][0]["stats"].update(docs_val=5, docs_train=25, docs_total=30), "splits the list"),
        (lambda content: content["datasets"][0]["stats"].update(files_val=2), "1 validation and 3 training shards"),
        (lambda content: content["datasets"][0]["stats"].update(files_train=2), "1 validation and 3 training shards"),
        (lambda content: content["datasets"][0]["stats"].update(tokens_val=7), "another number of tokens"),
        (lambda content: content["datasets"][0]["stats"].pop("files_train"), "lacks the number files_train"),
        (lambda content: content["datasets"][0].update(vocab_size=1024), "the manifest says 1024"),
        (lambda content: content["datasets"][0].update(tokenizer_name="none"), "0 entries for tokenizer 'none'; it lists toy"),
        (lambda content: content["tokenizers"][0].update(model_path="x.json"), "no SentencePiece model file"),
        (lambda content: content.update(datasets=[]), "none of"),
    ],
)
def test_contradictions_of_the_published_manifest_are_refused(export, change, message):
    edit(export, change)
    with pytest.raises(DataError, match=message):
        Dataset.open(export)


def test_wrong_validation_content_is_refused(export):
    path = export / FOLDER / "fineweb_val_000000.bin"
    values = np.array(Shard(path).values)
    for index, token, message in (
        (5, 60000, "holds token 60000"),
        (5, 3, "stands for no bytes"),
        (5, 1, "5 documents, the manifest says 4"),
    ):
        changed = values.copy()
        changed[index] = token
        write_shard(path, changed)
        with pytest.raises(DataError, match=message):
            Dataset.open(export)


def test_several_data_sets_need_a_name(export):
    shutil.copytree(export / FOLDER, export / "datasets" / "other")

    def add(content):
        content["datasets"].append({**content["datasets"][0], "name": "other"})

    edit(export, add)
    with pytest.raises(DataError, match=r"fineweb10B_sp1024, other"):
        Dataset.open(export)
    assert Dataset.open(export, name="other").folder == export


def test_a_name_that_leaves_the_folder_is_refused(export):
    edit(export, lambda content: content["datasets"][0].update(name="../x"))
    with pytest.raises(DataError, match="not a plain folder name"):
        parse_export(json.loads((export / "manifest.json").read_text()), "../x", "manifest")

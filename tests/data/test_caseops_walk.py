"""The whole walk on transformed text: build, train, pack, score, prove, write, compress and decompress by command."""

import contextlib
import io
import json

import pytest
from corpus_helpers import write_jsonl

from cli.commands import flags
from fairway.cli import main
from fairway.data.caseops import OPERATORS
from fairway.data.dataset import Dataset
from fairway.data.documents import read_documents

FILE = f"The NASA Launch of iPhone {OPERATORS}\n\n\u2581DON'T \u2122Abc \ufb01Ne".encode() + b"\xff\x00ABC\xee\x80 Def "


def command(*words):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([str(word) for word in words])
    assert code == 0, err.getvalue()
    return out.getvalue()


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    place = tmp_path_factory.mktemp("walk")
    texts = [document.text[:1500] for document, _ in zip(read_documents(["python-stdlib"]), range(120), strict=False)]
    write_jsonl(place / "corpus.jsonl", texts)
    text = command(
        "data", "build", "--transform", "caseops", "--input", place / "corpus.jsonl", "--vocab", 384,
        "--val-documents", 12, "--duplicates", "drop", "--out", place / "data",
    )  # fmt: skip
    assert "fingerprint" in text
    assert "caseops" in command("data", "verify", place / "data")
    return place / "data"


@pytest.mark.slow
def test_a_run_on_transformed_text(data, quick, tmp_path):
    out = tmp_path / "run"
    command("run", "tiny", "--data", data, "--out", out, *flags(quick))
    score = json.loads((out / "score.json").read_text())
    dataset = Dataset.open(data)
    stream = dataset.validation()
    assert score["bytes"] == int(stream.byte_costs[1 : score["tokens"] + 1].sum())
    command("prove", out, "--tokens", 400)
    proof = json.loads((out / "proof.json").read_text())
    assert proof["decoded_exactly"] == 2
    artifact = out / "model.fwz"
    command("decompress", out / "proof.fwc", "-m", artifact, "-o", tmp_path / "text")
    assert (tmp_path / "text").read_bytes() == dataset.tokenizer.decode_bytes(stream.tokens[:401])
    for content in (FILE, b""):
        (tmp_path / "file").write_bytes(content)
        command("compress", tmp_path / "file", "-m", artifact, "-o", tmp_path / "coded.fwc")
        command("decompress", tmp_path / "coded.fwc", "-m", artifact, "-o", tmp_path / "back")
        assert (tmp_path / "back").read_bytes() == content
    written = command("generate", artifact, "--prompt", "The NASA Launch of iPhone", "--tokens", 40)
    assert written.startswith("The NASA Launch of iPhone")
    samples = json.loads((out / "samples.json").read_text())
    for text in (written, *(sample["text"] for sample in samples)):
        assert not set(OPERATORS) & set(text)

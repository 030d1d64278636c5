"""``prove``, ``compress`` and ``decompress`` on a real artifact, through the command line."""

import json
import math
import signal
from pathlib import Path

import numpy as np
import pytest
from commands import command, finish, process

from fairway.data.dataset import Dataset

TEXT = b"def encode(self, o):\n    return self.iterencode(o)\n" * 3 + b"\xff\x00" + "\u2581 na\u00efve".encode()


# The tilted pass contains the others; `make long` takes each alone.
@pytest.mark.parametrize(
    "name", ["plain", *(pytest.param(name, marks=pytest.mark.long) for name in ("sliding", "adapted")), "tilted"]
)
def test_every_predictor_can_be_proved(name: str, done: Path, tmp_path: Path) -> None:
    code, text, error = command("prove", done, "--tokens", 600, "--pass", name, "--out", tmp_path, "--machine.threads", 2)
    assert code == 0, error
    assert "came back exactly" in text
    proof = json.loads((tmp_path / "proof.json").read_text())
    assert proof["decoded_exactly"] == 2
    assert proof["targets"] == 600
    assert proof["blocks"] == (3 if name in ("adapted", "tilted") else 1)
    bits = 8 * (proof["coded_bytes"] - proof["overhead_bytes"])
    assert abs(bits - proof["nats"] / math.log(2)) <= 64 + 0.001 * bits
    assert proof["coded_bytes"] == (tmp_path / "proof.fwc").stat().st_size


def test_the_proved_figure_is_the_scored_one(done: Path, tmp_path: Path) -> None:
    """The passes without adaptation score a target alike whatever follows it, so the proof's nats are the ledger's."""
    assert command("prove", done, "--tokens", 600, "--pass", "sliding", "--out", tmp_path)[0] == 0
    proof = json.loads((tmp_path / "proof.json").read_text())
    with np.load(done / "ledger.npz") as ledger:
        assert proof["nats"] == pytest.approx(float(ledger["sliding_nll"][:600].astype(np.float64).sum()), rel=1e-5)
        assert proof["text_bytes"] == int(ledger["bytes"][:600].astype(np.int64).sum())


def test_decoding_the_proof_gives_the_text(done: Path, corpus: Path, tmp_path: Path) -> None:
    assert command("prove", done, "--tokens", 300, "--out", tmp_path)[0] == 0
    out, ids = tmp_path / "text.bin", tmp_path / "tokens.npy"
    code, _, error = command(
        "decompress", tmp_path / "proof.fwc", "-m", done / "model.fwz", "-o", out, "--tokens", ids
    )  # fmt: skip
    assert code == 0, error
    dataset = Dataset.open(corpus)
    tokens = dataset.validation().tokens[:301]
    assert np.array_equal(np.load(ids), tokens)
    assert out.read_bytes() == dataset.tokenizer.decode_bytes(tokens)


def test_a_file_comes_back_in_other_processes(done: Path, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(TEXT)
    model = ("-m", done / "model.fwz")
    finish(process("compress", tmp_path / "in", *model, "-o", tmp_path / "coded.fwc"))
    assert (tmp_path / "coded.fwc").stat().st_size < len(TEXT) + 120
    finish(process("decompress", tmp_path / "coded.fwc", *model, "-o", tmp_path / "out"))
    assert (tmp_path / "out").read_bytes() == TEXT


def test_an_empty_file_comes_back(done: Path, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"")
    assert command("compress", tmp_path / "in", "-m", done / "model.fwz", "-o", tmp_path / "c")[0] == 0
    assert command("decompress", tmp_path / "c", "-m", done / "model.fwz", "-o", tmp_path / "out")[0] == 0
    assert (tmp_path / "out").read_bytes() == b""


def test_mistakes_get_one_line(done: Path, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"some text")
    (tmp_path / "notes").write_text("not coded")
    model = ("-m", done / "model.fwz", "-o", tmp_path / "out")
    assert command("compress", tmp_path / "in", "-m", done / "model.fwz", "-o", tmp_path / "coded")[0] == 0
    coded = bytearray((tmp_path / "coded").read_bytes())
    coded[len(coded) // 2] ^= 4
    (tmp_path / "flipped").write_bytes(coded)
    for words, expected in (
        (("compress", tmp_path / "nothing", *model), "cannot be read"),
        (("compress", tmp_path / "in", *model, "--pass", "float"), "--pass float cannot code text"),
        (("decompress", tmp_path / "notes", *model), "is not coded text"),
        (("decompress", tmp_path / "flipped", *model), "checksum"),
        (("prove", done, "--tokens", 0), "--tokens 0"),
    ):
        code, _, error = command(*words)
        assert code == 2
        assert expected in error
        assert "Traceback" not in error
        assert not (tmp_path / "out").exists()


def test_an_interrupted_decoder_leaves_no_text(done: Path, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(TEXT * 100)
    assert command("compress", tmp_path / "in", "-m", done / "model.fwz", "-o", tmp_path / "coded", "--pass", "plain")[0] == 0
    running = process("decompress", tmp_path / "coded", "-m", done / "model.fwz", "-o", tmp_path / "out")
    assert running.stderr is not None
    while line := running.stderr.readline():
        # The last thing said before the first token; earlier, Python may still be importing and end by the signal itself.
        if b"decoding" in line:
            break
    running.send_signal(signal.SIGINT)
    _, error = running.communicate(timeout=60)
    assert running.returncode == 130, error.decode()[-500:]
    assert not list(tmp_path.glob("out*"))

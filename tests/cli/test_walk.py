"""The command line from end to end on a minute recipe: files, contract, resume, verdicts, bad input."""

import json
import math
import signal
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import command, finish, flags, process
from safetensors.torch import load_file

from fairway.config import Recipe
from fairway.data.dataset import Dataset

PASSES = ["float", "plain", "sliding", "adapted", "tilted"]


def test_a_run_leaves_every_file(done: Path) -> None:
    names = {path.name for path in done.iterdir()}
    assert names >= {
        "recipe.json", "environment.json", "metrics.jsonl", "clock.json", "weights.safetensors", "model.fwz", "code.bundle",
        "tensors.json", "score.json", "ledger.npz", "samples.json", "report.html",
    }  # fmt: skip
    assert not [name for name in names if name.endswith(".part")]
    assert not list((done / "state").glob("*")) if (done / "state").exists() else True


def test_score_json_keeps_its_contract(done: Path, corpus: Path, quick: Recipe) -> None:
    score = json.loads((done / "score.json").read_text())
    assert set(score) >= {
        "bits_per_byte", "nats_per_token", "tokens", "bytes", "nats", "mode", "predictor", "artifact_bytes", "code_bytes",
        "total_bytes", "byte_cap", "passes", "clock", "seed", "recipe", "data_fingerprint",
    }  # fmt: skip
    assert list(score["passes"]) == PASSES
    assert score["bits_per_byte"] == score["passes"]["tilted"]["bits_per_byte"]
    assert score["artifact_bytes"] == (done / "model.fwz").stat().st_size
    assert score["code_bytes"] == (done / "code.bundle").stat().st_size
    assert score["total_bytes"] == score["artifact_bytes"] + score["code_bytes"]
    assert {"train", "hessian", "tilted"} <= {name for name, phase in score["clock"].items() if phase["counted"]}
    assert not score["clock"]["warm-up"]["counted"]
    dataset = Dataset.open(corpus)
    stream = dataset.validation()
    text = dataset.tokenizer.decode_bytes(stream.tokens[1 : score["tokens"] + 1])
    with np.load(done / "ledger.npz") as ledger:
        for name, result in score["passes"].items():
            nats = ledger[f"{name}_nll"].astype(np.float64).sum()
            assert result["nats"] == pytest.approx(nats, abs=1e-6)
            assert result["bits_per_byte"] == pytest.approx(nats / math.log(2) / len(text), abs=1e-9)
            assert result["bytes"] == len(text) == int(ledger["bytes"].astype(np.int64).sum())
            assert sorted(ledger[f"{name}_order"].tolist()) == list(range(score["tokens"]))
    assert score["partial"]
    text.decode("utf-8")


def test_json_output_is_one_document(done: Path, corpus: Path) -> None:
    for words in (
        ["inspect", done / "model.fwz"],
        ["score", done / "model.fwz", "--data", corpus, "--out", done / "again", "--score.passes", "plain"],
        ["generate", done / "model.fwz", "--prompt", "def ", "--tokens", "5"],
        ["doctor"],
        ["recipe", "list"],
        ["recipe", "show", "pr1413"],
        ["recipe", "diff", "pr1394", "pr1413"],
        ["model", "pr1413"],
        ["report", done],
        ["data", "verify", corpus],
    ):
        code, out, error = command(*words, "--json")
        assert code == 0, error
        json.loads(out)
        code, text, _ = command(*words, *(["--overwrite"] if words[0] == "run" else []))
        assert code == 0
        assert text.strip()
        assert not text.startswith("{")


def test_model_counts_the_published_parameters() -> None:
    for name, parameters in (("pr1394", 35_943_512), ("pr1413", 35_943_512), ("baseline", 17_059_912)):
        assert json.loads(command("model", name, "--json")[1])["parameters"] == parameters


def test_an_artifact_scores_the_same_alone(done: Path, corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "moved.fwz").write_bytes((done / "model.fwz").read_bytes())
    code, out, error = command("score", tmp_path / "moved.fwz", "--data", corpus, "--json", "--machine.threads", 1)
    assert code == 0, error
    alone, whole = json.loads(out), json.loads((done / "score.json").read_text())
    assert list(alone["passes"]) == PASSES[1:]
    for name in PASSES[1:]:
        assert alone["passes"][name]["nats"] == whole["passes"][name]["nats"]


def test_generating_is_repeatable_and_starts_with_the_prompt(done: Path) -> None:
    words = ["generate", done / "model.fwz", "--prompt", "import ", "--tokens", 20, "--seed", 3]
    first, second = command(*words)[1], command(*words)[1]
    assert first == second
    assert first.startswith("import ")


def test_a_folder_is_never_mixed(done: Path, quick: Recipe, corpus: Path) -> None:
    code, _, error = command("run", "tiny", "--data", corpus, "--out", done, *flags(quick))
    assert code == 2
    assert "--resume" in error
    assert "--overwrite" in error
    code, _, error = command("run", "tiny", "--data", corpus, "--out", done, "--resume", *flags(quick), "--model.width", 64)
    assert code == 2
    assert "model.width=64 (was 32)" in error


def test_resume_of_a_finished_run_repeats_no_training(done: Path, quick: Recipe, corpus: Path) -> None:
    before = (done / "weights.safetensors").stat().st_mtime_ns, (done / "model.fwz").stat().st_mtime_ns
    code, _, error = command("run", "tiny", "--data", corpus, "--out", done, "--resume", *flags(quick))
    assert code == 0, error
    assert ((done / "weights.safetensors").stat().st_mtime_ns, (done / "model.fwz").stat().st_mtime_ns) == before


def test_over_the_byte_cap_is_a_verdict_with_advice(done: Path, quick: Recipe, corpus: Path, tmp_path: Path) -> None:
    cap = json.loads((done / "score.json").read_text())["total_bytes"] - 1000
    words = ["run", "tiny", "--data", corpus, "--out", tmp_path, *flags(quick), "--artifact.byte-cap", cap]
    code, _, error = command(*words, "--score.passes", "plain", "--train.budget", 2)
    assert code == 1
    assert f"above the cap of {cap:,}" in error
    assert "raise quant.mlp.clip_sigmas from 12.85 to" in error
    assert (tmp_path / "score.json").exists()


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "weights.safetensors")


@pytest.mark.slow
def test_a_killed_run_continues_bit_for_bit(quick: Recipe, corpus: Path, tmp_path: Path) -> None:
    longer = ["--train.budget", 60, "--train.checkpoint-every", 3, "--train.validate-every", 0]
    words = ["train", "tiny", "--data", corpus, *flags(quick), *longer]
    assert command(*words, "--out", tmp_path / "whole")[0] == 0
    folder = tmp_path / "killed"
    running = process(*words, "--out", folder)
    state, metrics = folder / "state" / "training.safetensors", folder / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while not (state.exists() and metrics.read_bytes().count(b'"train"') >= 17):
        assert running.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    running.send_signal(signal.SIGKILL)
    running.communicate()
    assert not (folder / "weights.safetensors").exists()
    assert command(*words, "--out", folder, "--resume")[0] == 0
    for name, tensor in weights(tmp_path / "whole").items():
        assert torch.equal(weights(folder)[name], tensor), name
    steps = [json.loads(line)["step"] for line in metrics.read_text().splitlines() if '"event": "train"' in line]
    assert steps == list(range(1, 61))


@pytest.mark.slow
def test_a_full_disk_gets_one_line_and_leaves_nothing_half_written(quick: Recipe, corpus: Path, tmp_path: Path) -> None:
    words = ["train", "tiny", "--data", corpus, "--out", tmp_path, *flags(quick)]
    running = process(*words, largest_file_kb=48)
    _, error = running.communicate(timeout=120)
    assert running.returncode == 2
    assert "no space left for" in line_of(error.decode())
    assert not [path for path in tmp_path.rglob("*") if path.name.endswith(".part")]
    assert not (tmp_path / "state" / "training.safetensors").exists()


@pytest.mark.slow
def test_a_compiled_network_is_compiled_in_the_warm_up_alone(quick: Recipe, corpus: Path, tmp_path: Path) -> None:
    layers = ["--model.layers", 2, "--model.exclusive-attention-layers", 2, "--model.recurrence.first", 0]
    words = ["train", "tiny", "--data", corpus, "--out", tmp_path, *flags(quick), *layers, "--model.recurrence.last", 0]
    finish(process(*words, "--machine.compile", "on", "--train.warmup-steps", 1))
    events = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    (compiled,) = [event for event in events if event["event"] == "compile"]
    assert compiled["graphs"] >= 2
    assert compiled["recompilations"] == 0


@pytest.mark.slow
def test_sigterm_saves_and_exits_with_130(quick: Recipe, corpus: Path, tmp_path: Path) -> None:
    words = ["train", "tiny", "--data", corpus, "--out", tmp_path, *flags(quick), "--train.budget", 100000]
    running = process(*words)
    deadline = time.monotonic() + 120
    while not ((tmp_path / "metrics.jsonl").exists() and b'"train"' in (tmp_path / "metrics.jsonl").read_bytes()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    running.send_signal(signal.SIGTERM)
    _, error = running.communicate(timeout=60)
    assert running.returncode == 130
    assert b"stopped by SIGTERM" in error
    assert b"--resume" in error
    assert (tmp_path / "state" / "training.safetensors").exists()


@pytest.mark.slow
def test_two_ranks_train_and_score_like_one(quick: Recipe, corpus: Path, tmp_path: Path, done: Path) -> None:
    finish(process("run", "tiny", "--data", corpus, "--out", tmp_path, *flags(quick), ranks=2))
    for name, tensor in weights(done).items():
        torch.testing.assert_close(weights(tmp_path)[name], tensor, atol=2e-5, rtol=1e-3)
    finish(process("score", done / "model.fwz", "--data", corpus, "--out", tmp_path / "two", ranks=2))
    with np.load(done / "ledger.npz") as one, np.load(tmp_path / "two" / "ledger.npz") as two:
        for name in ("plain", "sliding", "adapted", "tilted"):
            np.testing.assert_allclose(two[f"{name}_nll"], one[f"{name}_nll"], atol=2e-5, rtol=0)
            np.testing.assert_array_equal(two[f"{name}_order"], one[f"{name}_order"])


def line_of(error: str) -> str:
    """The single line that the user sees."""
    lines = [line for line in error.splitlines() if "Error: " in line]
    assert len(lines) == 1, error
    assert "Traceback" not in error
    return lines[0]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "tinny"], "did you mean 'tiny'"),
        (["runn"], "did you mean 'run'"),
        (["run"], "needs the name of a recipe first"),
        (["run", "tiny", "--model.widht", "3"], "did you mean --model.width"),
        (["run", "tiny", "--model.query-heads", "3"], "model.query_heads=3"),
        (["run", "tiny", "--train.budget", "soon"], "--train.budget"),
        (["run", "tiny", "--train.loader", "random"], "random"),
        (["run", "tiny", "--data", "nowhere"], "nowhere does not exist"),
        (["run", "tiny", "--machine.device", "cuda"], "machine.device=cuda"),
        (["recipe", "diff", "tiny"], "takes 2 names"),
        (["recipe", "shw"], "did you mean 'show'"),
        (["data", "biuld"], "did you mean 'build'"),
        (["data", "build"], "--out"),
        (["score"], "needs an artifact"),
        (["score", "nothing.fwz"], "nothing.fwz"),
        (["pack", "nowhere"], "does not exist"),
        (["report", "nowhere"], "nowhere"),
        (["generate", "nothing.fwz"], "nothing.fwz"),
        (["inspect", "nothing.fwz"], "nothing.fwz"),
        (["doctor", "--jsn"], "--jsn"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_gets_one_line_and_code_2(
    words: Sequence[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "cuda" in words and torch.cuda.is_available():
        pytest.skip("a GPU is here, so asking for one is no mistake")
    monkeypatch.chdir(tmp_path)
    code, out, error = command(*words)
    assert (code, out) == (2, "")
    assert message in line_of(error)
    assert not list(tmp_path.iterdir())


def test_every_kind_of_bad_data_gets_one_line(tmp_path: Path, quick: Recipe, corpus: Path) -> None:
    def refused(*words: object) -> str:
        code, out, error = command(*words)
        assert (code, out) == (2, "")
        return line_of(error)

    bad = tmp_path / "bad.txt"
    bad.write_bytes(b"caf\xe9")
    assert "bad.txt" in refused("data", "build", "--input", bad, "--out", tmp_path / "a")
    (tmp_path / "empty.txt").write_text("")
    assert "empty" in refused("data", "build", "--input", tmp_path / "empty.txt", "--out", tmp_path / "a")
    assert not (tmp_path / "a").exists()
    (tmp_path / "same.jsonl").write_text(json.dumps({"text": (corpus.parent / "documents.jsonl").read_text()}) + "\n")
    same = tmp_path / "same.jsonl"
    assert "validation" in refused("data", "build", "--input", same, "--val", same, "--out", tmp_path / "a", "--vocab", 400)
    assert not (tmp_path / "a").exists()
    assert "384" in refused("run", "tiny", "--data", corpus, "--out", tmp_path / "r", "--train.budget", 1)
    broken = tmp_path / "broken"
    broken.mkdir()
    for path in corpus.iterdir():
        (broken / path.name).write_bytes(path.read_bytes())
    shard = broken / "train_000000.bin"
    shard.write_bytes(shard.read_bytes()[:-1])
    words = ["run", "tiny", "--data", broken, "--out", tmp_path / "r", *flags(quick)]
    assert "train_000000.bin" in refused(*words)
    shard.write_bytes((corpus / "train_000000.bin").read_bytes())
    tokenizer = bytearray((corpus / "tokenizer.model").read_bytes())
    tokenizer[-1] ^= 1
    (broken / "tokenizer.model").write_bytes(tokenizer)
    assert "tokenizer" in refused(*words)


def test_a_damaged_artifact_is_refused(done: Path, corpus: Path, tmp_path: Path) -> None:
    content = (done / "model.fwz").read_bytes()
    generator = np.random.default_rng(0)
    for position in generator.integers(0, len(content), 6):
        flipped = bytearray(content)
        flipped[position] ^= 1 << int(generator.integers(8))
        (tmp_path / "flipped.fwz").write_bytes(flipped)
        code, _, error = command("score", tmp_path / "flipped.fwz", "--data", corpus)
        assert code == 2
        assert "ArtifactError" in line_of(error)
    (tmp_path / "short.fwz").write_bytes(content[:-7])
    assert command("inspect", tmp_path / "short.fwz")[0] == 2


def test_a_model_and_its_data_are_a_matched_pair(done: Path, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("other words make another tokenizer; " * 300)
    (tmp_path / "more.txt").write_text("and these are for validation, they differ; " * 30)
    built = command("data", "build", "--input", tmp_path / "*.txt", "--out", tmp_path / "data", "--vocab", 288)
    assert built[0] == 0, built[2]
    code, _, error = command("score", done / "model.fwz", "--data", tmp_path / "data")
    assert code == 2
    assert "matched pair" in line_of(error)

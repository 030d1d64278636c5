"""Shared fixtures: a small corpus on disk and a recipe that trains on it in a second or two."""

import json
import signal
import sysconfig
from pathlib import Path

import pytest
import torch

from fairway.base.values import with_fields
from fairway.config import Recipe
from fairway.data.build import build_dataset
from fairway.recipes import recipe

VOCAB = 384

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell that runs jobs in the background has them ignore SIGINT, and so do all their children, whom tests interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def one_thread_each() -> None:
    """Tests run side by side; more threads per test would only fight for the cores."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder of some hundred short documents: the functions of a few library modules."""
    folder = tmp_path_factory.mktemp("corpus")
    library = Path(sysconfig.get_paths()["stdlib"])
    pieces = [
        part
        for name in ("json/decoder.py", "json/encoder.py", "textwrap.py", "heapq.py", "bisect.py", "shlex.py", "difflib.py")
        for part in (library / name).read_text().split("\n\n")
        if len(part) > 40
    ]
    lines = [json.dumps({"text": text}) for text in dict.fromkeys(pieces)]
    (folder / "documents.jsonl").write_text("\n".join(lines))
    out = folder / "data"
    build_dataset([folder / "documents.jsonl"], out, vocab_size=VOCAB, val_documents=30)
    return out


@pytest.fixture(scope="session")
def quick() -> Recipe:
    """The demo's recipe made minute: every stage runs, nothing takes long."""
    changes = {
        "model.vocab_size": VOCAB,
        "model.width": 32,
        "model.mlp_hidden": 64,
        "model.rotary_channels": 4,
        "train.budget": 6.0,
        "train.budget_unit": "steps",
        "train.batch_tokens": 1024,
        "train.context": 32,
        "train.validate_every": 3,
        "train.checkpoint_every": 2,
        "train.log_every": 1,
        "quant.calibration_batches": 8,
        "score.context": 32,
        "score.stride": 8,
        "score.max_tokens": 1500,
        "score.adaptation.chunk_tokens": 256,
        "score.adaptation.learning_rate": 0.02,
        "score.proof_targets": 0,
        "machine.threads": 1,
    }
    return with_fields(recipe("tiny"), changes)

"""Run folders with every file that a record needs, made by a seeded generator; and what changes one file of them."""

import hashlib
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from fairway.artifact.container import encode
from fairway.artifact.records import RawTensor
from fairway.audit.accounting import SHEET as BYTES
from fairway.audit.caps import CLOCK, SIZE
from fairway.audit.ledger import AGAIN, LEDGER
from fairway.audit.run import CATALOGUE, audit_document
from fairway.audit.runner import Outcome
from fairway.record.claim import SHEET as CLAIM
from record.record_cases import make_scored_run

PASSES = ("float", "plain", "sliding", "adapted")
SEEDS = (1, 2, 3)
TOKENIZER = "6a3d" * 16
DATA_FOLDER = "/home/somebody/data/english"
STARTED = "2026-11-2{seed}T04:27:56+00:00"


def make_finished_run(
    folder: Path, *, seed: int = 1, shift: float = 0.0, budget: float = 600.0, proved: bool = True, **settings: Any
) -> Path:
    """A run of ``tiny`` with a budget in seconds: scored as in ``record_cases``, audited, proved, whole.

    Args:
        folder: Where to write.
        seed: Of the run.
        shift: Added to its bits per byte.
        budget: Seconds of training that its recipe allows.
        proved: Whether it brings a proof.
        settings: As those of ``make_scored_run``.
    """
    changes = {"train.budget": budget, "train.budget_unit": "seconds", **settings.pop("changes", {})}
    weights = f"weights of seed {seed} shifted by {shift}".encode()
    header = {
        "recipe": "tiny", "seed": seed, "data_fingerprint": f"{settings.get('text_seed', 0):016x}",
        "tokenizer_sha256": TOKENIZER, "weights_sha256": hashlib.sha256(weights).hexdigest(),
    }  # fmt: skip
    artifact = encode({"control": RawTensor(np.full(seed + 3, shift, np.float32))}, header)
    clock = {
        "warm-up": (1.5, False), "train": (580.0 + seed / 8, True), "hessian": (1.25, True), "pack": (2.0, False),
        "load": (0.25, True), "float": (3.0, False), "plain": (3.5, False), "sliding": (9.0, False),
        "adapted": (40.0 + seed, True),
    }  # fmt: skip
    phases = {name: {"seconds": seconds, "counted": counted} for name, (seconds, counted) in clock.items()}
    make_scored_run(
        folder, seed=seed, shift=shift, passes=PASSES, changes=changes, artifact=artifact, clock=phases,
        side_information=["length of the scored text in tokens"], **settings,
    )  # fmt: skip
    (folder / "weights.safetensors").write_bytes(weights)
    before = {name: phases[name] for name in ("warm-up", "train", "hessian", "pack")}
    write(folder / "clock.json", before)
    write(folder / "environment.json", environment(seed, header["data_fingerprint"]))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events(seed, before)))
    write(folder / "audit.json", audit(f"runs/{folder.name}/model.fwz adapted"))
    if proved:
        write(folder / "proof.json", proof())
    return folder


def write(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=1))


def environment(seed: int, fingerprint: str) -> dict[str, Any]:
    return {
        "versions": {"fairway": "0.1.0", "python": "3.11.7", "torch": "2.13.0+cpu", "numpy": "2.4.6"},
        "device": "cpu", "device_name": "cpu", "ranks": 1, "attention": "sdpa-cpu", "started": STARTED.format(seed=seed % 10),
        "host_cpus": 2, "data": DATA_FOLDER, "data_fingerprint": fingerprint,
    }  # fmt: skip


def events(seed: int, clock: dict[str, Any]) -> list[dict[str, Any]]:
    train = clock["train"]["seconds"]
    logged = [
        {
            "event": "train",
            "step": step,
            "tokens": 2048 * step,
            "seconds": train * step / 2000,
            "loss": 8 / step,
            "recurrent": False,
        }
        for step in (1, 2, 500, 1000)
    ]
    return [
        {"event": "start", "seconds": 0.0, "parameters": 985_872, "recipe": "tiny", "seed": seed},
        *logged,
        {"event": "validation", "step": 1000, "seconds": train / 2, "nats_per_token": 3.2, "bits_per_byte": 1.9},
        {"event": "stop", "reason": "budget", "step": 2000 + seed, "seconds": train - 0.01},
        *({"event": "phase", "name": name, **phase} for name, phase in clock.items() if name in ("warm-up", "train")),
    ]


@cache
def _audit(scorer: str, failing: tuple[str, ...], undecided: tuple[str, ...]) -> str:
    findings = []
    for sheet in [CLAIM, BYTES, SIZE, CLOCK, LEDGER, AGAIN, *(test.sheet for test in CATALOGUE)]:
        verdict = "fail" if sheet.test in failing else "undecided" if sheet.test in undecided else "pass"
        findings.append(sheet.finding(Outcome(verdict, 0.25, 0.0, f"what {sheet.name} came to")))
    return json.dumps(audit_document(scorer, findings, seed=0, budget_seconds=150.0))


def audit(scorer: str, failing: tuple[str, ...] = (), undecided: tuple[str, ...] = ("W",)) -> dict[str, Any]:
    """What ``fairway audit`` writes when the named tests fail or are left undecided and all others pass."""
    return json.loads(_audit(scorer, failing, undecided))


def proof() -> dict[str, Any]:
    return {
        "pass_name": "adapted", "targets": 4096, "text_bytes": 9770, "blocks": 4, "coded_bytes": 2853, "decoded_exactly": 2,
        "coded_bits_per_byte": 2.26325, "scored_bits_per_byte": 2.26154,
    }  # fmt: skip


def edit(path: Path, change: Callable[[Any], Any]) -> None:
    """Rewrite a JSON file with ``change`` applied to its content."""
    content = json.loads(path.read_text())
    changed = change(content)
    write(path, content if changed is None else changed)

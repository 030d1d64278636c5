"""``score.json`` and ``ledger.npz``: the result of a run, and the cost of every target behind it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fairway.base.files import sha256_file, write_json, write_with
from fairway.base.values import to_dict
from fairway.config import ADAPTIVE_PASSES, DOCUMENT_PASSES, PassName, ScoreConfig
from fairway.score.ledger import Ledger
from fairway.score.passes import DESCRIPTIONS, ScoredText


@dataclass(frozen=True)
class PassResult:
    """Totals of one pass."""

    nats: float
    tokens: int
    bytes: int
    seconds: float

    @property
    def bits_per_byte(self) -> float:
        """``nats / (ln 2 * bytes)``; 0 for text of no bytes."""
        return self.nats / math.log(2.0) / self.bytes if self.bytes else 0.0

    @property
    def nats_per_token(self) -> float:
        """Mean cost of a target."""
        return self.nats / self.tokens

    def to_dict(self) -> dict[str, float | int]:
        """The figures as ``score.json`` holds them."""
        return {
            "bits_per_byte": self.bits_per_byte,
            "nats_per_token": self.nats_per_token,
            "tokens": self.tokens,
            "bytes": self.bytes,
            "nats": self.nats,
            "seconds": self.seconds,
        }


def summarise(ledger: Ledger, seconds: float) -> PassResult:
    """Totals of a complete ledger."""
    return PassResult(ledger.total_nats, len(ledger.nats), ledger.total_bytes, seconds)


def score_document(
    passes: Mapping[PassName, PassResult],
    text: ScoredText,
    *,
    artifact_bytes: int,
    code_bytes: int,
    byte_cap: int,
    clock: Mapping[str, Any],
    seed: int,
    recipe: str,
    data_fingerprint: str,
    byte_rule: str,
    settings: ScoreConfig,
) -> dict[str, Any]:
    """The content of ``score.json``; the last pass is the result."""
    result = list(passes)[-1]
    return {
        **passes[result].to_dict(),
        "predictor": DESCRIPTIONS[result],
        "pass": result,
        "mode": settings.mode,
        "partial": text.partial,
        "byte_rule": byte_rule,
        "artifact_bytes": artifact_bytes,
        "code_bytes": code_bytes,
        "total_bytes": artifact_bytes + code_bytes,
        "byte_cap": byte_cap,
        "passes": {name: item.to_dict() for name, item in passes.items()},
        "clock": dict(clock),
        "seed": seed,
        "recipe": recipe,
        "data_fingerprint": data_fingerprint,
        "side_information": side_information(result, settings.mode),
        "settings": to_dict(settings),
    }


def side_information(name: PassName, mode: str) -> list[str]:
    """What a pass knows besides the text coded so far."""
    length = "length of the scored text in tokens (sets the adaptation schedule)"
    if name not in DOCUMENT_PASSES:
        return [length] if name in ADAPTIVE_PASSES else []
    if mode == "as_published":
        return ["lengths of all documents (set the order of scoring)"]
    return [length, "number of documents in the scored text (says which is the last)"]


def write_result(
    folder: Path, document: dict[str, Any], ledgers: Mapping[PassName, Ledger], text: ScoredText, context: int
) -> None:
    """Write ``ledger.npz`` and ``score.json``, which names the ledger's digest, into ``folder``, each atomically."""
    arrays: dict[str, Any] = {
        "bytes": text.byte_costs,
        "documents": text.documents.numpy(),
        "context": np.int64(context),
    }
    for name, ledger in ledgers.items():
        arrays[f"{name}_nll"] = ledger.nats
        arrays[f"{name}_order"] = ledger.order
    write_with(folder / "ledger.npz", lambda file: np.savez_compressed(file, **arrays))
    write_json(folder / "score.json", {**document, "ledger_sha256": sha256_file(folder / "ledger.npz")})

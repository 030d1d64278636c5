"""X and E on a run folder: is the ledger complete, is it what the result states, and does it come out again?"""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fairway.audit.coverage import SHEET as COVERAGE
from fairway.audit.determinism import SHEET as DETERMINISM
from fairway.audit.finding import Finding, Witness
from fairway.audit.future import gaps
from fairway.audit.runner import Outcome, Sheet, Tolerances
from fairway.audit.scorer import Meta, Scorer
from fairway.base.errors import DataError
from fairway.base.files import sha256_file
from fairway.data.dataset import Dataset
from fairway.data.manifest import Manifest

LEDGER = Sheet(
    "X",
    "coverage of the ledger",
    COVERAGE.conditions,
    "disagreements of ledger, result and data",
    COVERAGE.blind_to,
    "The recorded costs, the stated result and the text do not fit together. So the stated figure is not the cost of each part "
    "of this text counted once.",
)
AGAIN = Sheet(
    "E",
    "ledger scored again",
    DETERMINISM.conditions,
    "largest difference in nats between a target of the ledger and the same scored again",
    "targets beyond the stretch that was scored again",
    "The beginning of the text was scored again with the packed model, and the costs differ from the recorded ones. So the "
    "recorded result is not what this model gives with its own settings.",
)
RELATIVE_SUM = 1e-9


def read_ledger(path: Path) -> dict[str, np.ndarray]:
    """Arrays of ``ledger.npz``.

    Raises:
        DataError: the file is missing or damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            return dict(file)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}); score the run again") from None


def ledger_coverage(arrays: Mapping[str, np.ndarray], stated: Mapping[str, Any], dataset: Dataset) -> Finding:
    """Every target once, sums as stated, bytes as in the data, ids in range, the whole split unless marked as partial.

    Args:
        arrays: Content of ``ledger.npz``.
        stated: Content of ``score.json``.
        dataset: The data that the run names.

    Source: rules of the challenge, test X.
    """
    name, stream = stated["pass"], dataset.validation()
    nats, order = arrays[f"{name}_nll"], arrays[f"{name}_order"]
    targets, whole = len(nats), len(stream.tokens) - 1
    context = int(arrays["context"])
    cut_tail = whole // context * context
    total = float(nats.astype(np.float64).sum())
    checks: list[tuple[str, float, float]] = [
        ("targets in the ledger, and targets stated", targets, stated["tokens"]),
        (
            "targets, and distinct places in the order of coding",
            targets,
            len(np.unique(order[(order >= 0) & (order < targets)])),
        ),
        ("0, and targets whose cost is negative or not finite", 0, int((~(np.isfinite(nats) & (nats >= 0))).sum())),
        ("bytes stated, and bytes in the ledger", stated["bytes"], int(arrays["bytes"].astype(np.int64).sum())),
        (
            "0, and targets whose bytes are not those of the data",
            0,
            int((arrays["bytes"] != stream.byte_costs[1 : targets + 1]).sum()) if targets <= whole else targets,
        ),
        ("0, and ids outside the vocabulary", 0, int((stream.tokens >= dataset.vocab_size).sum())),
        ("0, and files of the split that differ from the manifest", 0, _changed_files(dataset)),
        ("1 if the data is the one stated", 1, int(stated["data_fingerprint"] == dataset.fingerprint)),
    ]
    if not stated["partial"]:
        checks.append(("targets of the split, and targets in the ledger", whole if targets > cut_tail else cut_tail, targets))
    wrong = [(what, expected, found) for what, expected, found in checks if expected != found]
    if not abs(total - stated["nats"]) <= RELATIVE_SUM * max(1.0, abs(total)):
        wrong.append(("nats stated, and sum of the ledger", stated["nats"], total))
    details = {"targets": targets, "targets_of_the_split": whole, "partial": bool(stated["partial"])}
    if wrong:
        what, expected, found = wrong[0]
        witness = Witness(-1, {"compare": "ledger"}, float(expected), float(found), what)
        reason = f"{what}: {expected:,} and {found:,}"
        return LEDGER.finding(Outcome("fail", float(len(wrong)), 0.0, reason, witness, details))
    part = f"the leading {targets:,} of {whole:,} targets, marked as partial," if stated["partial"] else f"{targets:,} targets"
    return LEDGER.finding(Outcome("pass", 0.0, 0.0, f"{part} count once each", details=details))


def _changed_files(dataset: Dataset) -> int:
    """Validation shards whose hash is not the manifest's; published exports are checked where they are downloaded."""
    if not isinstance(dataset.manifest, Manifest):
        return 0
    return sum(sha256_file(dataset.folder / shard.file) != shard.sha256 for shard in dataset.manifest.val_shards)


def scored_again(
    scorer: Scorer, arrays: Mapping[str, np.ndarray], name: str, dataset: Dataset, targets: int, tolerances: Tolerances
) -> Finding:
    """The leading targets of the ledger, scored anew from the artifact with the run's own settings.

    Args:
        scorer: The artifact with the settings of the run.
        arrays: Content of ``ledger.npz``.
        name: The pass.
        dataset: The data.
        targets: How many to score.
        tolerances: ``other_shape`` applies.
    """
    began = time.perf_counter()
    nats = arrays[f"{name}_nll"].astype(np.float64)
    count = min(targets, len(nats))
    tokens = dataset.validation().tokens[: count + 1].astype(np.int64)
    starts = tuple(int(start) for start in np.flatnonzero(tokens == tokens[0]))
    again = scorer.score(tokens, Meta(len(nats), starts))
    gap, seconds = gaps(nats[:count], again), time.perf_counter() - began
    worst, entry = float(gap.max()), int(gap.argmax())
    if worst <= tolerances.other_shape:
        reason = f"the leading {count:,} targets of the ledger come out again"
        return AGAIN.finding(Outcome("pass", worst, tolerances.other_shape, reason), 1, seconds)
    how = f"nats of target {entry + 1} in the ledger, and scored again"
    witness = Witness(entry, {"compare": "ledger"}, float(nats[entry]), float(again[entry]), how)
    reason = f"target {entry + 1} costs {nats[entry]:.6g} nats in the ledger and {again[entry]:.6g} when scored again"
    return AGAIN.finding(Outcome("fail", worst, tolerances.other_shape, reason, witness), 1, seconds)

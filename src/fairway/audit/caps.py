"""Z and W: bytes on disk against the cap, seconds on the clock against the budgets."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from fairway.audit.finding import Finding, Witness
from fairway.audit.runner import Outcome, Sheet
from fairway.base.errors import DataError
from fairway.config import PassName

SIZE = Sheet(
    "Z",
    "size",
    ("budget",),
    "bytes of artifact and code, from the files",
    "whether the packed code runs, and files that a score needs and that are not counted",
    "The files are larger than the limit, or not as large as the result states. A result counts only if the model and its "
    "code together keep to the limit.",
)
CLOCK = Sheet(
    "W",
    "wall clock",
    ("budget",),
    "largest share of a time budget that the counted phases use",
    "work done outside the phases of the clock",
    "Training or scoring took longer than its time limit. Work that the limit covers was added here even where the run's "
    "own clock left it out.",
)
TRAINING_SECONDS = 600.0
SCORING_SECONDS = 600.0
"""Budgets of the challenge on its own hardware."""
REFERENCE_DEVICE = "H100"
REFERENCE_COUNT = 8
SCORING_PHASES = frozenset({"load", "hints", "score", "adapt", *get_args(PassName)})
"""Phases that belong to scoring; every other counted phase belongs to training."""
ALWAYS_COUNTED = frozenset({"hints", "adapt", "hessian"})
"""Phases that read validation text for the score, or training text for the model, whatever their flag says."""


def size(artifact: Path, code: Path, cap: int, stated: Mapping[str, Any] | None = None) -> Finding:
    """``artifact + code <= cap`` in decimal bytes, as the files are, and ``score.json`` says the same.

    Args:
        artifact: The artifact.
        code: The packed source.
        cap: Largest sum, such as 16,000,000; a sum equal to it is accepted.
        stated: Figures of ``score.json``.

    Raises:
        DataError: a file is missing.

    Source: rules of the challenge, test Z.
    """
    for path in (artifact, code):
        if not path.is_file():
            raise DataError(f"{path} does not exist; the size cannot be measured without it")
    sizes = {"artifact_bytes": artifact.stat().st_size, "code_bytes": code.stat().st_size}
    total = sum(sizes.values())
    details = {**sizes, "total_bytes": total, "byte_cap": cap}
    if total > cap:
        witness = Witness(-1, {"compare": "size"}, float(cap), float(total), "bytes allowed, and bytes of the files")
        reason = f"{total:,} bytes are {total - cap:,} above the cap of {cap:,}"
        return SIZE.finding(Outcome("fail", float(total), float(cap), reason, witness, details))
    for name, found in (("total_bytes", total), *sizes.items()):
        if stated is not None and stated.get(name, found) != found:
            how = f"{name} in score.json, and from the file"
            witness = Witness(-1, {"compare": "size"}, float(stated[name]), float(found), how)
            reason = f"score.json states {name}={stated[name]:,}, the files have {found:,}"
            return SIZE.finding(Outcome("fail", float(total), float(cap), reason, witness, details))
    return SIZE.finding(Outcome("pass", float(total), float(cap), f"{total:,} of {cap:,} bytes", details=details))


def wall_clock(
    clock: Mapping[str, Mapping[str, Any]],
    device: str,
    devices: int,
    *,
    training_seconds: float = TRAINING_SECONDS,
    scoring_seconds: float = SCORING_SECONDS,
) -> Finding:
    """Counted phases of training and of scoring, each within its budget, on the machine that the budget is for.

    Hint tables and adaptation are part of scoring and calibration is part of training even where the clock does not count them.

    Args:
        clock: Phase -> seconds and whether counted, as ``score.json`` holds it.
        device: What the run was timed on, such as ``NVIDIA H100 80GB HBM3``.
        devices: How many of them.
        training_seconds: Budget of training, calibration included.
        scoring_seconds: Budget of scoring.

    Source: rules of the challenge, test W.
    """
    used, excluded, added = {"training": 0.0, "scoring": 0.0}, {}, {}
    for name, phase in clock.items():
        seconds, kind = float(phase["seconds"]), name.split()[0]
        if not phase["counted"]:
            (added if kind in ALWAYS_COUNTED else excluded)[name] = seconds
        if phase["counted"] or name in added:
            used["scoring" if kind in SCORING_PHASES else "training"] += seconds
    limits = {"training": training_seconds, "scoring": scoring_seconds}
    share, worst = max((used[part] / limits[part], part) for part in used)
    figures = ", ".join(f"{part} {used[part]:.1f} of {limits[part]:.0f} s" for part in used)
    figures += "".join(f", of which {seconds:.1f} s of {name} that the clock leaves out" for name, seconds in added.items())
    details = {"used": used, "limits": limits, "not_counted": excluded, "added": added, "device": device, "devices": devices}
    if REFERENCE_DEVICE not in device or devices != REFERENCE_COUNT:
        reason = f"timed on {devices} x {device}, not on {REFERENCE_COUNT} x {REFERENCE_DEVICE}: {figures}"
        return CLOCK.finding(Outcome("undecided", share, 1.0, reason, details=details))
    if share > 1.0:
        how = f"seconds allowed for {worst}, and seconds of its counted phases"
        witness = Witness(-1, {"compare": "clock"}, limits[worst], used[worst], how)
        return CLOCK.finding(Outcome("fail", share, 1.0, f"over the budget: {figures}", witness, details))
    return CLOCK.finding(Outcome("pass", share, 1.0, figures, details=details))

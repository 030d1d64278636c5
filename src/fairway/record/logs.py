"""What one run logged, as text for people, and the libraries that it ran with."""

import importlib.metadata
import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

import fairway
from fairway.record.evidence import SeedRun
from fairway.record.generations import flags

NOT_LIBRARIES = ("fairway", "python")
HIDDEN = ("data",)
"""Facts of the environment that name places of one machine."""


def train_log(run: SeedRun) -> str:
    """One line per event of the run, in order: ``when what key=value ...``; figures as they stand in the run's files.

    Only the start has a date, ISO 8601 in UTC, because the run recorded no other: events bear the seconds of the training
    clock, to the millisecond, which stands still while the network is validated.
    """
    return "".join(f"{line}\n" for line in _lines(run))


def _lines(run: SeedRun) -> Iterator[str]:
    environment = run.environment
    yield f"{started(run)} run recipe={run.recipe.name} seed={run.recipe.seed} fairway={fairway_version(run)}"
    for name, value in environment.items():
        if name not in HIDDEN and name != "started":
            yield f"environment {name}={_shown(value)}"
    yield f"settings {' '.join(flags(run.recipe)) or 'those of the recipe'}"
    for event in run.events:
        # The seconds of a phase are how long it was, those of every other event when it happened.
        stamp = None if event["event"] == "phase" else event.get("seconds")
        when = f"{stamp:.3f}s " if isinstance(stamp, int | float) else ""
        values = [
            f"{name}={_shown(value)}" for name, value in event.items() if name != "event" and not (when and name == "seconds")
        ]
        yield " ".join([f"{when}{event['event']}", *values])
    for name, phase in run.score["clock"].items():
        yield f"clock {name} seconds={phase['seconds']} counted={_shown(phase['counted'])}"
    for name, figures in run.score["passes"].items():
        yield " ".join([f"pass {name}", *(f"{key}={value}" for key, value in figures.items())])
    score = run.score
    yield " ".join(["result", *(f"{name}={_shown(score[name])}" for name in ("pass", "mode", "partial", "byte_rule"))])
    yield f"result val_loss={score['nats_per_token']} val_bpb={score['bits_per_byte']}"
    yield f"size artifact_bytes={score['artifact_bytes']} code_bytes={score['code_bytes']} total_bytes={score['total_bytes']}"
    for name, digest in run.digests.items():
        yield f"sha256 {name} {digest}"


def _shown(value: Any) -> str:
    """A value without line breaks."""
    return " ".join((str(value).lower() if isinstance(value, bool) else str(value)).split())


def started(run: SeedRun) -> str:
    """When the run started, ISO 8601, or ``unknown``."""
    try:
        return datetime.fromisoformat(str(run.environment.get("started"))).isoformat()
    except ValueError:
        return "unknown"


def fairway_version(run: SeedRun) -> str:
    """Release that made the run."""
    return str(versions(run).get("fairway", "unknown"))


def versions(run: SeedRun) -> Mapping[str, Any]:
    """Library -> version, as the run recorded them."""
    found = run.environment.get("versions")
    return found if isinstance(found, dict) else {}


def requirements(run: SeedRun) -> str:
    """``requirements.txt``: recorded versions pinned, then the ranges that the package declares for what was not recorded.

    A build tag such as ``+cpu`` cannot be asked of an index, so it stands in a comment.
    """
    recorded = versions(run)
    lines = [f"# Python {recorded.get('python', 'of an unknown version')}, fairway {recorded.get('fairway', 'unknown')}"]
    lines += ["# Versions that the runs recorded:"]
    for name, version in sorted(recorded.items()):
        if name not in NOT_LIBRARIES:
            public, _, build = str(version).partition("+")
            lines.append(f"{name}=={public}" + (f"  # ran with the build {build}" if build else ""))
    declared = [item for item in _declared() if _name(item) not in {_name(name) for name in recorded}]
    if declared:
        lines += [f"# Ranges that fairway {fairway.__version__} declares; the runs recorded no version of these:", *declared]
    return "".join(f"{line}\n" for line in lines)


def _declared() -> list[str]:
    """Libraries that the installed package needs in any case; none where it runs from a bare folder."""
    try:
        found = importlib.metadata.requires("fairway") or []
    except importlib.metadata.PackageNotFoundError:
        return []
    return sorted(item for item in found if "extra ==" not in item)


def _name(requirement: str) -> str:
    """Normalised name of a library, its version range left out."""
    return re.sub(r"[-_.]+", "-", re.split(r"[^A-Za-z0-9_.-]", requirement.strip())[0]).lower()

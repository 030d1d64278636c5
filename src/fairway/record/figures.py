"""What a claim states and what its evidence shows, seed by seed, read from a submission's JSON or from run folders."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fairway.base.errors import DataError, RecipeError
from fairway.base.files import read_json, sha256_file
from fairway.base.runs import RunFolder
from fairway.base.values import checked
from fairway.record.statistics import Summary
from fairway.record.units import Unit

Number = int | float

SEED_MAPS = ("seed_results", "seeds")
"""Names of the map from a seed to its figures; ``seeds`` may also be a plain list of names."""

NAMES: dict[str, tuple[str, ...]] = {
    "bits_per_byte": ("val_bpb", "ttt_val_bpb", "ttt_bpb"),
    "nats_per_token": ("val_loss", "ttt_val_loss", "ttt_loss"),
    "tokens": ("scored_targets", "tokens"),
    "bytes": ("scored_bytes", "bytes"),
    "model_bytes": ("model_bytes",),
    "code_bytes": ("code_bytes", "bytes_code"),
    "total_bytes": ("total_bytes", "bytes_total", "artifact_bytes"),
    "train_seconds": ("train_time_s", "train_seconds"),
    "eval_seconds": ("eval_time_s", "eval_seconds"),
    "steps": ("steps", "train_steps"),
}
"""Names of the figures of one seed in published submissions; the first found counts."""

MILLISECONDS = {"train_seconds": ("train_wallclock_ms", "train_time_ms"), "eval_seconds": ("eval_wallclock_ms", "eval_time_ms")}


@dataclass(frozen=True, kw_only=True)
class SeedFigures:
    """Figures of one run, as stated or as measured; None where nothing is said."""

    seed: str
    bits_per_byte: Number | None = None
    nats_per_token: Number | None = None
    tokens: int | None = None
    bytes: int | None = None
    """UTF-8 bytes charged to the scored targets."""
    model_bytes: int | None = None
    code_bytes: int | None = None
    total_bytes: int | None = None
    """Everything that counts against the byte cap."""
    helper_bytes: int = 0
    """Bytes of files that the run needs and that ``total_bytes`` leaves out."""
    train_seconds: Number | None = None
    """Training to the last read of training data, calibration included."""
    eval_seconds: Number | None = None
    """All passes of the evaluation that read validation text."""
    steps: int | None = None
    configuration: str | None = None
    """Digest of everything that was asked for, but the seed and the machine."""
    code: str | None = None
    """Digest of the source."""
    further: Mapping[str, Number | str] = field(default_factory=dict)
    """Other figures by their own name, such as the bits per byte of an earlier pass."""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What a submission states about itself."""

    name: str
    bits_per_byte: Number | None = None
    """The headline."""
    nats_per_token: Number | None = None
    deviation_bpb: Number | None = None
    deviation_nats: Number | None = None
    total_bytes: int | None = None
    seeds: tuple[SeedFigures, ...] = ()
    seed_names: tuple[str, ...] = ()
    """Seeds that the submission names, with figures or without."""
    further: Mapping[str, Number | str] = field(default_factory=dict)
    """Other figures that it states once for all seeds, such as the number of steps."""
    document: Mapping[str, Any] = field(default_factory=dict)
    """The JSON as it was read."""


@dataclass(frozen=True, kw_only=True)
class GapClaim:
    """An improvement that a submission states over other runs."""

    reference: Summary
    """The other runs."""
    gap: Number
    """Stated improvement, positive when better."""
    unit: Unit
    """Unit that the text gives to ``gap``."""
    p: Number | None = None
    """Stated p-value of the one-sided Welch test, without a margin."""


def read_claim(path: Path) -> Claim:
    """Read a submission's JSON."""
    return claim_from_json(read_json(path), str(path))


def claim_from_json(document: Any, where: str) -> Claim:
    """Read what a submission states; names of fields as in published ones.

    Raises:
        DataError: the document is no object, or a figure in it has the wrong type.
    """
    content = _object(document, where)
    found = next((content[name] for name in SEED_MAPS if isinstance(content.get(name), dict)), {})
    seeds = tuple(_seed_figures(seed, item, f"{where}: seed {seed}") for seed, item in found.items())
    listed = content.get("seeds")
    names = tuple(map(str, listed)) if isinstance(listed, list) else tuple(found)
    return Claim(
        name=str(content.get("name", where)),
        bits_per_byte=_first(content, ("val_bpb", "mean_bpb"), float, where),
        nats_per_token=_first(content, ("val_loss",), float, where),
        deviation_bpb=_first(content, ("val_bpb_std",), float, where),
        deviation_nats=_first(content, ("val_loss_std",), float, where),
        total_bytes=_first(content, ("bytes_total",), int, where),
        seeds=seeds,
        seed_names=names,
        further=_further(content, {"val_bpb", "mean_bpb", "val_loss", "val_bpb_std", "val_loss_std", "bytes_total", "name"}),
        document=content,
    )


def _seed_figures(seed: str, item: Any, where: str) -> SeedFigures:
    content = _object(item, where)
    known = {name for names in (*NAMES.values(), *MILLISECONDS.values()) for name in names}
    figures: dict[str, Any] = {}
    for figure, names in NAMES.items():
        whole = figure in ("tokens", "bytes", "steps") or figure.endswith("_bytes")
        figures[figure] = _first(content, names, int if whole else float, where)
    for figure, names in MILLISECONDS.items():
        milliseconds = _first(content, names, float, where)
        if figures[figure] is None and milliseconds is not None:
            figures[figure] = milliseconds / 1000
    return SeedFigures(seed=seed, further=_further(content, known), **figures)


def _further(content: Mapping[str, Any], known: set[str]) -> dict[str, Number | str]:
    return {
        name: value
        for name, value in content.items()
        if name not in known and isinstance(value, int | float | str) and not isinstance(value, bool)
    }


def _first(content: Mapping[str, Any], names: Sequence[str], kind: type, where: str) -> Any:
    """The first of ``names`` that ``content`` has, as ``kind``; a whole number stays one, for its printed digits count."""
    for name in names:
        if content.get(name) is not None:
            value = field_of(content, name, kind, where)
            return content[name] if isinstance(content[name], int) else value
    return None


def field_of(content: Mapping[str, Any], name: str, kind: type, where: str) -> Any:
    """Field ``name`` as ``kind``, or a ``DataError`` that says where it is missing or wrong."""
    if name not in content:
        raise DataError(f"{where}: field {name!r} is missing; restore the file or make it again")
    try:
        return checked(content[name], kind, f"{where}: {name}")
    except RecipeError as error:
        raise DataError(f"{error}; restore the file or make it again") from None


def _object(content: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(content, dict):
        kind = type(content).__name__
        raise DataError(f"{where} is a {kind}; it must be an object with named fields, as in docs/how-to/compare-runs.md")
    return content


def digest_of(path: Path) -> str | None:
    """SHA-256 of a file, or None where there is none."""
    return sha256_file(path) if path.exists() else None


def packed_bytes(folder: RunFolder) -> tuple[int | None, int | None]:
    """Bytes of the artifact and of the packed source as they lie on disk."""
    sizes = [path.stat().st_size if path.exists() else None for path in (folder.artifact, folder.code)]
    return sizes[0], sizes[1]

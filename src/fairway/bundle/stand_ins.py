"""What a bundle has in place of functions of the package that only describe a run, or that reach outside of one file.

Each stand-in takes what the original takes. ``replaced.py`` says which is for which.
"""

import ctypes
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fairway.artifact.budget import ByteBudget
from fairway.artifact.container import read_artifact
from fairway.artifact.layout import canonical_json
from fairway.base.errors import ArtifactError
from fairway.base.files import write_bytes
from fairway.base.values import to_dict
from fairway.bundle.given import C_SOURCES, RECIPE
from fairway.data.manifest import Manifest, ShardEntry, SplitEntry
from fairway.kernels.native import load_native, user_cache
from fairway.score.load import PackedModel


class NoMetrics:
    """In place of `Metrics`: a bundle writes no ``metrics.jsonl``; its log lines say the same."""

    def __init__(self, path: Path, *, leads: bool = True, keep: int = 0) -> None:
        """Take what `Metrics` takes."""

    def __enter__(self) -> "NoMetrics":
        return self

    def __exit__(self, *error: object) -> None:
        """Nothing was opened."""

    def event(self, name: str, /, **values: Any) -> None:
        """Nothing; the bundler leaves such calls out with their arguments."""


def nothing(*given: Any, **named: Any) -> None:
    """In place of functions that write what no run reads."""


def no_table(*given: Any) -> list[Any]:
    """In place of the table of tensors."""
    return []


def file_budget(artifact_path: Path, code: Path, cap: int, *given: Any) -> ByteBudget:
    """In place of `measure`: sizes alone, without advice; the code is this file."""
    return ByteBudget(artifact_path.stat().st_size, Path(__file__).stat().st_size, cap)


def load_own(path: Path) -> PackedModel:
    """In place of `load_packed`: an artifact of this recipe and no other, for its settings are part of the code.

    Raises:
        ArtifactError: the artifact is damaged, or has other settings.
    """
    artifact = read_artifact(path)
    for name, settings in (("model", to_dict(RECIPE.model)), ("score", to_dict(RECIPE.score))):
        if canonical_json(artifact.header[name]) != canonical_json(settings):
            raise ArtifactError(f"{path} has other settings of {name} than this code; score it with its own")
    return PackedModel(path, artifact, RECIPE.model, RECIPE.score)


def trusted_manifest(content: Any, where: Path) -> Manifest:
    """In place of `parse_manifest`: the same fields, without the checks that ``fairway data verify`` makes too."""
    parts = {name: SplitEntry(**content[name]) for name in ("val", "train")}
    shards = {name: tuple(ShardEntry(**entry) for entry in content[name]) for name in ("val_shards", "train_shards")}
    return Manifest(**{**content, **parts, **shards})


def source_in_cache(name: str) -> Path:
    """In place of `native_source`: the C file is written from the text in the bundle, into a folder named by its content."""
    folder = hashlib.sha256(repr(C_SOURCES).encode()).hexdigest()[:20]
    path = user_cache() / folder / name
    if not path.exists():
        write_bytes(path, str(C_SOURCES[name]).encode())
    return path


def native_required(sources: Sequence[Path], fallback: str) -> ctypes.CDLL:
    """In place of `native_or_none`: a bundle has no plain twin to fall back on.

    Raises:
        MachineError: there is no C compiler, or it fails.
    """
    return load_native(sources)

"""The manifest of the exports published for the challenge, as far as reading and downloading need it.

Layout under one folder: ``manifest.json``, ``datasets/fineweb10B_<variant>/*.bin``, ``tokenizers/*.model``.
"""

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from fairway.base.errors import DataError
from fairway.base.values import suggest
from fairway.data.tokenizer import TextTransform

CASEOPS = "lossless_caps_caseops_v1"
"""Published name of the case transform. PR #1729."""


@dataclass(frozen=True)
class PublishedExport:
    """One data set of a published manifest."""

    name: str
    """Name, such as ``fineweb10B_sp8192``; also the folder under ``datasets``."""
    tokenizer_file: str
    """Base name of the SentencePiece model under ``tokenizers``."""
    vocab_size: int
    """Number of pieces."""
    train_files: int
    """Training shards that exist."""
    val_files: int
    """Validation shards that exist."""
    train_tokens: int | None
    """Tokens of all training shards, where stated."""
    val_tokens: int | None
    """Tokens of the validation split, where stated."""
    val_documents: int | None
    """Documents of the validation split, where stated."""
    sidecars: bool
    """Whether validation comes with byte sidecars."""
    text_transform: TextTransform
    """The transform applied before encoding, as far as the manifest says."""

    @property
    def folder(self) -> str:
        """Folder of the shards relative to the data folder."""
        return f"datasets/{self.name}"

    @property
    def tokenizer_path(self) -> str:
        """The model relative to the data folder."""
        return f"tokenizers/{self.tokenizer_file}"


def is_published(manifest: Any) -> bool:
    """Whether a manifest has the challenge's layout instead of Fairway's."""
    return isinstance(manifest, dict) and "format" not in manifest and isinstance(manifest.get("datasets"), list)


def export_names(manifest: Any) -> list[str]:
    """Names of the data sets in a published manifest."""
    return [str(entry.get("name")) for entry in manifest["datasets"] if isinstance(entry, dict)]


def parse_export(manifest: Any, name: str, where: str) -> PublishedExport:
    """The entry ``name`` of a published manifest.

    Raises:
        DataError: the manifest lacks the data set or a field that is needed, or its document counts contradict.
    """
    if not is_published(manifest):
        raise DataError(f"{where} is not a manifest of the challenge's layout: it has no list of datasets")
    entry = _named(manifest["datasets"], name, "data set", where)
    tokenizers = manifest.get("tokenizers")
    tokenizer_name = _field(entry, "tokenizer_name", str, name, where)
    tokenizer = _named(tokenizers if isinstance(tokenizers, list) else [], tokenizer_name, "tokenizer", where)
    stats = _field(entry, "stats", dict, name, where)
    documents = {split: _optional_count(stats, f"docs_{split}", where) for split in ("total", "val", "train")}
    _check_documents(documents, manifest.get("num_val_docs"), name, where)
    model = tokenizer.get("model_path") or tokenizer.get("path")
    if not isinstance(model, str) or not model.endswith(".model"):
        raise DataError(f"{where}: tokenizer {tokenizer_name} has no SentencePiece model file; only those can be used")
    if "/" in name or name in ("", ".", ".."):
        raise DataError(f"{where}: data set name {name!r} is not a plain folder name")
    return PublishedExport(
        name=name,
        tokenizer_file=PurePosixPath(model).name,
        vocab_size=_count(entry if "vocab_size" in entry else tokenizer, "vocab_size", where),
        train_files=_count(stats, "files_train", where),
        val_files=_count(stats, "files_val", where),
        train_tokens=_optional_count(stats, "tokens_train", where),
        val_tokens=_optional_count(stats, "tokens_val", where),
        val_documents=documents["val"],
        sidecars=bool(entry.get("val_bytes_glob")),
        text_transform=_transform(tokenizer.get("text_transform"), where),
    )


def _transform(name: Any, where: str) -> TextTransform:
    """Our name of a published text transform."""
    if name in (None, "", "none", "identity"):
        return "none"
    if isinstance(name, str) and name.startswith(CASEOPS):
        return "caseops"
    raise DataError(f"{where}: text transform {name!r} is not known, only {CASEOPS}; its text could not be decoded")


def _check_documents(documents: dict[str, int | None], declared: Any, name: str, where: str) -> None:
    total, val, train = documents["total"], documents["val"], documents["train"]
    if isinstance(declared, int) and val is not None and declared != val:
        raise DataError(
            f"{where}: {name} has {val} validation documents, but the manifest splits the list at {declared}; "
            "training would contain validation documents, use a manifest and shards of one export"
        )
    if total is not None and val is not None and train is not None and val + train > total:
        raise DataError(f"{where}: {name} has {val} + {train} documents out of {total}, so its splits overlap")


def _named(entries: list[Any], name: str, what: str, where: str) -> dict[str, Any]:
    found = [entry for entry in entries if isinstance(entry, dict) and entry.get("name") == name]
    if len(found) != 1:
        known = [str(entry.get("name")) for entry in entries if isinstance(entry, dict)]
        listed = ", ".join(known) or "none"
        raise DataError(f"{where} has {len(found)} entries for {what} {name!r}; it lists {listed}{suggest(name, known)}")
    return found[0]


def _field(entry: dict[str, Any], key: str, kind: type, name: str, where: str) -> Any:
    value = entry.get(key)
    if not isinstance(value, kind):
        raise DataError(f"{where}: {name} has no {key}; the manifest is damaged or of another version")
    return value


def _count(entry: dict[str, Any], key: str, where: str) -> int:
    value = _optional_count(entry, key, where)
    if value is None:
        raise DataError(f"{where} lacks the number {key}; the manifest is damaged or of another version")
    return value


def _optional_count(entry: dict[str, Any], key: str, where: str) -> int | None:
    value = entry.get(key)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise DataError(f"{where}: {key}={value!r} is not a count")
    return value

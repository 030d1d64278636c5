"""A data folder opened for use: every refusal happens here, before a second of training is spent.

Opening reads headers, sizes and the whole validation split; `Dataset.verify` reads and hashes everything.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Int64, UInt16

from fairway.base.errors import DataError
from fairway.base.files import read_json, sha256_file
from fairway.data.ledger import piece_table
from fairway.data.manifest import MANIFEST, TOKENIZER, Manifest, ShardEntry, fingerprint, parse_manifest
from fairway.data.published import PublishedExport, export_names, is_published, parse_export
from fairway.data.shards import Shard, check_vocabulary, find_shards, open_shards, shard_name
from fairway.data.tokenizer import BOS, Tokenizer

FETCH_RECORD = "fetch.json"
"""File beside a downloaded manifest with the size and SHA-256 of every downloaded file."""


@dataclass(frozen=True)
class Stream:
    """The validation split as one sequence."""

    tokens: UInt16[np.ndarray, " tokens"]
    """Token ids; convert to int64 before arithmetic."""
    byte_costs: UInt16[np.ndarray, " tokens"]
    """Bytes that each token stands for; the cost of target i is ``byte_costs[i]``. 0 at BOS."""
    documents: Int64[np.ndarray, " documents"]
    """Positions of BOS."""
    byte_rule: Literal["sidecar", "piece_table"]
    """Where the byte costs come from: measured on the documents, or from the pieces alone (normalised bytes)."""


@dataclass(frozen=True)
class Dataset:
    """An opened data folder. Made by `Dataset.open`."""

    folder: Path
    tokenizer: Tokenizer = field(repr=False)
    fingerprint: str
    """16 hexadecimal digits that identify tokens, byte costs and tokenizer."""
    text_transform: str
    """What was done to the text before encoding; ``none`` for plain text."""
    lossy_documents: int
    """Stored documents known to differ from their decoded tokens; results on such data are marked."""
    manifest: Manifest | PublishedExport = field(repr=False)
    _train: tuple[Shard, ...] = field(repr=False)
    _validation: Stream = field(repr=False)
    _hashes: dict[Path, str] = field(repr=False)

    @classmethod
    def open(cls, folder: Path, *, name: str | None = None) -> "Dataset":
        """Open a folder made by ``fairway data build`` or ``fetch``.

        A published export may lie one folder ``datasets`` deeper, as its repository has it and some scripts write it.

        Args:
            folder: The folder with ``manifest.json``.
            name: Which data set of a published manifest; needed only if several are present.

        Raises:
            DataError: anything in the folder contradicts anything else.
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise DataError(f"data folder {folder} does not exist; make it with: fairway data build --out {folder}")
        if not (folder / MANIFEST).exists() and (folder / "datasets" / MANIFEST).exists():
            folder = folder / "datasets"
        content = read_json(folder / MANIFEST)
        if is_published(content):
            return _open_published(folder, content, name)
        return _open_built(folder, parse_manifest(content, folder / MANIFEST))

    @property
    def vocab_size(self) -> int:
        """Number of pieces of the tokenizer."""
        return self.tokenizer.vocab_size

    def check_vocabulary(self, expected: int) -> None:
        """Refuse a model with another vocabulary.

        Raises:
            DataError: names both sizes.
        """
        if expected != self.vocab_size:
            raise DataError(
                f"the recipe's vocabulary is {expected}, the tokenizer of {self.folder} has {self.vocab_size} pieces; "
                f"set model.vocab_size={self.vocab_size} or build the data with {expected} pieces"
            )

    def train_shards(self) -> list[Shard]:
        """Training shards in order, checked when the folder was opened."""
        return list(self._train)

    def validation(self) -> Stream:
        """The validation split; its tokens, byte costs and documents were checked in full."""
        return self._validation

    def verify(self) -> None:
        """Hash every file that has a recorded hash, and check every training token against the vocabulary.

        Raises:
            DataError: names the first file that differs.
        """
        for path, expected in self._hashes.items():
            found = sha256_file(path) if path.is_file() else "no file"
            if found != expected:
                raise DataError(f"{path} has SHA-256 {found}, the manifest says {expected}; copy or build it again")
        for shard in self._train:
            shard.check_vocabulary(self.vocab_size)


def _open_built(folder: Path, manifest: Manifest) -> Dataset:
    tokenizer = Tokenizer.load(folder / TOKENIZER)
    if tokenizer.sha256 != manifest.tokenizer_sha256:
        raise DataError(
            f"{folder / TOKENIZER} has SHA-256 {tokenizer.sha256}, but the shards were made with "
            f"{manifest.tokenizer_sha256}; restore the matching tokenizer or build the data again"
        )
    if tokenizer.vocab_size != manifest.tokenizer_pieces:
        raise DataError(
            f"{folder / TOKENIZER} has {tokenizer.vocab_size} pieces, the manifest says {manifest.tokenizer_pieces}"
        )
    if tokenizer.text_transform != manifest.text_transform:
        raise DataError(
            f"{folder / TOKENIZER} is made for text transform {tokenizer.text_transform}, the shards for "
            f"{manifest.text_transform}; build the data again with --transform {tokenizer.text_transform}"
        )
    hashes = {folder / TOKENIZER: manifest.tokenizer_sha256}
    train, train_sidecars = _listed_shards(folder, "train", manifest.train_shards, hashes)
    val, val_sidecars = _listed_shards(folder, "val", manifest.val_shards, hashes)
    _check_pairs(train, train_sidecars)
    stream = _sidecar_stream(val, val_sidecars)
    _check_stream(stream, tokenizer, manifest.val.documents, folder)
    total = int(stream.byte_costs.sum(dtype=np.int64))
    if total != manifest.val.bytes:
        raise DataError(f"the validation sidecar of {folder} holds {total} bytes, the manifest says {manifest.val.bytes}")
    lossy = manifest.val.lossy_documents + manifest.train.lossy_documents
    return Dataset(
        folder, tokenizer, manifest.fingerprint, manifest.text_transform, lossy, manifest, tuple(train), stream, hashes
    )


def _listed_shards(
    folder: Path, split: Literal["train", "val"], entries: Sequence[ShardEntry], hashes: dict[Path, str]
) -> tuple[list[Shard], list[Shard]]:
    """Shards and sidecars of one split, which must be exactly those of the manifest."""
    tokens = open_shards(find_shards(folder, split))
    sidecars = open_shards(find_shards(folder, split, sidecar=True))
    for what, shards in (("token shards", tokens), ("byte sidecars", sidecars)):
        if len(shards) != len(entries):
            raise DataError(
                f"{folder} has {len(shards)} {split} {what}, the manifest lists {len(entries)}; build the data again"
            )
    for index, (entry, shard, sidecar) in enumerate(zip(entries, tokens, sidecars, strict=True)):
        if entry.file != shard.path.name or sidecar.path.name != shard_name(split, index, sidecar=True):
            raise DataError(f"{folder} has {shard.path.name} where the manifest lists {entry.file}; build the data again")
        if shard.tokens != entry.tokens:
            raise DataError(f"shard {shard.path} holds {shard.tokens} tokens, the manifest says {entry.tokens}")
        hashes[shard.path] = entry.sha256
        hashes[sidecar.path] = entry.bytes_sha256
    return tokens, sidecars


def _check_pairs(tokens: Sequence[Shard], sidecars: Sequence[Shard]) -> None:
    if len(tokens) != len(sidecars):
        where = tokens[0].path.parent if tokens else sidecars[0].path.parent
        raise DataError(f"{where} has {len(tokens)} token shards but {len(sidecars)} byte sidecars; each shard needs one")
    for shard, sidecar in zip(tokens, sidecars, strict=True):
        if shard.tokens != sidecar.tokens:
            raise DataError(
                f"byte sidecar {sidecar.path} has {sidecar.tokens} entries, its shard {shard.tokens} tokens; "
                "build the data again"
            )


def _concatenated(shards: Sequence[Shard]) -> UInt16[np.ndarray, " tokens"]:
    return (
        shards[0].values if len(shards) == 1 else np.concatenate([shard.values for shard in shards] or [np.zeros(0, np.uint16)])
    )


def _sidecar_stream(tokens: Sequence[Shard], sidecars: Sequence[Shard]) -> Stream:
    _check_pairs(tokens, sidecars)
    ids = _concatenated(tokens)
    return Stream(ids, _concatenated(sidecars), np.flatnonzero(ids == BOS), "sidecar")


def _check_stream(stream: Stream, tokenizer: Tokenizer, documents: int | None, folder: Path) -> None:
    where = f"the validation split of {folder}"
    if len(stream.tokens) < 2:
        raise DataError(f"{where} has {len(stream.tokens)} tokens; at least 2 are needed to score one")
    check_vocabulary(stream.tokens, tokenizer.vocab_size, where)
    if len(stream.documents) == 0:
        raise DataError(f"{where} has no BOS (id {BOS}), so its documents cannot be found; build the data again")
    if stream.documents[0] != 0:
        raise DataError(f"{where} does not begin with BOS but with token {int(stream.tokens[0])}; build the data again")
    if documents is not None and len(stream.documents) != documents:
        raise DataError(f"{where} has {len(stream.documents)} documents, the manifest says {documents}; use matching files")
    if stream.byte_costs[stream.documents].any():
        raise DataError(f"{where} charges bytes to a BOS; its byte sidecar does not belong to its tokens")
    if not stream.byte_costs.any():
        raise DataError(f"{where} stands for 0 bytes; its byte sidecar is empty")
    if tokenizer.text_transform == "caseops":
        _check_operators(stream, tokenizer, where)


def _check_operators(stream: Stream, tokenizer: Tokenizer, where: str) -> None:
    """Refuse a sidecar that counts the transformed text: 3 bytes for each operator, and a denominator 9 % too large.

    A few may be charged rightly: characters that the model deletes beside an operator belong to it, and an operator after ESC
    is meant literally.
    """
    operator = np.isin(stream.tokens, tokenizer.operators)
    after_escape = np.append(False, stream.tokens[:-1] == tokenizer.operators[-1])
    free = operator & ~after_escape
    charged = int(np.count_nonzero(stream.byte_costs[free]))
    if 2 * charged > int(free.sum()):
        raise DataError(
            f"{where} charges bytes to {charged} of {int(free.sum())} case operators, which stand for none; its byte sidecar "
            "counts the transformed text, build or fetch the data again"
        )


def _open_published(folder: Path, content: Any, name: str | None) -> Dataset:
    if name is None:
        present = [item for item in export_names(content) if _nested(folder, f"datasets/{item}").is_dir()]
        if len(present) != 1:
            names = ", ".join(present) or "none of " + ", ".join(export_names(content))
            raise DataError(f"{folder} holds several or no published data sets ({names}); keep or download exactly one")
        name = present[0]
    export = parse_export(content, name, str(folder / MANIFEST))
    place = _nested(folder, export.folder)
    tokenizer = Tokenizer.load(_nested(folder, export.tokenizer_path))
    if export.text_transform not in ("none", tokenizer.text_transform):
        raise DataError(
            f"{folder / MANIFEST} says that {name} has text transform {export.text_transform}, but its tokenizer has no "
            "operators for it; use the tokenizer that the shards were made with"
        )
    if tokenizer.vocab_size != export.vocab_size:
        raise DataError(
            f"{folder / export.tokenizer_path} has {tokenizer.vocab_size} pieces, the manifest says {export.vocab_size}; "
            "the shards were made with another tokenizer"
        )
    hashes = _recorded_hashes(folder, tokenizer, export)
    train, val = open_shards(find_shards(place, "train")), open_shards(find_shards(place, "val"))
    if len(val) != export.val_files or not train or len(train) > export.train_files:
        raise DataError(
            f"{place} has {len(val)} validation and {len(train)} training shards, the manifest lists {export.val_files} and "
            f"{export.train_files}; fetch the data again"
        )
    if export.val_tokens is not None and sum(shard.tokens for shard in val) != export.val_tokens:
        raise DataError(
            f"the validation shards of {place} hold another number of tokens than the manifest: {export.val_tokens}"
        )
    stream = _published_stream(place, export, tokenizer, val)
    _check_stream(stream, tokenizer, export.val_documents, place)
    sidecars = find_shards(place, "val", sidecar=True) if export.sidecars else []
    identity = fingerprint(
        [
            tokenizer.sha256,
            tokenizer.text_transform,
            stream.byte_rule,
            [sha256_file(path) for path in [*(shard.path for shard in val), *sidecars]],
            [shard.tokens for shard in train],
        ]
    )
    return Dataset(folder, tokenizer, identity, tokenizer.text_transform, 0, export, tuple(train), stream, hashes)


def _nested(folder: Path, relative: str) -> Path:
    """A path of an export, or the same below one more ``datasets`` if it is only there."""
    deeper = folder / "datasets" / relative
    return deeper if deeper.exists() and not (folder / relative).exists() else folder / relative


def _published_stream(place: Path, export: PublishedExport, tokenizer: Tokenizer, val: Sequence[Shard]) -> Stream:
    """Byte costs from the sidecar where the export has one, else from the piece table."""
    sidecars = open_shards(find_shards(place, "val", sidecar=True))
    if export.sidecars or sidecars or tokenizer.operators:
        if not sidecars:
            raise DataError(f"{place} has no byte sidecar, and its bytes cannot be counted without one; fetch the data again")
        return _sidecar_stream(val, sidecars)
    tokens = _concatenated(val)
    check_vocabulary(tokens, tokenizer.vocab_size, f"the validation split of {place}")
    return Stream(tokens, piece_table(tokenizer).costs(tokens), np.flatnonzero(tokens == BOS), "piece_table")


def _recorded_hashes(folder: Path, tokenizer: Tokenizer, export: PublishedExport) -> dict[Path, str]:
    """Hashes written by the download; a folder put together by hand has none."""
    if not (folder / FETCH_RECORD).is_file():
        return {}
    record = read_json(folder / FETCH_RECORD)
    files = record.get("files") if isinstance(record, dict) else None
    if not isinstance(files, dict) or not all(isinstance(entry, dict) for entry in files.values()):
        raise DataError(f"{folder / FETCH_RECORD} is damaged; fetch the data again")
    expected = files.get(export.tokenizer_path, {}).get("sha256")
    if expected is not None and expected != tokenizer.sha256:
        raise DataError(
            f"{folder / export.tokenizer_path} has SHA-256 {tokenizer.sha256}, but {expected} was downloaded with the shards; "
            "fetch the data again"
        )
    return {folder / name: str(entry["sha256"]) for name, entry in files.items() if "sha256" in entry}

"""The manifest of a data folder: what was built from what, with a hash for every file.

Documents are numbered once over the whole corpus. Each split owns one range of these numbers, so that disjointness is a
comparison of two ranges and needs no look at the text.
"""

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fairway.base.errors import DataError, RecipeError
from fairway.base.files import read_json, write_json
from fairway.base.values import Value, from_dict
from fairway.data.tokenizer import TextTransform

FORMAT = "fairway-data"
VERSION = 1
MANIFEST = "manifest.json"
TOKENIZER = "tokenizer.model"

LossyRule = Literal["refuse", "drop", "keep"]


@dataclass(frozen=True, kw_only=True)
class ShardEntry(Value):
    """One token shard and its byte sidecar."""

    file: str
    """Name of the token shard."""
    tokens: int
    """Tokens in it, BOS included."""
    bytes: int
    """Sum of the byte costs."""
    sha256: str
    """SHA-256 of the token shard."""
    bytes_sha256: str
    """SHA-256 of the sidecar."""


@dataclass(frozen=True, kw_only=True)
class SplitEntry(Value):
    """One split: the document numbers it owns, what was stored of them, and the files."""

    first_document: int
    """First document number of the range."""
    end_document: int
    """One past the last document number of the range."""
    documents: int
    """Documents stored."""
    dropped_lossy: int
    """Documents of the range left out because their tokens do not decode to their bytes."""
    dropped_duplicates: int
    """Training documents of the range left out because a validation document has the same text."""
    lossy_documents: int
    """Stored documents whose tokens do not decode to their bytes; above 0 only with the rule ``keep``."""
    tokens: int
    """Stored tokens, one BOS per document included."""
    bytes: int
    """UTF-8 bytes of the stored documents."""

    def validate(self) -> None:
        """Refuse counts that cannot be."""
        if min(dataclasses.astuple(self)) < 0:
            raise RecipeError("a split has a negative count")
        owned = self.end_document - self.first_document
        if self.documents + self.dropped_lossy + self.dropped_duplicates != owned:
            raise RecipeError(f"a split owns {owned} document numbers but accounts for another number of documents")


@dataclass(frozen=True, kw_only=True)
class Manifest(Value):
    """Everything that is known about a data folder."""

    format: str = FORMAT
    """Always ``fairway-data``."""
    version: int = VERSION
    """Version of this layout."""
    tokenizer_sha256: str
    """SHA-256 of ``tokenizer.model``."""
    tokenizer_pieces: int
    """Number of pieces."""
    text_transform: TextTransform = "none"
    """What was done to the text before encoding."""
    lossy: LossyRule
    """What was done with documents whose tokens do not decode to their bytes."""
    order_seed: int | None
    """Seed of the order of whole-file documents; null if they are sorted by path."""
    inputs: tuple[str, ...]
    """Training inputs as given, or all inputs if validation was split from them."""
    validation_inputs: tuple[str, ...]
    """Separate validation inputs as given; empty if validation is the head of ``inputs``."""
    val: SplitEntry
    """The validation split."""
    train: SplitEntry
    """The training split."""
    val_shards: tuple[ShardEntry, ...]
    """Validation shards in order."""
    train_shards: tuple[ShardEntry, ...]
    """Training shards in order."""

    def validate(self) -> None:
        """Refuse another format, overlapping splits, and sums that disagree."""
        if self.format != FORMAT or self.version != VERSION:
            raise RecipeError(
                f"the manifest is {self.format} version {self.version}; this reader knows {FORMAT} version {VERSION}"
            )
        val, train = self.val, self.train
        if val.first_document < train.end_document and train.first_document < val.end_document:
            raise RecipeError(
                f"validation documents {val.first_document}..{val.end_document - 1} and training documents "
                f"{train.first_document}..{train.end_document - 1} overlap; build the data again"
            )
        for name, split, shards in (("val", val, self.val_shards), ("train", train, self.train_shards)):
            tokens, size = sum(shard.tokens for shard in shards), sum(shard.bytes for shard in shards)
            if (tokens, size) != (split.tokens, split.bytes):
                raise RecipeError(
                    f"the {name} shards hold {tokens} tokens and {size} bytes, the split {split.tokens} and {split.bytes}"
                )

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that change with any token, byte cost or the tokenizer, and with nothing else."""
        hashes = [self.tokenizer_sha256, self.text_transform]
        for shards in (self.val_shards, self.train_shards):
            hashes.append([[shard.sha256, shard.bytes_sha256] for shard in shards])  # type: ignore[arg-type]
        return fingerprint(hashes)


def fingerprint(content: Any) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of a JSON value."""
    return hashlib.sha256(json.dumps(content, separators=(",", ":")).encode()).hexdigest()[:16]


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest of a data folder."""
    write_json(folder / MANIFEST, dataclasses.asdict(manifest))


def parse_manifest(content: Any, where: Path) -> Manifest:
    """Check a manifest read from JSON.

    Raises:
        DataError: a field is missing, unknown or of the wrong type, counts disagree, or the splits overlap.
    """
    try:
        if not isinstance(content, dict):
            raise RecipeError("it is not an object")
        parts = dict(content)
        for name in ("val", "train"):
            shards = parts.get(f"{name}_shards")
            if isinstance(shards, list):
                parts[f"{name}_shards"] = tuple(from_dict(ShardEntry, shard, f"{name}_shards") for shard in shards)
        return from_dict(Manifest, parts)
    except RecipeError as error:
        raise DataError(f"{where} is not a valid manifest: {error}") from None


def read_manifest(folder: Path) -> Manifest:
    """Read and check the manifest of a data folder.

    Raises:
        DataError: see `parse_manifest`.
    """
    return parse_manifest(read_json(folder / MANIFEST), folder / MANIFEST)

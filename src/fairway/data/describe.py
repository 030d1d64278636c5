"""What a data folder holds, in figures, and whether the opening of any validation document occurs in training."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fairway.data.dataset import Dataset
from fairway.data.manifest import Manifest
from fairway.data.tokenizer import BOS

OPENING_TOKENS = 32
"""Tokens after BOS by which a document is recognised."""


@dataclass(frozen=True)
class SplitSummary:
    """Figures of one split."""

    shards: int
    documents: int
    tokens: int
    bytes: int | None
    """UTF-8 bytes; None for training data without byte sidecars."""
    bytes_per_token: float | None
    first_document: int | None
    """First document number the split owns; None where the manifest does not say."""
    end_document: int | None
    """One past the last document number the split owns."""


@dataclass(frozen=True)
class DataSummary:
    """Figures of a data folder."""

    folder: Path
    fingerprint: str
    vocab_size: int
    tokenizer_sha256: str
    text_transform: str
    byte_rule: str
    lossy_documents: int
    val: SplitSummary
    train: SplitSummary
    overlapping_documents: int | None
    """Validation documents whose first 32 tokens open a training document; None if not looked for."""


def describe(dataset: Dataset, *, overlap: bool = True) -> DataSummary:
    """Summarise an opened data folder.

    Args:
        dataset: The opened folder.
        overlap: Also look for the openings of validation documents in training, which reads every training token.

    A few overlapping openings are natural (licence headers, repeated titles). The known leak of the challenge, training
    from document 10,000 of a list whose first 50,000 are validation, shows as about four fifths of all documents.
    """
    stream = dataset.validation()
    manifest = dataset.manifest
    built = manifest if isinstance(manifest, Manifest) else None
    shards = dataset.train_shards()
    train_documents = sum(int(np.count_nonzero(shard.values == BOS)) for shard in shards)
    train_tokens = sum(shard.tokens for shard in shards)
    val_bytes = int(stream.byte_costs.sum(dtype=np.int64))
    train_bytes = built.train.bytes if built else None
    return DataSummary(
        folder=dataset.folder,
        fingerprint=dataset.fingerprint,
        vocab_size=dataset.vocab_size,
        tokenizer_sha256=dataset.tokenizer.sha256,
        text_transform=dataset.text_transform,
        byte_rule=stream.byte_rule,
        lossy_documents=dataset.lossy_documents,
        val=SplitSummary(
            len(built.val_shards) if built else getattr(manifest, "val_files", 0),
            len(stream.documents),
            len(stream.tokens),
            val_bytes,
            val_bytes / len(stream.tokens),
            built.val.first_document if built else None,
            built.val.end_document if built else None,
        ),
        train=SplitSummary(
            len(shards),
            train_documents,
            train_tokens,
            train_bytes,
            train_bytes / train_tokens if train_bytes and train_tokens else None,
            built.train.first_document if built else None,
            built.train.end_document if built else None,
        ),
        overlapping_documents=overlapping_documents(dataset) if overlap else None,
    )


def overlapping_documents(dataset: Dataset) -> int:
    """Number of validation documents whose first 32 tokens after BOS also open a training document.

    A document of fewer tokens must be equal as a whole. A training document cut by the end of its shard within its first
    32 tokens is not looked at.
    """
    stream = dataset.validation()
    wanted = openings(stream.tokens, complete=True)
    if len(wanted) == 0:
        return 0
    found = np.zeros(len(wanted), bool)
    for shard in dataset.train_shards():
        found |= np.isin(wanted, openings(shard.values, complete=False))
    return int(found.sum())


def openings(tokens: np.ndarray, *, complete: bool) -> np.ndarray:
    """One opaque value per non-empty document: its first 32 tokens after BOS, padded with BOS, which no document contains.

    Args:
        tokens: A stream of documents.
        complete: Whether the stream ends where its last document ends; otherwise a last document shorter than 32 tokens
            is left out.
    """
    starts = np.flatnonzero(tokens == BOS) + 1
    lengths = np.diff(np.append(starts, len(tokens) + 1)) - 1
    if not complete and len(starts) and lengths[-1] < OPENING_TOKENS:
        starts, lengths = starts[:-1], lengths[:-1]
    starts, lengths = starts[lengths > 0], lengths[lengths > 0]
    column = np.arange(OPENING_TOKENS)
    table = (
        np.asarray(tokens)[np.minimum(starts[:, None] + column, len(tokens) - 1)]
        if len(starts)
        else np.zeros((0, 32), np.uint16)
    )
    table[column >= lengths[:, None]] = BOS
    return np.ascontiguousarray(table).view(np.dtype((np.void, 2 * OPENING_TOKENS)))[:, 0]

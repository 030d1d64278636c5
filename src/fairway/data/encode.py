"""The second pass over a corpus: both splits encoded, checked and cut into shards, with everything counted."""

import dataclasses
import hashlib
import itertools
import math
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from tqdm import tqdm

from fairway.base.errors import DataError
from fairway.base.files import sha256_file
from fairway.base.log import logger
from fairway.data.documents import Document, read_documents
from fairway.data.ledger import encode_documents, loss
from fairway.data.manifest import LossyRule, Manifest, ShardEntry, SplitEntry
from fairway.data.shards import Shard, ShardWriter, Split, find_shards, shard_name
from fairway.data.tokenizer import Tokenizer

SHARD_TOKENS = 10**8
"""Tokens per shard of the published exports, and the largest shard made here unless asked for."""

TRAIN_STREAMS = 8
"""Logical data streams of the training loader; each needs a shard of its own."""

MAX_VAL_DOCUMENTS = 50_000
"""Validation documents of the published exports."""

DuplicateRule = Literal["refuse", "drop", "keep"]

_BATCH_CHARACTERS = 1 << 20
_EXAMPLES = 3


@dataclass(frozen=True, kw_only=True)
class EncodePlan:
    """What to encode and by which rules; the fields are the arguments of `build_dataset`."""

    inputs: tuple[str, ...]
    validation: tuple[str, ...]
    val_documents: int | None
    shard_tokens: int | None
    lossy: LossyRule
    duplicates: DuplicateRule
    text_field: str
    order_seed: int | None
    threads: int

    def with_val_documents(self, count: int, total: int) -> "EncodePlan":
        """The plan with a settled number of validation documents.

        Raises:
            DataError: no document would be left for training.
        """
        if count >= total:
            raise DataError(
                f"{count} of {total} documents for validation leave none for training; "
                "give more documents, a smaller number, or a separate validation input"
            )
        return dataclasses.replace(self, val_documents=count)


def read(plan: EncodePlan, inputs: Sequence[str], first_index: int = 0) -> Iterator[Document]:
    """The documents of some of the plan's inputs."""
    return read_documents(inputs, text_field=plan.text_field, order_seed=plan.order_seed, first_index=first_index)


def progress(documents: Iterable[Document], title: str) -> Iterator[Document]:
    """The same documents with a progress bar on a terminal, and nothing elsewhere."""
    return iter(tqdm(documents, desc=title, unit=" documents", disable=None, leave=False))


@dataclass
class _SplitWriter:
    """One split while it is written."""

    name: Split
    writer: ShardWriter
    first: int
    end: int
    documents: int = 0
    tokens: int = 0
    bytes: int = 0
    rejected_lossy: list[str] = field(default_factory=list)
    rejected_duplicates: list[str] = field(default_factory=list)
    kept_lossy: list[str] = field(default_factory=list)

    def entry(self) -> SplitEntry:
        return SplitEntry(
            first_document=self.first,
            end_document=self.end,
            documents=self.documents,
            dropped_lossy=len(self.rejected_lossy),
            dropped_duplicates=len(self.rejected_duplicates),
            lossy_documents=len(self.kept_lossy),
            tokens=self.tokens,
            bytes=self.bytes,
        )


def encode_splits(plan: EncodePlan, tokenizer: Tokenizer, folder: Path) -> Manifest:
    """Write all shards of both splits into ``folder`` and return the manifest; validation comes first in every order.

    Raises:
        DataError: an empty split, or lossy or duplicate documents under the rule ``refuse``.
    """
    size = plan.shard_tokens or SHARD_TOKENS
    held_out: set[bytes] = set()
    val = _SplitWriter("val", ShardWriter(folder, "val", size), 0, 0)
    rest: Iterator[Document] = iter(())
    if plan.validation:
        head = read(plan, plan.validation)
    else:
        rest = read(plan, plan.inputs)
        head = itertools.islice(rest, plan.val_documents)
    _encode(plan, tokenizer, val, progress(head, "validation"), held_out)
    if plan.validation:
        rest = read(plan, plan.inputs, first_index=val.end)
    train = _SplitWriter("train", ShardWriter(folder, "train", size), val.end, val.end)
    _encode(plan, tokenizer, train, progress(rest, "train"), held_out)
    _check_result(plan, val, train)
    for split in (val, train):
        split.writer.close()
    if plan.shard_tokens is None:
        _recut(folder, train.tokens)
    return Manifest(
        tokenizer_sha256=tokenizer.sha256,
        tokenizer_pieces=tokenizer.vocab_size,
        text_transform=tokenizer.text_transform,
        lossy=plan.lossy,
        order_seed=plan.order_seed,
        inputs=plan.inputs,
        validation_inputs=plan.validation,
        val=val.entry(),
        train=train.entry(),
        val_shards=_shard_entries(folder, "val"),
        train_shards=_shard_entries(folder, "train"),
    )


def _encode(
    plan: EncodePlan, tokenizer: Tokenizer, split: _SplitWriter, documents: Iterator[Document], held_out: set[bytes]
) -> None:
    """Encode one split into its shards; validation adds the hashes of its texts to ``held_out``, training avoids them."""
    for batch in _batches(documents):
        split.end += len(batch)
        fresh = []
        for document in batch:
            digest = hashlib.blake2b(document.text.encode("utf-8"), digest_size=16).digest()
            if split.name == "val":
                held_out.add(digest)
            elif document.text and digest in held_out and plan.duplicates != "keep":
                split.rejected_duplicates.append(document.source)
                continue
            fresh.append(document)
        texts = [document.text for document in fresh]
        coded = encode_documents(tokenizer, texts, plan.threads, keep_lossy=plan.lossy == "keep")
        for document, encoded in zip(fresh, coded, strict=True):
            if encoded is None:
                split.rejected_lossy.append(_lossy_name(tokenizer, document, split.rejected_lossy))
                continue
            if not encoded.lossless:
                split.kept_lossy.append(_lossy_name(tokenizer, document, split.kept_lossy))
            split.writer.append(encoded.tokens, encoded.byte_costs)
            split.documents += 1
            split.tokens += len(encoded.tokens)
            split.bytes += int(encoded.byte_costs.sum(dtype=np.int64))


def _lossy_name(tokenizer: Tokenizer, document: Document, before: Sequence[str]) -> str:
    """The source of a lossy document, with the reason if it is one of the examples that a message names."""
    return f"{document.source} {loss(tokenizer, document.text)}" if len(before) < _EXAMPLES else document.source


def _batches(documents: Iterator[Document]) -> Iterator[list[Document]]:
    batch: list[Document] = []
    characters = 0
    for document in documents:
        batch.append(document)
        characters += len(document.text)
        if characters >= _BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _check_result(plan: EncodePlan, val: _SplitWriter, train: _SplitWriter) -> None:
    """Refuse what the rules refuse, with counts; report what they drop or keep."""
    lossy = [source for split in (val, train) for source in split.rejected_lossy + split.kept_lossy]
    if lossy:
        what = f"{len(lossy)} of {train.end} documents do not survive the tokenizer ({_examples(lossy)})"
        if plan.lossy == "refuse":
            raise DataError(f"{what}; use a lossless tokenizer, or lossy=drop or keep (keep marks every result)")
        logger.warning("%s: %s", what, "left out" if plan.lossy == "drop" else "kept, and every result will say so")
    duplicates = train.rejected_duplicates
    if duplicates:
        what = f"{len(duplicates)} training documents are also in validation ({_examples(duplicates)})"
        if plan.duplicates == "refuse":
            raise DataError(f"{what}; use duplicates=drop to leave them out of training")
        logger.warning("%s: left out of training", what)
    for split in (val, train):
        if split.documents == 0 or split.tokens < 2:
            raise DataError(
                f"the {split.name} split has {split.documents} documents and {split.tokens} tokens; give more documents, "
                "another number of validation documents, or a separate validation input"
            )


def _examples(sources: Sequence[str]) -> str:
    return "; ".join(sources[:_EXAMPLES]) + ("; ..." if len(sources) > _EXAMPLES else "")


def _recut(folder: Path, tokens: int) -> None:
    """Cut the training split into at least 8 shards if it is too small to fill them at the default size."""
    size = min(SHARD_TOKENS, math.ceil(tokens / TRAIN_STREAMS))
    if size == SHARD_TOKENS:
        return
    pairs = [
        (Shard(path), Shard(folder / shard_name("train", index, sidecar=True)))
        for index, path in enumerate(find_shards(folder, "train"))
    ]
    with tempfile.TemporaryDirectory(dir=folder) as place:
        writer = ShardWriter(Path(place), "train", size)
        for shard, sidecar in pairs:
            writer.append(shard.values, sidecar.values)
        writer.close()
        for shard, sidecar in pairs:
            shard.path.unlink()
            sidecar.path.unlink()
        for path in Path(place).iterdir():
            path.rename(folder / path.name)


def _shard_entries(folder: Path, split: Split) -> tuple[ShardEntry, ...]:
    entries = []
    for index, path in enumerate(find_shards(folder, split)):
        sidecar = Shard(folder / shard_name(split, index, sidecar=True))
        entry = ShardEntry(
            file=path.name,
            tokens=sidecar.tokens,
            bytes=int(sidecar.values.sum(dtype=np.int64)),
            sha256=sha256_file(path),
            bytes_sha256=sha256_file(sidecar.path),
        )
        entries.append(entry)
    return tuple(entries)

"""From documents to a data folder: survey, tokenizer, validation, training, manifest, each in order and all or nothing."""

import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fairway.base.errors import DataError, MachineError
from fairway.base.files import read_json
from fairway.base.log import logger
from fairway.data.documents import ORDER_SEED
from fairway.data.encode import MAX_VAL_DOCUMENTS, DuplicateRule, EncodePlan, encode_splits, progress, read
from fairway.data.manifest import FORMAT, MANIFEST, TOKENIZER, LossyRule, Manifest, write_manifest
from fairway.data.shards import MAX_TOKENS
from fairway.data.survey import survey_documents
from fairway.data.tokenizer import TextTransform, Tokenizer, train_tokenizer


@dataclass(frozen=True)
class BuildReport:
    """What `build_dataset` made."""

    out: Path
    manifest: Manifest
    fingerprint: str
    bytes_per_token: float
    """UTF-8 bytes per stored token over both splits."""
    tokenizer_seconds: float
    """Time to survey the corpus and to train the tokenizer."""
    encode_seconds: float
    """Time to read, encode, check and write all documents."""
    seconds: float
    """Time of the whole build."""
    megabytes_per_second: float
    """Million bytes of stored text per second of the whole build."""


def build_dataset(
    inputs: Sequence[str | Path],
    out: Path,
    *,
    vocab_size: int | None = None,
    tokenizer: Path | None = None,
    text_transform: TextTransform = "none",
    validation: Sequence[str | Path] = (),
    val_documents: int | None = None,
    shard_tokens: int | None = None,
    lossy: LossyRule = "refuse",
    duplicates: DuplicateRule = "refuse",
    text_field: str = "text",
    order_seed: int | None = ORDER_SEED,
    threads: int = 0,
    overwrite: bool = False,
) -> BuildReport:
    """Tokenise a corpus into a data folder; the same inputs and settings give the same bytes on any number of threads.

    Args:
        inputs: Files, folders, globs or ``python-stdlib``; see `read_documents`.
        out: Folder to make; it appears whole or not at all.
        vocab_size: Pieces of the tokenizer to train on the training documents. Give this or ``tokenizer``.
        tokenizer: A SentencePiece model to use instead of training one.
        text_transform: What to do to text before encoding it; a given model must be made for it.
        validation: Separate validation inputs; then ``inputs`` are all training.
        val_documents: Leading documents that become validation when there is no separate input; default 1 %, at least
            1 and at most 50,000.
        shard_tokens: Tokens per shard; default 10**8, or less so that there are 8 training shards.
        lossy: What to do with documents whose tokens do not decode to their bytes.
        duplicates: What to do with training documents that are also in validation.
        text_field: Key of JSONL records or parquet column that holds the text.
        order_seed: Seed of the order of whole-file documents; None keeps them sorted by path.
        threads: Threads of the encoder; 0 takes all cores.
        overwrite: Replace a data folder that is already at ``out``.

    Raises:
        DataError: bad text, an impossible split, lossy or duplicate documents when refused, or ``out`` exists.
        MachineError: no disk space, or a library is not installed.
    """
    began = time.perf_counter()
    plan = EncodePlan(
        inputs=tuple(str(item) for item in inputs),
        validation=tuple(str(item) for item in validation),
        val_documents=val_documents,
        shard_tokens=shard_tokens,
        lossy=lossy,
        duplicates=duplicates,
        text_field=text_field,
        order_seed=order_seed,
        threads=threads or _cores(),
    )
    _check_request(plan, vocab_size, tokenizer)
    with _folder_in_place(Path(out), overwrite) as folder:
        chosen = _given(tokenizer, vocab_size, text_transform) if tokenizer is not None else None
        if chosen is None or (not plan.validation and plan.val_documents is None):
            chosen, plan = _surveyed(plan, chosen, vocab_size, text_transform)
        surveyed = time.perf_counter()
        chosen.save(folder / TOKENIZER)
        manifest = encode_splits(plan, chosen, folder)
        encoded = time.perf_counter()
        write_manifest(folder, manifest)
    seconds = time.perf_counter() - began
    size, tokens = manifest.val.bytes + manifest.train.bytes, manifest.val.tokens + manifest.train.tokens
    return BuildReport(
        out=Path(out),
        manifest=manifest,
        fingerprint=manifest.fingerprint,
        bytes_per_token=size / tokens,
        tokenizer_seconds=surveyed - began,
        encode_seconds=encoded - surveyed,
        seconds=seconds,
        megabytes_per_second=size / 1e6 / seconds,
    )


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _check_request(plan: EncodePlan, vocab_size: int | None, tokenizer: Path | None) -> None:
    if vocab_size is None and tokenizer is None:
        raise DataError("neither a vocabulary size nor a tokenizer is given; give one, for example 1024 pieces")
    if plan.validation and plan.val_documents is not None:
        raise DataError("a number of validation documents and a separate validation input exclude each other; give one")
    if plan.val_documents is not None and plan.val_documents < 1:
        raise DataError(f"{plan.val_documents} validation documents are too few; give at least 1")
    if plan.shard_tokens is not None and not 1 <= plan.shard_tokens <= MAX_TOKENS:
        raise DataError(f"{plan.shard_tokens} tokens per shard are outside 1..{MAX_TOKENS}")


@contextmanager
def _folder_in_place(out: Path, overwrite: bool) -> Iterator[Path]:
    """A temporary folder beside ``out`` that takes its place on success and vanishes on failure."""
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        if not _is_built(out):
            raise DataError(f"{out} exists and is not a data folder that was built here; choose another --out")
        if not overwrite:
            raise DataError(f"{out} already holds a data set; choose another --out or pass --overwrite")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".part", dir=out.parent))
    except OSError as error:
        raise MachineError(f"cannot write beside {out}: {error.strerror}; choose another --out") from None
    try:
        yield partial
        _swap(partial, out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _swap(partial: Path, out: Path) -> None:
    """Put the finished folder at ``out``; what was there comes back if that fails."""
    partial.chmod(0o755)
    old = partial.with_suffix(".old")
    try:
        if out.exists():
            out.rename(old)
        partial.rename(out)
    except OSError as error:
        if old.exists():
            old.rename(out)
        raise MachineError(f"cannot put the data set at {out}: {error.strerror}; choose another --out") from None
    shutil.rmtree(old, ignore_errors=True)


def _is_built(folder: Path) -> bool:
    if not (folder / MANIFEST).is_file():
        return False
    content = read_json(folder / MANIFEST)
    return isinstance(content, dict) and content.get("format") == FORMAT


def _given(path: Path, vocab_size: int | None, text_transform: TextTransform) -> Tokenizer:
    tokenizer = Tokenizer.load(path)
    if vocab_size is not None and vocab_size != tokenizer.vocab_size:
        raise DataError(f"{path} has {tokenizer.vocab_size} pieces, not {vocab_size}; leave out the number")
    if tokenizer.text_transform != text_transform:
        raise DataError(
            f"{path} is made for text transform {tokenizer.text_transform}, not {text_transform}: its pieces "
            f"{'hold' if tokenizer.text_transform == 'caseops' else 'lack'} the case operators at ids 4 to 7; "
            f"build with --transform {tokenizer.text_transform} or another tokenizer"
        )
    return tokenizer


def _surveyed(
    plan: EncodePlan, tokenizer: Tokenizer | None, vocab_size: int | None, text_transform: TextTransform
) -> tuple[Tokenizer, EncodePlan]:
    """One pass over the corpus that settles the number of validation documents and trains the tokenizer."""
    survey = survey_documents(progress(read(plan, plan.inputs), "survey"))
    first = 0
    if not plan.validation:
        first = plan.val_documents or max(1, min(MAX_VAL_DOCUMENTS, survey.documents // 100))
        plan = plan.with_val_documents(first, survey.documents)
    if tokenizer is None:
        sample = [document.text for document in survey.sample if document.index >= first]
        tokenizer = train_tokenizer(sample, vocab_size or 0, text_transform)
        logger.info(
            "tokenizer: %d pieces from %d of %d documents, sha256 %s",
            tokenizer.vocab_size,
            len(sample),
            survey.documents,
            tokenizer.sha256[:16],
        )
    return tokenizer, plan

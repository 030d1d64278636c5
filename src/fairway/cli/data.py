"""``fairway data build``, ``verify`` and ``fetch``."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from fairway.base.errors import FairwayError
from fairway.base.values import suggest
from fairway.cli.parse import Switch, emit, parse, table


@dataclass(frozen=True, kw_only=True)
class BuildArguments:
    """Tokenise text into a data folder, with the byte cost of every token beside it."""

    out: Path
    """Folder to make; it appears whole or not at all."""
    input: tuple[str, ...] = ("python-stdlib",)
    """Text files, folders, globs, .jsonl (.gz, .xz, .zst), .parquet, or python-stdlib, the source every machine has."""
    val: tuple[str, ...] = ()
    """Separate validation inputs; without them the first documents of --input become validation."""
    val_documents: int | None = None
    """Documents of validation when --val is not given; by default 1 %, at least 1 and at most 50,000."""
    vocab: int | None = None
    """Pieces of the tokenizer to train; 1,024 unless --tokenizer is given."""
    tokenizer: Path | None = None
    """A SentencePiece model to use instead of training one."""
    transform: Literal["none", "caseops"] = "none"
    """What to do to text before encoding it: caseops writes words small, with operators for their capitals, losslessly."""
    shard_tokens: int | None = None
    """Tokens per shard file."""
    lossy: Literal["refuse", "drop", "keep"] = "refuse"
    """What to do with documents whose tokens do not decode to their bytes."""
    duplicates: Literal["refuse", "drop", "keep"] = "refuse"
    """What to do with training documents that are also in validation."""
    text_field: str = "text"
    """Key of JSONL records or column of parquet files that holds the text."""
    threads: int = 0
    """Threads of the encoder; 0 takes all cores. The result does not depend on it."""
    overwrite: Switch = False
    """Replace a data folder that is already there."""
    json: Switch = False
    """Print one JSON document instead of a table."""


@dataclass(frozen=True, kw_only=True)
class VerifyArguments:
    """Hash every file of a data folder, check every token, and look for validation text in the training split."""

    folder: Annotated[Path, tyro.conf.Positional]
    """Folder made by fairway data build or fetch."""
    json: Switch = False
    """Print one JSON document instead of a table."""


@dataclass(frozen=True, kw_only=True)
class FetchArguments:
    """Download a published data set of the challenge; resumes, verifies every file before putting it in place."""

    variant: Annotated[str, tyro.conf.Positional]
    """sp1024, sp8192, sp8192-caseops or sp8192-pr1776."""
    out: Path
    """Folder for the files."""
    train_shards: int = 80
    """Training shards to bring; validation always comes whole."""
    revision: str = "main"
    """Branch, tag or commit of the hub repository."""
    endpoint: str | None = None
    """Address of the hub, for mirrors."""
    documents: Switch = False
    """Bring the raw documents too."""
    json: Switch = False
    """Print one JSON document instead of a table."""


def data(argv: Sequence[str]) -> int:
    """Dispatch to one of the three actions."""
    actions = {"build": _build, "verify": _verify, "fetch": _fetch}
    if not argv or argv[0] not in actions:
        found = f", not {argv[0]!r}{suggest(argv[0], actions)}" if argv else ""
        raise FairwayError(f"fairway data needs one of build, verify, fetch{found}; see fairway data build --help")
    return actions[argv[0]](argv[1:])


def _build(argv: Sequence[str]) -> int:
    arguments = parse(BuildArguments, argv, "data build")
    from fairway.data.build import build_dataset

    vocab = arguments.vocab if arguments.vocab or arguments.tokenizer else 1024
    report = build_dataset(
        arguments.input,
        arguments.out,
        vocab_size=vocab,
        tokenizer=arguments.tokenizer,
        text_transform=arguments.transform,
        validation=arguments.val,
        val_documents=arguments.val_documents,
        shard_tokens=arguments.shard_tokens,
        lossy=arguments.lossy,
        duplicates=arguments.duplicates,
        text_field=arguments.text_field,
        threads=arguments.threads,
        overwrite=arguments.overwrite,
    )
    manifest = report.manifest
    rows = [
        (name, split.documents, split.tokens, split.bytes, len(shards))
        for name, split, shards in (
            ("train", manifest.train, manifest.train_shards),
            ("validation", manifest.val, manifest.val_shards),
        )
    ]
    text = (
        table(rows, ("split", "documents", "tokens", "bytes", "shards"))
        + f"\n{report.bytes_per_token:.3f} bytes per token, fingerprint {report.fingerprint}, "
        + f"{report.seconds:.1f} s, {report.megabytes_per_second:.1f} MB/s; written to {report.out}"
    )
    emit(_plain(report), text, as_json=arguments.json)
    return 0


def _verify(argv: Sequence[str]) -> int:
    arguments = parse(VerifyArguments, argv, "data verify")
    from fairway.data.dataset import Dataset
    from fairway.data.describe import describe

    dataset = Dataset.open(arguments.folder)
    dataset.verify()
    summary = describe(dataset)
    rows = [(key.replace("_", " "), value) for key, value in _plain(summary).items()]
    emit(_plain(summary), table(rows, ("what", "value")), as_json=arguments.json)
    return 0


def _fetch(argv: Sequence[str]) -> int:
    arguments = parse(FetchArguments, argv, "data fetch")
    from fairway.data.fetch import fetch

    report = fetch(
        arguments.variant,
        arguments.out,
        train_shards=arguments.train_shards,
        revision=arguments.revision,
        endpoint=arguments.endpoint,
        documents=arguments.documents,
    )
    rows = [(key.replace("_", " "), value) for key, value in _plain(report).items()]
    emit(_plain(report), table(rows, ("what", "value")), as_json=arguments.json)
    return 0


def _plain(report: Any) -> dict[str, Any]:
    """A report dataclass as values that JSON holds."""
    content = dataclasses.asdict(report)
    return {key: str(value) if isinstance(value, Path) else value for key, value in content.items()}

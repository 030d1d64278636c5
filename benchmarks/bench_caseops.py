"""Speed of the case transform, and of building a data folder with it and without it.

References: the plain character-by-character transform, SentencePiece's own encoder, and the build of untransformed text. All
interleaved in one run on one thread, medians of processor time, so that other work on the machine matters less. The build is
timed with models that are trained beforehand.

    python benchmarks/bench_caseops.py [--input FILE ...] [--megabytes 4] [--rounds 5]
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import tyro

from fairway.data import caseops
from fairway.data.build import build_dataset
from fairway.data.documents import Document, read_documents
from fairway.data.tokenizer import Tokenizer, train_tokenizer

PIECES = 4096


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """What to measure on."""

    input: tuple[str, ...] = ("python-stdlib",)
    """Text, as for ``fairway data build``."""
    megabytes: float = 4.0
    """Leading share of the text."""
    rounds: int = 5
    """Interleaved repetitions."""


def seconds(run: Callable[[], object]) -> float:
    began = time.process_time()
    run()
    return time.process_time() - began


def leading(arguments: Arguments) -> list[str]:
    texts, size = [], 0.0
    document: Document
    for document in read_documents(arguments.input):
        texts.append(document.text)
        size += len(document.text.encode()) / 1e6
        if size >= arguments.megabytes:
            break
    return texts


def build(tokenizer: Tokenizer, texts: list[str], place: Path) -> Callable[[], object]:
    """A build of ``texts`` from files, with the tokenizer's own transform."""
    model, files = place / f"{tokenizer.text_transform}.model", place / "texts"
    files.mkdir(exist_ok=True)
    tokenizer.save(model)
    for number, text in enumerate(texts):
        (files / f"{number:06d}.txt").write_text(text, "utf-8", newline="")

    return lambda: build_dataset(
        [files],
        place / f"data-{tokenizer.text_transform}",
        tokenizer=model,
        text_transform=tokenizer.text_transform,
        val_documents=4,
        lossy="keep",
        duplicates="keep",
        threads=1,
        overwrite=True,
    )


def main() -> None:
    arguments = tyro.cli(Arguments)
    texts = leading(arguments)
    size = sum(len(text.encode()) for text in texts) / 1e6
    transformed = [caseops.encode(text) for text in texts]
    plain, cased = train_tokenizer(texts, PIECES), train_tokenizer(texts, PIECES, "caseops")
    with tempfile.TemporaryDirectory() as place:
        measured: dict[str, Callable[[], object]] = {
            "transform": lambda: [caseops.encode(text) for text in texts],
            "transform, plain": lambda: [caseops.encode_plain(text) for text in texts],
            "undo": lambda: [caseops.decode(text) for text in transformed],
            "SentencePiece, text": lambda: plain.encode_batch(texts),
            "SentencePiece, transformed": lambda: cased.plain.encode_batch(transformed),
            "build, text": build(plain, texts, Path(place)),
            "build, transformed": build(cased, texts, Path(place)),
        }
        times: dict[str, list[float]] = {name: [] for name in measured}
        for _ in range(arguments.rounds):
            for name, run in measured.items():
                times[name].append(seconds(run))
    print(f"{size:.1f} MB, {len(texts)} documents, {PIECES} pieces, one thread, {arguments.rounds} interleaved rounds")
    for name, values in times.items():
        print(f"{name:28s} {size / statistics.median(values):8.2f} MB/s")
    for top, bottom in (
        ("transform, plain", "transform"),
        ("transform", "SentencePiece, transformed"),
        ("SentencePiece, transformed", "SentencePiece, text"),
        ("build, transformed", "build, text"),
    ):
        ratios = [first / second for first, second in zip(times[top], times[bottom], strict=True)]
        print(f"time of {top} / {bottom}: {statistics.median(ratios):.3f} ({min(ratios):.3f} .. {max(ratios):.3f})")


if __name__ == "__main__":
    main()

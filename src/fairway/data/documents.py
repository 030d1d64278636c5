"""Documents from files: text, folders, globs, JSONL, parquet, and the running Python's own standard library.

Reading is strict: a byte that is not UTF-8, a lone surrogate, a damaged archive or a record without text stops the
reading with the name of the file and the line, because a silently repaired corpus has another byte count.
"""

import functools
import glob
import gzip
import hashlib
import json
import lzma
import sysconfig
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

from fairway.base.errors import DataError, MachineError
from fairway.base.log import logger
from fairway.data.zstd import open_zstd

PYTHON_STDLIB = "python-stdlib"
"""Name of the embedded corpus: the source text of the running Python's standard library."""

ORDER_SEED = 1337
"""Default seed of the order of whole-file documents."""

_SKIPPED_FOLDERS = frozenset({"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__"})
_COMPRESSED = (".gz", ".xz", ".zst")


@dataclass(frozen=True)
class Document:
    """One document: its place in the order of all documents, where it was read, and its text."""

    index: int
    source: str
    text: str


@dataclass(frozen=True)
class SourceFile:
    """One input file, the name it is ordered and reported by, and how its content is cut into documents."""

    path: Path
    name: str
    kind: Literal["text", "jsonl", "parquet"]


def read_documents(
    inputs: Sequence[str | Path], *, text_field: str = "text", order_seed: int | None = ORDER_SEED, first_index: int = 0
) -> Iterator[Document]:
    """Iterate over the documents of all inputs in one fixed order.

    A text file is one document. Records keep the order of their file. The text files of one folder or glob are ordered
    by a hash of seed and relative path, so that a leading share of them is a fair sample wherever the folder lies.

    Args:
        inputs: Files, folders (read recursively, hidden names skipped), glob patterns, or ``python-stdlib``.
        text_field: Key of a JSONL record or column of a parquet file that holds the text.
        order_seed: Seed of the order of whole-file documents; None keeps them sorted by path.
        first_index: Index of the first document.

    Raises:
        DataError: nothing to read, not UTF-8, a damaged file, or a record without text.
        MachineError: a library for the format is not installed.
    """
    index = first_index
    for item in inputs:
        if str(item) == PYTHON_STDLIB:
            pairs = _read_stdlib(order_seed)
        else:
            pairs = (pair for file in list_files(item, order_seed) for pair in _read_file(file, text_field))
        for source, text in pairs:
            yield Document(index, source, text)
            index += 1
    if index == first_index:
        names = ", ".join(str(item) for item in inputs) or "no input"
        raise DataError(f"the corpus is empty: {names} holds no document; name files with text")


def list_files(item: str | Path, order_seed: int | None = ORDER_SEED) -> list[SourceFile]:
    """The files that one input stands for, in reading order.

    Raises:
        DataError: the path does not exist, or the pattern matches nothing.
    """
    path = Path(item)
    if path.is_file():
        return [_classify(path, str(path))]
    if path.is_dir():
        found = [file for file in path.rglob("*") if file.is_file() and not _hidden(file.relative_to(path))]
        files = [_classify(file, file.relative_to(path).as_posix()) for file in found]
    elif glob.has_magic(str(item)):
        files = [
            _classify(Path(name), Path(name).as_posix())
            for name in glob.glob(str(item), recursive=True)  # noqa: PTH207 - absolute patterns too
            if Path(name).is_file()
        ]
    else:
        raise DataError(f"input {path} does not exist; give a file, a folder, a glob pattern or {PYTHON_STDLIB}")
    if not files:
        raise DataError(f"input {path} holds no file; give a file, a folder with files, or {PYTHON_STDLIB}")
    records = sorted((file for file in files if file.kind != "text"), key=lambda file: file.name)
    texts = sorted((file for file in files if file.kind == "text"), key=lambda file: _order_key(file.name, order_seed))
    return records + texts


def _hidden(relative: Path) -> bool:
    return any(part.startswith(".") for part in relative.parts)


def _classify(path: Path, name: str) -> SourceFile:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in _COMPRESSED:
        suffixes.pop()
    inner = suffixes[-1] if suffixes else ""
    kind = "jsonl" if inner in (".jsonl", ".ndjson") else "parquet" if inner == ".parquet" else "text"
    return SourceFile(path, name, kind)


def _order_key(name: str, seed: int | None) -> tuple[bytes, str]:
    digest = b"" if seed is None else hashlib.blake2b(f"{seed}:{name}".encode("utf-8", "surrogateescape")).digest()
    return digest, name


def _read_file(file: SourceFile, text_field: str) -> Iterator[tuple[str, str]]:
    if file.kind == "parquet":
        yield from _read_parquet(file.path, text_field)
    elif file.kind == "jsonl":
        yield from _read_jsonl(file.path, text_field)
    else:
        with _opened(file.path) as stream:
            content = stream.read()
        if content:
            yield str(file.path), _decode(content, str(file.path))


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    """The uncompressed bytes of a file; damage found while reading becomes a ``DataError``."""
    openers = {".gz": gzip.open, ".xz": lzma.open, ".zst": open_zstd}
    opener: Callable[[Path], Any] = openers.get(path.suffix.lower(), functools.partial(open, mode="rb"))
    try:
        with opener(path) as stream:
            yield stream
    except PermissionError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise DataError(f"{path} is damaged or cut short ({error}); copy or download it again") from None


def _decode(content: bytes, where: str) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{where} is not UTF-8: byte 0x{content[error.start]:02x} at offset {error.start}, line {line}; "
            "convert the file to UTF-8 or leave it out"
        ) from None


def _read_jsonl(path: Path, key: str) -> Iterator[tuple[str, str]]:
    with _opened(path) as stream:
        for number, line in enumerate(stream, 1):
            if line.isspace():
                continue
            where = f"{path}:{number}"
            try:
                record = json.loads(_decode(line, where))
            except (json.JSONDecodeError, RecursionError) as error:
                raise DataError(f"{where} is not one JSON object ({error}); correct the line") from None
            yield where, _text_of(record.get(key) if isinstance(record, dict) else None, key, where)


def _text_of(value: object, key: str, where: str) -> str:
    """The text of a record, refused unless it is a string of Unicode scalar values."""
    if not isinstance(value, str):
        raise DataError(f"{where} has no string under {key!r}; name the right field or correct the record")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(
            f"{where} holds a lone surrogate at character {error.start}, which has no UTF-8 form; correct it"
        ) from None
    return value


def _read_parquet(path: Path, column: str) -> Iterator[tuple[str, str]]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise MachineError(f"{path} needs pyarrow, which is not installed; run: pip install 'fairway[data]'") from None
    row = 0
    try:
        with parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            if column not in names:
                raise DataError(f"{path} has no column {column!r}; it has {', '.join(names)}")
            for batch in file.iter_batches(batch_size=256, columns=[column]):
                for value in batch.column(0).to_pylist():
                    where = f"{path}:row {row}"
                    yield where, _text_of(value, column, where)
                    row += 1
    except UnicodeDecodeError:
        raise DataError(f"{path}:row {row} or one shortly after it is not UTF-8; correct the column {column!r}") from None
    except (pyarrow.ArrowInvalid, pyarrow.ArrowNotImplementedError, OSError) as error:
        raise DataError(f"{path} is not a readable parquet file ({error}); make it again") from None


def _read_stdlib(order_seed: int | None) -> Iterator[tuple[str, str]]:
    """Source files of the standard library: no tests, nothing installed later, valid UTF-8, each text once.

    Files with a literal U+2581 are left out as well: SentencePiece reads that character as a space.
    """
    root = Path(sysconfig.get_paths()["stdlib"])
    names = [path.relative_to(root) for path in root.rglob("*.py")]
    kept = [name.as_posix() for name in names if not _SKIPPED_FOLDERS.intersection(name.parts)]
    seen: set[bytes] = set()
    left_out = 0
    for name in sorted(kept, key=lambda name: _order_key(name, order_seed)):
        content = (root / name).read_bytes()
        digest = hashlib.blake2b(content, digest_size=16).digest()
        if not content or digest in seen:
            continue
        seen.add(digest)
        try:
            text = content.decode("utf-8")
        except UnicodeDecodeError:
            left_out += 1
            continue
        if "\u2581" in text:
            left_out += 1
            continue
        yield f"{PYTHON_STDLIB}/{name}", text
    if left_out:
        logger.info("%s: %d files left out (not UTF-8, or with a literal U+2581)", PYTHON_STDLIB, left_out)

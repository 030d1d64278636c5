"""The challenge's shard format: 256 little-endian int32 of header, then little-endian uint16 tokens or byte counts.

| offset | size | content                                      |
|--------|------|----------------------------------------------|
| 0      | 4    | magic 20240520                               |
| 4      | 4    | version 1                                    |
| 8      | 4    | number of tokens K, 0 <= K < 2**31           |
| 12     | 1012 | zeros, ignored by readers                    |
| 1024   | 2 K  | tokens                                       |

Every reader in the package is the class `Shard`, which checks everything when it is made.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import UInt16

from fairway.base.errors import DataError
from fairway.base.files import atomic_path

MAGIC = 20240520
VERSION = 1
HEADER_BYTES = 1024
MAX_TOKENS = 2**31 - 1

Split = Literal["train", "val"]

_NAME = re.compile(r"(?P<prefix>fineweb_)?(?P<split>train|val)(?P<sidecar>_bytes)?_(?P<index>[0-9]{6})\.bin")


@dataclass(frozen=True)
class Shard:
    """One checked shard file, mapped into memory.

    Args:
        path: The file; magic, version, count and exact size are checked here and never again.

    Raises:
        DataError: the file is missing, is not a shard, or has another size than its header says.
    """

    path: Path
    tokens: int = field(init=False)
    """Number of tokens (or of byte counts in a sidecar)."""
    values: UInt16[np.ndarray, " tokens"] = field(init=False, repr=False, compare=False)
    """The content, read-only; convert slices to int64 before arithmetic."""

    def __post_init__(self) -> None:
        count = read_header(self.path)
        values = np.memmap(self.path, np.dtype("<u2"), "r", HEADER_BYTES, (count,)) if count else np.zeros(0, np.uint16)
        object.__setattr__(self, "tokens", count)
        object.__setattr__(self, "values", values)

    def check_vocabulary(self, vocab_size: int) -> None:
        """Refuse the shard if it holds an id outside ``[0, vocab_size)``; reads the whole file."""
        check_vocabulary(self.values, vocab_size, str(self.path))


def read_header(path: Path) -> int:
    """The token count of a shard file, after every check of the format.

    Raises:
        DataError: see `Shard`.
    """
    try:
        size = path.stat().st_size
        with open(path, "rb") as file:
            header = file.read(HEADER_BYTES)
    except OSError as error:
        raise DataError(f"shard {path} cannot be read ({error.strerror}); check the path or build the data again") from None
    if len(header) < HEADER_BYTES:
        raise DataError(f"shard {path} has {size} bytes, less than its header of {HEADER_BYTES}; copy or build it again")
    magic, version, count = (int(number) for number in np.frombuffer(header, "<i4", count=3))
    if magic != MAGIC:
        raise DataError(f"{path} is not a token shard: magic {magic}, expected {MAGIC}")
    if version != VERSION:
        raise DataError(f"shard {path} has version {version}; this reader knows version {VERSION}")
    if count < 0:
        raise DataError(f"shard {path} says it holds {count} tokens; the count must lie in 0..{MAX_TOKENS}")
    if size != HEADER_BYTES + 2 * count:
        raise DataError(
            f"shard {path} has {size} bytes, but its header says {count} tokens = {HEADER_BYTES + 2 * count} bytes; "
            "it is cut or damaged, copy or build it again"
        )
    return count


def check_vocabulary(tokens: UInt16[np.ndarray, " tokens"], vocab_size: int, where: str) -> None:
    """Refuse token ids outside ``[0, vocab_size)``.

    Raises:
        DataError: names ``where``, the largest id and the limit.
    """
    largest = int(tokens.max()) if len(tokens) else 0
    if largest >= vocab_size:
        raise DataError(
            f"{where} holds token {largest}, but the tokenizer has {vocab_size} pieces; "
            "these shards were made with another tokenizer"
        )


def write_shard(path: Path, values: UInt16[np.ndarray, " tokens"]) -> None:
    """Write tokens or byte counts as one shard file, atomically.

    Raises:
        MachineError: the disk is full or the folder cannot be written.
    """
    assert len(values) <= MAX_TOKENS, "a shard holds at most 2**31 - 1 tokens"
    header = np.zeros(HEADER_BYTES // 4, "<i4")
    header[:3] = MAGIC, VERSION, len(values)
    with atomic_path(path) as partial, open(partial, "wb") as file:
        file.write(header.tobytes())
        file.write(np.ascontiguousarray(values, dtype="<u2").data)


def shard_name(split: Split, index: int, *, sidecar: bool = False, prefix: str = "") -> str:
    """File name of a shard, such as ``train_000003.bin`` or ``val_bytes_000000.bin``."""
    return f"{prefix}{split}{'_bytes' if sidecar else ''}_{index:06d}.bin"


def find_shards(folder: Path, split: Split, *, sidecar: bool = False) -> list[Path]:
    """Paths of the shards of one split in numeric order; tokens and byte sidecars can never be mixed.

    Raises:
        DataError: an index is missing, or names with and without ``fineweb_`` lie in one folder.
    """
    found: dict[int, Path] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        match = _NAME.fullmatch(path.name)
        if match and match["split"] == split and bool(match["sidecar"]) == sidecar:
            index = int(match["index"])
            if index in found:
                raise DataError(f"{folder} holds both {found[index].name} and {path.name}; keep one data set per folder")
            found[index] = path
    missing = sorted(set(range(len(found))) - set(found))
    if missing:
        raise DataError(
            f"{folder} lacks {shard_name(split, missing[0], sidecar=sidecar)} although it has later shards; "
            "the indices must run from 000000 without a gap"
        )
    return [found[index] for index in range(len(found))]


def open_shards(paths: Sequence[Path]) -> list[Shard]:
    """Open and check several shards."""
    return [Shard(path) for path in paths]


class ShardWriter:
    """Cut a stream of tokens and byte costs into shards of exactly ``shard_tokens`` tokens; the last may be short.

    A shard ends in the middle of a document if need be, and its continuation does not start with BOS.
    """

    def __init__(self, folder: Path, split: Split, shard_tokens: int) -> None:
        self._folder, self._size = folder, shard_tokens
        self._split: Split = split
        self._tokens: list[UInt16[np.ndarray, " tokens"]] = []
        self._costs: list[UInt16[np.ndarray, " tokens"]] = []
        self._waiting = 0
        self._count = 0

    def append(self, tokens: UInt16[np.ndarray, " tokens"], costs: UInt16[np.ndarray, " tokens"]) -> None:
        """Add tokens with their byte costs; full shards are written at once."""
        while self._waiting + len(tokens) >= self._size:
            room = self._size - self._waiting
            self._add(tokens[:room], costs[:room])
            self._flush()
            tokens, costs = tokens[room:], costs[room:]
        self._add(tokens, costs)

    def close(self) -> int:
        """Write what is left and return the number of shards."""
        if self._waiting:
            self._flush()
        return self._count

    def _add(self, tokens: UInt16[np.ndarray, " tokens"], costs: UInt16[np.ndarray, " tokens"]) -> None:
        if len(tokens):
            self._tokens.append(tokens)
            self._costs.append(costs)
            self._waiting += len(tokens)

    def _flush(self) -> None:
        write_shard(self._folder / shard_name(self._split, self._count), np.concatenate(self._tokens))
        write_shard(self._folder / shard_name(self._split, self._count, sidecar=True), np.concatenate(self._costs))
        self._tokens, self._costs, self._waiting = [], [], 0
        self._count += 1

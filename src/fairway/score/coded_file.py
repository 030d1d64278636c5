"""The file of coded text, by custom ending in ``.fwc``: what a decoder needs besides the artifact.

One after the other, numbers as LEB128:

- the magic "FWCODED" and the version, one byte 02
- 8 bytes of the artifact's SHA-256; 8 bytes of the SHA-256 of the decoded bytes
- the number of the pass, one byte; the numbers of targets, of documents, of decoded bytes, and of bytes to drop in
  front
- the length, one byte, and the name of the arithmetic (ASCII): torch, device, processor features, threads
- the range coder's words, 4 bytes each, little-endian
- 8 bytes of the SHA-256 of everything before them
"""

import hashlib
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from jaxtyping import UInt32

from fairway.artifact.wire import Cursor, varint
from fairway.base.errors import ArtifactError
from fairway.base.files import sha256_file
from fairway.config import PassName
from fairway.train.machine import Machine

MAGIC = b"FWCODED\x02"
DIGEST = 8
PASSES: tuple[PassName, ...] = get_args(PassName)
MAX_TEXT_BYTES = 1 << 40


@dataclass(frozen=True)
class CodedFile:
    """Coded text with everything that identifies how to read it."""

    artifact: bytes
    """First 8 bytes of the SHA-256 of the artifact."""
    content: bytes
    """First 8 bytes of the SHA-256 of the decoded bytes."""
    pass_name: PassName
    """The predictor, with the settings in the artifact."""
    targets: int
    """Tokens that are coded; token 0 is always the document marker."""
    documents: int
    """Document markers, token 0 included; passes over documents must know when the last one begins."""
    size: int
    """Decoded bytes."""
    dropped: int
    """Bytes at the front of the decoded tokens that are not part of the text: the space that some tokenizers put there."""
    arithmetic: str
    """Where it was coded; distributions are bit-equal only under the same arithmetic."""
    words: UInt32[np.ndarray, " words"]

    def to_bytes(self) -> bytes:
        """The file."""
        arithmetic = self.arithmetic.encode("ascii")
        body = b"".join(
            (
                MAGIC, self.artifact, self.content, bytes([PASSES.index(self.pass_name)]),
                varint(self.targets), varint(self.documents), varint(self.size), varint(self.dropped),
                bytes([len(arithmetic)]), arithmetic, self.words.astype("<u4").tobytes(),
            )
        )  # fmt: skip
        return body + digest(body)

    @property
    def overhead(self) -> int:
        """Bytes of the file that are not the range coder's."""
        return len(self.to_bytes()) - 4 * len(self.words)

    @classmethod
    def from_bytes(cls, data: bytes, name: str) -> "CodedFile":
        """Read a file.

        Raises:
            ArtifactError: it is not coded text, of another version, or any byte of it was changed.
        """
        if data[: len(MAGIC) - 1] != MAGIC[:-1]:
            raise ArtifactError(f"{name} is not coded text: it does not begin with FWCODED; give a file of fairway compress")
        if data[: len(MAGIC)] != MAGIC:
            raise ArtifactError(f"{name} has version {data[len(MAGIC) - 1 : len(MAGIC)].hex()}; this release reads 02")
        if len(data) < len(MAGIC) + DIGEST or digest(data[:-DIGEST]) != data[-DIGEST:]:
            raise ArtifactError(f"{name} was changed or cut short (its checksum does not fit; copy it again")
        cursor = Cursor(data[len(MAGIC) : -DIGEST], "coded text")
        artifact, content, number = cursor.take(DIGEST), cursor.take(DIGEST), cursor.byte()
        targets, documents, size, dropped = cursor.varint(), cursor.varint(), cursor.varint(), cursor.varint()
        arithmetic = cursor.take(cursor.byte())
        words = cursor.rest()
        possible = max(targets, size) <= MAX_TEXT_BYTES and 1 <= documents <= targets + 1
        if number >= len(PASSES) or len(words) % 4 or not possible or not arithmetic.isascii():
            raise ArtifactError(f"{name} has fields that no writer of this version makes; write it again")
        return cls(
            artifact,
            content,
            PASSES[number],
            targets,
            documents,
            size,
            dropped,
            arithmetic.decode("ascii"),
            np.frombuffer(words, "<u4"),
        )


def digest(content: bytes) -> bytes:
    """First 8 bytes of the SHA-256."""
    return hashlib.sha256(content).digest()[:DIGEST]


def identity(artifact: Path) -> bytes:
    """What a coded file says of its artifact: the `digest` of that file's content."""
    return bytes.fromhex(sha256_file(artifact))[:DIGEST]


def arithmetic(machine: Machine) -> str:
    """What decides the last bits of a distribution on this machine."""
    if machine.device.type == "cuda":
        where = f"cuda {torch.version.cuda} {torch.cuda.get_device_name(machine.device)}"
    else:
        where = f"cpu {platform.machine()} {torch.backends.cpu.get_cpu_capability()} {torch.get_num_threads()} threads"
    kind = str(machine.activations).removeprefix("torch.")
    return f"torch {torch.__version__} {where} {kind}"[:255]

"""The pieces of a container between the manifest and the payload bytes: parts of tensors, streams and coder numbers."""

import re
from dataclasses import dataclass
from enum import IntEnum


class Plane(IntEnum):
    """Which array of a tensor a stream carries; the numbers are part of the format."""

    CODES = 0
    SCALES = 1
    VALUES = 2


class Coder(IntEnum):
    """How the payload of a stream is coded; the numbers are part of the format and are never reused."""

    RAW = 0
    """Little-endian elements as they are."""
    BROTLI = 1
    """Brotli of the little-endian elements."""
    BROTLI_PLANES = 2
    """Brotli of the elements' bytes sorted by position: all lowest bytes, then all second bytes, and so on."""
    TABLES = 3
    """The frequency tables of the artifact; only as the first stream."""
    STATIC_CODES = 4
    """Codes of one tensor by ANS under one table, or under one table per group of rows."""
    SPLIT_FLOAT16 = 5
    """float16 by ANS: the high bits of the order-preserving integer under a table, the low bits uniformly."""


@dataclass(frozen=True)
class Part:
    """One array of one tensor.

    Attributes:
        tensor: Position of the tensor in the manifest.
        plane: Which of its arrays.
    """

    tensor: int
    plane: Plane


@dataclass(frozen=True)
class Stream:
    """A coded byte string that decodes to the arrays of its parts, in their order, without any other stream but the tables.

    Attributes:
        coder: How it is coded.
        parameters: Settings of the coder, as its own module defines them.
        parts: What it decodes to; empty for the tables.
        payload: The coded bytes.
    """

    coder: Coder
    parameters: bytes
    parts: tuple[Part, ...]
    payload: bytes


def tensor_class(name: str) -> str:
    """The name with every number replaced by ``*``: the same matrix of all blocks shares a class."""
    return re.sub(r"\d+", "*", name)

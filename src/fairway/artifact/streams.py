"""The pieces of a container between the manifest and the payload bytes: parts of tensors, streams and coder numbers."""

import re
from dataclasses import dataclass
from enum import IntEnum


class Plane(IntEnum):
    """Which array of a tensor a stream carries; the numbers are part of the format."""

    CODES = 0
    """Codes of the ordinary columns."""
    SCALES = 1
    """Row scales of the ordinary columns."""
    VALUES = 2
    """Elements of a plain array."""
    PROTECTED_CODES = 3
    """Codes of the protected columns, side by side."""
    PROTECTED_STEPS = 4
    """What separates the row scales of protected columns from those that follow from the ordinary ones; int16."""
    LEFT_CODES = 5
    """Left factor of a repair."""
    LEFT_SCALES = 6
    """Its scales."""
    RIGHT_CODES = 7
    """Right factor of a repair."""
    RIGHT_SCALES = 8
    """Its scales."""
    COLUMN_SCALES = 9
    """Scales of the columns."""


REPAIR_PLANES = (Plane.LEFT_CODES, Plane.LEFT_SCALES, Plane.RIGHT_CODES, Plane.RIGHT_SCALES)
SCALE_PLANES = (Plane.SCALES, Plane.COLUMN_SCALES)
"""Scales that may lie on a logarithmic grid."""
GRID_PLANES = (Plane.CODES, Plane.PROTECTED_CODES)
"""Codes of a matrix, which share tables between tensors of one width."""
INTEGER_PLANES = (Plane.PROTECTED_STEPS, Plane.LEFT_CODES, Plane.RIGHT_CODES)
"""Small integers with a table of their own."""


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
    STATIC_INTEGERS = 6
    """Integers of 8 or 16 bits by ANS under one table."""
    MIXED_TABLES = 7
    """As the tables, with such among them that follow from a formula."""
    LEVEL_CODES = 8
    """Codes of one tensor by ANS; the level of the row and that of the column, added up, name the table of each."""
    LOCKSTEP_CODES = 9
    """Codes of tensors of one height by ANS, row by row; rows already read name the table of each code."""
    GRID_SCALES = 10
    """float16 powers of two on a grid, by ANS of their exponents."""


TABLE_CODERS = (Coder.TABLES, Coder.MIXED_TABLES)
CODE_CODERS = (Coder.STATIC_CODES, Coder.LEVEL_CODES, Coder.LOCKSTEP_CODES)


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

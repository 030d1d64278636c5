"""Codes on their way into a container, and the bounds that their tables must keep."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int8, Int16, UInt8

from fairway.artifact.records import LARGEST_TRELLIS_CODE, largest_code
from fairway.artifact.shapes import AnyTable
from fairway.artifact.streams import Part, Plane
from fairway.artifact.wire import Cursor, damaged


@dataclass(frozen=True, eq=False)
class CodeTensor:
    """Codes to be packed.

    Attributes:
        index: Position of the tensor in the manifest.
        codes: int8 [rows, columns]; int16 with a trellis.
        bits: Width of the codes.
        kind: Tensors of one kind share a histogram from the start when there are very many tensors.
        plane: Ordinary or protected columns; those of one tensor are packed on their own.
        trellis: States of the trellis whose paths the columns are; 0 without one.
    """

    index: int
    codes: Int8[np.ndarray, "rows columns"] | Int16[np.ndarray, "rows columns"]
    bits: int
    kind: str
    plane: Plane = Plane.CODES
    trellis: int = 0

    @property
    def part(self) -> Part:
        """Where the codes belong."""
        return Part(self.index, self.plane)

    @property
    def grid(self) -> tuple[int, int]:
        """States of the trellis and width of the codes; tensors of one grid may share tables."""
        return (self.trellis, 0) if self.trellis else (0, self.bits)

    @property
    def classes(self) -> int:
        """Tables per context: one for each parity of the state."""
        return 2 if self.trellis else 1

    def symbols(self) -> Int16[np.ndarray, "rows columns"]:
        """What is coded: ``m = code >> 1`` with a trellis, else the code."""
        return self.codes.astype(np.int16) >> 1 if self.trellis else self.codes.astype(np.int16)

    def parities(self) -> UInt8[np.ndarray, "rows columns"] | None:
        """Parity class of every code, which its state implies; None without a trellis."""
        return (self.codes & 1).astype(np.uint8) if self.trellis else None


class Trace:
    """What a reader may note down: the number of the table of every code, and the ideal bits of the maps beside them.

    Args:
        parts: What the stream decodes to.
    """

    def __init__(self, parts: Sequence[Part]) -> None:
        self._parts = parts
        self.numbers: dict[Part, np.ndarray] = {}
        self.map_bits: dict[Part, float] = dict.fromkeys(parts, 0.0)

    def note_codes(self, position: int, numbers: np.ndarray) -> None:
        """Numbers of the tables of the codes of one part, as an array that broadcasts to its shape."""
        self.numbers[self._parts[position]] = numbers

    def note_map(self, position: int, values: np.ndarray, table: AnyTable) -> None:
        """A map that belongs to one part and was read under a table."""
        counts = np.bincount(values, minlength=1)
        self.map_bits[self._parts[position]] += table.table.bits(counts, 0)

    def ideal_bits(self, part: Part, codes: np.ndarray, trellis: int, pool: Sequence[AnyTable]) -> float:
        """Ideal code length of a part under the tables that were used, its maps included."""
        symbols = codes.astype(np.int64) >> 1 if trellis else codes.astype(np.int64)
        low, span = int(symbols.min(initial=0)), int(np.ptp(symbols)) + 1 if symbols.size else 1
        numbers = np.broadcast_to(self.numbers[part], codes.shape)
        known, places = np.unique(numbers, return_inverse=True)
        counts = np.bincount((places.reshape(codes.shape) * span + symbols - low).ravel(), minlength=len(known) * span)
        rows = counts.reshape(len(known), span)
        return self.map_bits[part] + sum(pool[n].table.bits(row, low) for n, row in zip(known.tolist(), rows, strict=True))


def check_tables(tables: Sequence[AnyTable], trellis: int, bits: int, what: str) -> None:
    """Refuse tables that could decode to a code outside the grid; with a trellis they alternate between the parities.

    Raises:
        ArtifactError: with the range of the table and the one that is allowed.
    """
    for position, table in enumerate(tables):
        limit, parity = (LARGEST_TRELLIS_CODE, position & 1) if trellis else (largest_code(bits), 0)
        step = 2 if trellis else 1
        low, high = step * table.low + parity, step * table.high + parity
        if low < -limit or high > limit:
            raise damaged(f"{what} uses a table for [{low}, {high}] where [{-limit}, {limit}] is allowed")


def table_at(cursor: Cursor, pool: Sequence[AnyTable], low: int, high: int, what: str) -> AnyTable:
    """The table whose number comes next, if its symbols lie in [low, high].

    Raises:
        ArtifactError: there is no such table, or it reaches outside.
    """
    index = cursor.varint()
    if index >= len(pool):
        raise damaged(f"{what} uses frequency table {index} of {len(pool)}")
    if pool[index].low < low or pool[index].high > high:
        raise damaged(f"{what} uses a table for [{pool[index].low}, {pool[index].high}] where [{low}, {high}] is allowed")
    return pool[index]


def bank_at(start: int, count: int, pool: Sequence[AnyTable], what: str) -> Sequence[AnyTable]:
    """``count`` tables of the pool from ``start`` on.

    Raises:
        ArtifactError: the pool ends before them.
    """
    if start + count > len(pool):
        raise damaged(f"{what} uses frequency tables {start} to {start + count - 1} of {len(pool)}")
    return pool[start : start + count]

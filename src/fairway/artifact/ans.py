"""Asymmetric numeral systems (arXiv 0902.0271) over integer frequency tables, through constriction's coder.

A payload is one coder state: sections of symbols, each with its own table, decoded in the order they are given here.
The library encodes backwards (a stack), so the sections are pushed in reverse. A table of one symbol costs nothing.
``ans_plain`` is the same coder on Python integers; it defines the format.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Int32, Int64, Integer

from fairway.artifact.frequencies import FrequencyTable, stream
from fairway.artifact.wire import damaged

CHUNK = 1 << 20
"""Symbols per call of the library, which takes 32-bit symbols: bounds the memory, changes no byte."""


def encode_sections(sections: Sequence[tuple[Integer[np.ndarray, "_"], FrequencyTable]]) -> bytes:
    """Code all symbols of all sections into little-endian 32-bit words.

    Args:
        sections: Pairs of symbols and the table that covers them.
    """
    encoder = AnsEncoder()
    for symbols, table in reversed(sections):
        encoder.push(symbols, table)
    return encoder.payload()


class Models:
    """Models of the library, each made when it is first asked for: a bank may hold many tables that no code uses.

    Args:
        tables: Each with its frequencies as ``table``.
    """

    def __init__(self, tables: Sequence[Any]) -> None:
        self._tables = tables
        self._known: dict[int, Any] = {}

    def __len__(self) -> int:
        return len(self._tables)

    def __getitem__(self, index: int) -> Any:
        """The model of a table; None for a table of one symbol, which takes no part."""
        if index not in self._known:
            table = self._tables[index].table
            self._known[index] = table.model if len(table.frequencies) > 1 else None
        return self._known[index]


class AnsEncoder:
    """Collects sections, the last one first, for an encoder that makes them as it goes."""

    def __init__(self) -> None:
        self._coder = stream.stack.AnsCoder()

    def push(self, symbols: Integer[np.ndarray, "_"], table: FrequencyTable) -> None:
        """Put a section before all that were pushed."""
        assert symbols.size == 0 or (table.low <= int(symbols.min()) and int(symbols.max()) <= table.high)
        if len(table.frequencies) == 1:
            return
        for start in reversed(range(0, len(symbols), CHUNK)):
            chunk = symbols[start : start + CHUNK].astype(np.int32)
            chunk -= np.int32(table.low)
            self._coder.encode_reverse(chunk, table.model)

    def push_groups(self, indices: Int32[np.ndarray, "_"], counts: Int64[np.ndarray, "groups"], models: Models) -> None:
        """Put groups of neighbours before all that were pushed.

        Args:
            indices: Symbols of all groups, one group behind the other, each counted from the lowest of its table.
            counts: Length of each group.
            models: Model of each group.
        """
        ends = np.cumsum(counts)
        encode = self._coder.encode_reverse
        for group in np.flatnonzero(counts)[::-1].tolist():
            model = models[group]
            if model is not None:
                encode(indices[ends[group] - counts[group] : ends[group]], model)

    def payload(self) -> bytes:
        """All sections as little-endian 32-bit words."""
        return self._coder.get_compressed().astype("<u4").tobytes()


class AnsDecoder:
    """Takes symbols off a payload of ``encode_sections``, section by section.

    Args:
        payload: The coded words.
        what: Their name in messages.

    Raises:
        ArtifactError: the payload is not a whole number of words or ends in a zero word, which no encoder writes.
    """

    def __init__(self, payload: bytes, what: str) -> None:
        self._what = what
        if len(payload) % 4:
            raise damaged(f"the {what} have {len(payload)} bytes, not a whole number of 4-byte words")
        words = np.frombuffer(payload, "<u4").astype(np.uint32)
        if words.size and words[-1] == 0:
            raise damaged(f"the {what} end in a zero word")
        self._coder = stream.stack.AnsCoder(words)

    def take(self, count: int, table: FrequencyTable) -> Int32[np.ndarray, "_"]:
        """The next ``count`` symbols under ``table``; int32 [count]."""
        out = np.empty(count, np.int32)
        self.take_into(out, table)
        return out

    def take_into(self, out: Integer[np.ndarray, "_"], table: FrequencyTable) -> None:
        """Fill ``out`` with the next symbols under ``table``, whose symbols must fit its type."""
        if len(table.frequencies) == 1:
            out[:] = table.low
            return
        for start in range(0, len(out), CHUNK):
            chunk = out[start : start + CHUNK]
            symbols = self._coder.decode(table.model, len(chunk))
            symbols += np.int32(table.low)
            chunk[:] = symbols

    def take_groups(self, counts: Int64[np.ndarray, "groups"], models: Models) -> Int32[np.ndarray, "_"]:
        """The next groups of symbols, one behind the other, each counted from the lowest of its table.

        Args:
            counts: Length of each group.
            models: Model of each group.
        """
        decode = self._coder.decode
        used = np.flatnonzero(counts)
        pieces = []
        for group, count in zip(used.tolist(), counts[used].tolist(), strict=True):
            model = models[group]
            pieces.append(np.zeros(count, np.int32) if model is None else decode(model, count))
        return np.concatenate(pieces) if pieces else np.zeros(0, np.int32)

    def finish(self) -> None:
        """Check that the payload is used up exactly.

        Raises:
            ArtifactError: data is missing or left over.
        """
        if not self._coder.is_empty():
            raise damaged(f"the {self._what} do not end where their last symbol ends: data is missing or left over")

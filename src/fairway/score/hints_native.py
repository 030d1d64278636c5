"""The native n-gram scan: memory and bookkeeping for the C functions in ``fairway/kernels/ngram_*.c``.

All memory is numpy's. Before each call the tables are made large enough for whatever the call could add, so the C code
neither allocates nor fails.
"""

import ctypes
import math
from collections.abc import Callable
from ctypes import POINTER, Structure, byref, c_double, c_int, c_uint64, c_void_p
from typing import Any

import numpy as np
from jaxtyping import Float64, Int32, UInt16

from fairway.base.errors import DataError, MachineError
from fairway.config import TiltConfig
from fairway.kernels.native import load_native, native_or_none, native_source
from fairway.score.hints_flags import TokenFlags
from fairway.score.hints_tables import WORD_BITS, WORD_COUNT
from fairway.score.hints_words import WITHIN_TABLES, WORDS

BLOCK = 1 << 14
"""Tokens per call of the C code."""
FULLEST = 0.75
"""Largest share of a growing table in use."""
MOST_TOKENS = (1 << 31) - 1
"""Positions of the exact scan have 31 bits."""

FALLBACK = "the n-gram scan runs in plain Python, with the same result some 100 times slower"

_TOKEN, _WITHIN, _WORD = range(3)


class _Pairs(Structure):
    _fields_ = [("pairs", c_void_p), ("bits", c_uint64), ("used", c_uint64)]


class _Rule(Structure):
    _fields_ = [("length", c_uint64), ("minimum_count", c_uint64), ("threshold", c_double)]


class _Strengths(Structure):
    _fields_ = [
        ("strength", c_double),
        ("within_strength", c_double),
        ("word_strength", c_double),
        ("agreement", c_double),
        ("scaled", c_uint64),
    ]


class _Expert(Structure):
    _fields_ = [
        ("slots", c_void_p),
        ("records", c_void_p),
        ("pairs", _Pairs),
        ("bits", c_uint64),
        ("used", c_uint64),
        ("record_count", c_uint64),
        ("rule", _Rule),
        ("kind", c_uint64),
    ]


class _Text(Structure):
    _fields_ = [("text", c_void_p), ("opens", c_void_p), ("boundary", c_void_p), ("floor", c_uint64)]


class _Hashed(Structure):
    _fields_ = [("contexts", c_void_p), ("pairs", _Pairs), ("bits", c_uint64), ("used", c_uint64), ("rule", _Rule)]


class _Table(Structure):
    _fields_ = [("contexts", c_void_p), ("pairs", c_void_p), ("bits", c_uint64), ("rule", _Rule), ("coefficient", c_uint64)]


class _Flags(Structure):
    _fields_ = [("opens", c_void_p), ("boundary", c_void_p)]


class _Words(Structure):
    _fields_ = [
        ("prefix", c_uint64),
        ("prefix_length", c_uint64),
        ("word", c_uint64),
        ("word_open", c_uint64),
        ("words", c_uint64 * WORDS),
        ("complete", c_uint64),
    ]


_GROW = [c_void_p, c_uint64, c_void_p, c_uint64]
_OUT = [c_uint64, c_uint64, c_void_p, c_void_p]

Functions = dict[str, list[Any]]
"""C function -> types of its arguments."""

LIBRARIES: dict[str, tuple[tuple[str, ...], Functions]] = {
    "exact": (
        ("ngram_exact.c", "ngram_pairs.c", "ngram_choose.h", "ngram_tables.h"),
        {
            "ngram_exact": [POINTER(_Text), POINTER(_Expert), c_int, POINTER(_Strengths), *_OUT],
            "ngram_grow_slots": _GROW,
            "ngram_grow_pairs": _GROW,
        },
    ),
    "pr2140": (
        ("ngram_hashed.c", "ngram_pairs.c", "ngram_tables.h"),
        {
            "ngram_hashed": [c_void_p, c_uint64, POINTER(_Hashed), POINTER(_Strengths), *_OUT],
            "ngram_grow_contexts": _GROW,
            "ngram_grow_pairs": _GROW,
        },
    ),
    "pr1557": (
        ("ngram_bounded.c", "ngram_choose.h", "ngram_tables.h"),
        {"ngram_bounded": [c_void_p, POINTER(_Table), c_int, POINTER(_Flags), POINTER(_Words), POINTER(_Strengths), *_OUT]},
    ),
}
"""Sources and functions of each counting: a run compiles what it calls and no more."""


def scan_library(library: tuple[tuple[str, ...], Functions], *, required: bool) -> ctypes.CDLL | None:
    """The compiled scan; without ``required``, None where it cannot be had, after one log line that says why.

    Args:
        library: One of `LIBRARIES`.
        required: Whether plain Python will not do.

    Raises:
        MachineError: it is required and cannot be had.
    """
    names, functions = library
    sources = tuple(native_source(name) for name in names)
    loaded = load_native(sources) if required else native_or_none(sources, FALLBACK)
    if loaded is not None:
        for name, arguments in functions.items():
            getattr(loaded, name).argtypes, getattr(loaded, name).restype = arguments, None
    return loaded


class GrowingTable:
    """A hash table that doubles; rows of zeros are unused."""

    def __init__(self, grow: Callable[..., None], width: int, entries: int) -> None:
        """Args: grow: C function that copies into a larger table; width: 64-bit words of an entry; entries: room at first."""
        self.grow, self.width = grow, width
        self.bits = _bits_for(entries)
        self.rows = zeros((1 << self.bits, width), np.uint64)

    def reserve(self, entries: int) -> None:
        """Make room for ``entries`` in all."""
        if (bits := _bits_for(entries)) > self.bits:
            rows = zeros((1 << bits, self.width), np.uint64)
            self.grow(self.rows.ctypes.data, self.bits, rows.ctypes.data, bits)
            self.rows, self.bits = rows, bits


def _bits_for(entries: int) -> int:
    return max(10, int(entries / FULLEST).bit_length())


def zeros(shape: tuple[int, ...], kind: type[np.generic]) -> np.ndarray:
    """``numpy.zeros``, whose pages cost nothing until they are written.

    Raises:
        MachineError: not enough memory.
    """
    try:
        return np.zeros(shape, kind)
    except MemoryError:
        size = math.prod(shape) * np.dtype(kind).itemsize / 1e9
        raise MachineError(
            f"the n-gram tables need another {size:.1f} GB of memory; score fewer tokens, or fewer context lengths"
        ) from None


def enlarged(old: np.ndarray, rows: int) -> np.ndarray:
    """``old`` with at least ``rows`` rows, at least twice as many as before if that takes a copy."""
    if rows <= len(old):
        return old
    new = zeros((max(rows, 2 * len(old)), *old.shape[1:]), old.dtype.type)
    new[: len(old)] = old
    return new


class NativeScan:
    """The text, and the loop over blocks that all kinds of counting share."""

    def __init__(self, library: ctypes.CDLL, config: TiltConfig) -> None:
        """Args: library: the compiled scan; config: what to count."""
        self.library = library
        self.strengths = _Strengths(
            config.strength,
            config.within_word_strength,
            config.word_start_strength,
            config.agreement,
            config.confidence_scaled,
        )
        self.buffer = np.zeros(1 << 10, np.uint16)
        self.position = 0
        self.floor = 0

    @property
    def text(self) -> UInt16[np.ndarray, " pushed"]:
        """All tokens pushed so far."""
        return self.buffer[: self.position]

    @property
    def memory(self) -> int:
        """Bytes of the tables and the text."""
        return self.buffer.nbytes + sum(table.nbytes for table in self.tables())

    def push(
        self, tokens: UInt16[np.ndarray, " pushed"]
    ) -> tuple[Int32[np.ndarray, " pushed"], Float64[np.ndarray, " pushed"]]:
        """Hint and strength for the token after each pushed one.

        Raises:
            DataError: more than 2^31 - 1 tokens in all.
        """
        end = self.position + len(tokens)
        if end > MOST_TOKENS:
            raise DataError(f"an n-gram scan of {end} tokens exceeds its limit of {MOST_TOKENS}; score the text in parts")
        self.buffer = enlarged(self.buffer, end)
        self.buffer[self.position : end] = tokens
        hints, strengths = np.empty(len(tokens), np.int32), np.empty(len(tokens), np.float64)
        for first in range(0, len(tokens), BLOCK):
            part = slice(first, first + BLOCK)
            self.digest(hints[part], strengths[part])
            self.position += len(hints[part])
        return hints, strengths

    def resume(self, context: UInt16[np.ndarray, " context"]) -> tuple[int, float]:
        """Go on after ``context`` as if the text were that alone, without counting it; the hint for the next token.

        Raises:
            DataError: as for `push`.
        """
        end = self.position + len(context)
        if end > MOST_TOKENS:
            raise DataError(f"an n-gram scan of {end} tokens exceeds its limit of {MOST_TOKENS}; score the text in parts")
        self.buffer = enlarged(self.buffer, end + 1)
        self.buffer[self.position : end] = context
        self.floor, self.position = self.position, end
        hint, strength = np.empty(1, np.int32), np.empty(1, np.float64)
        self.run(0, hint, strength)
        return int(hint[0]), float(strength[0])

    def digest(self, hints: np.ndarray, strengths: np.ndarray) -> None:
        """Digest as many tokens after ``position`` as there are hints to fill in."""
        self.run(len(hints), hints, strengths)

    def run(self, pushed: int, hints: np.ndarray, strengths: np.ndarray) -> None:
        """Call the C code; with nothing pushed it looks up the hint for the token after the text."""
        raise NotImplementedError

    def tables(self) -> list[np.ndarray]:
        """All memory besides the text."""
        raise NotImplementedError

    def _where(self, pushed: int, hints: np.ndarray, strengths: np.ndarray) -> tuple[int, int, int, int]:
        return self.position, pushed, hints.ctypes.data, strengths.ctypes.data


class ExactScan(NativeScan):
    """Contexts compared by their tokens."""

    def __init__(self, library: ctypes.CDLL, config: TiltConfig, flags: TokenFlags | None, targets: int) -> None:
        """Args: library: compiled scan; config: what to count; flags: for word experts; targets: tokens to make room for."""
        super().__init__(library, config)
        rules = [(_TOKEN, _Rule(*rule)) for rule in zip(config.contexts, config.minimum_counts, config.thresholds, strict=True)]
        if flags:
            rules.append((_WITHIN, _Rule(0, 1, config.within_word_threshold)))
            rules.append((_WORD, _Rule(0, WORD_COUNT, config.word_start_threshold)))
        self.flags = flag_bytes(flags)
        self.experts = (_Expert * len(rules))(*(_Expert(kind=kind, rule=rule) for kind, rule in rules))
        self.slots = [GrowingTable(library.ngram_grow_slots, 1, targets) for _ in rules]
        self.pairs = [GrowingTable(library.ngram_grow_pairs, 2, 0) for _ in rules]
        self.records = [zeros((1 << 10, 4), np.uint32) for _ in rules]

    def run(self, pushed: int, hints: np.ndarray, strengths: np.ndarray) -> None:
        """Each token adds at most one slot, one record and two pairs per expert."""
        more = pushed
        for index, expert in enumerate(self.experts):
            self.slots[index].reserve(expert.used + more)
            self.pairs[index].reserve(expert.pairs.used + 2 * more)
            self.records[index] = enlarged(self.records[index], expert.record_count + more)
            expert.slots, expert.bits = self.slots[index].rows.ctypes.data, self.slots[index].bits
            expert.pairs.pairs, expert.pairs.bits = self.pairs[index].rows.ctypes.data, self.pairs[index].bits
            expert.records = self.records[index].ctypes.data
        opens, boundary = addresses(self.flags) or (None, None)
        text = _Text(self.buffer.ctypes.data, opens, boundary, self.floor)
        self.library.ngram_exact(
            byref(text), self.experts, len(self.experts), byref(self.strengths), *self._where(pushed, hints, strengths)
        )

    def tables(self) -> list[np.ndarray]:
        """Slots, pairs and records of every expert."""
        return [*(table.rows for table in (*self.slots, *self.pairs)), *self.records]


class HashedScan(NativeScan):
    """Contexts told apart by the keys of PR #2140."""

    def __init__(self, library: ctypes.CDLL, config: TiltConfig, targets: int) -> None:
        """Args: library: compiled scan; config: what to count; targets: tokens to make room for."""
        super().__init__(library, config)
        rule = _Rule(config.contexts[0], config.minimum_counts[0], config.thresholds[0])
        self.state = _Hashed(rule=rule)
        self.contexts = GrowingTable(library.ngram_grow_contexts, 2, targets)
        self.pairs = GrowingTable(library.ngram_grow_pairs, 2, targets)

    def run(self, pushed: int, hints: np.ndarray, strengths: np.ndarray) -> None:
        """Each token adds at most one context and one pair."""
        state, more = self.state, pushed
        self.contexts.reserve(state.used + more)
        self.pairs.reserve(state.pairs.used + more)
        state.contexts, state.bits = self.contexts.rows.ctypes.data, self.contexts.bits
        state.pairs.pairs, state.pairs.bits = self.pairs.rows.ctypes.data, self.pairs.bits
        self.library.ngram_hashed(
            self.buffer.ctypes.data, self.floor, byref(state), byref(self.strengths), *self._where(pushed, hints, strengths)
        )

    def tables(self) -> list[np.ndarray]:
        """Contexts and pairs."""
        return [self.contexts.rows, self.pairs.rows]


class BoundedScan(NativeScan):
    """Contexts told apart by the keys of PR #1557, in tables of fixed size."""

    def __init__(self, library: ctypes.CDLL, config: TiltConfig, flags: TokenFlags | None, table_bits: int) -> None:
        """Args: library: compiled scan; config: what to count; flags: for word experts; table_bits: size of a token table."""
        super().__init__(library, config)
        rules = [_Rule(*rule) for rule in zip(config.contexts, config.minimum_counts, config.thresholds, strict=True)]
        coefficients = list(config.contexts)
        self.lengths = len(rules)
        self.blocks = [zeros((self.lengths, 2, 1 << table_bits, 2), np.uint64)]
        if flags:
            rules += [_Rule(0, 1, config.within_word_threshold)] * WITHIN_TABLES
            rules.append(_Rule(0, WORD_COUNT, config.word_start_threshold))
            coefficients += [0] * WITHIN_TABLES + [WORDS]
            self.blocks.append(zeros((WITHIN_TABLES + 1, 2, 1 << WORD_BITS, 2), np.uint64))
        tables = [table for block in self.blocks for table in block]
        self.rules = (_Table * len(rules))(
            *(
                _Table(*addresses(tuple(table)), table.shape[1].bit_length() - 1, rule, coefficient)
                for table, rule, coefficient in zip(tables, rules, coefficients, strict=True)
            )
        )
        self.flag_bytes = flag_bytes(flags)
        self.flags = _Flags(*addresses(self.flag_bytes)) if flags else None
        self.words = _Words()

    def run(self, pushed: int, hints: np.ndarray, strengths: np.ndarray) -> None:
        """The tables have the size they have."""
        flags = byref(self.flags) if self.flags else None
        self.library.ngram_bounded(
            self.buffer.ctypes.data, self.rules, self.lengths, flags, byref(self.words), byref(self.strengths),
            *self._where(pushed, hints, strengths),
        )  # fmt: skip

    def tables(self) -> list[np.ndarray]:
        """Contexts and pairs of every expert."""
        return self.blocks


def flag_bytes(flags: TokenFlags | None) -> tuple[np.ndarray, ...]:
    """The flags as the C code reads them, one byte per token id."""
    return (flags.opens.astype(np.uint8), flags.boundary.astype(np.uint8)) if flags else ()


def addresses(arrays: tuple[np.ndarray, ...]) -> tuple[int, ...]:
    """Where arrays begin; the caller keeps them alive."""
    return tuple(array.ctypes.data for array in arrays)

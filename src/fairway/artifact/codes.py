"""All codes of an artifact, each tensor by the coder that needs the fewest bytes for it.

Three models compete on exact code lengths: static tables for tensors and groups of their rows, transmitted levels of rows and
columns, and the running magnitude of each column. Tensors of a trellis are read row by row in any case, because the state of a
column says whether its next code is even, so they have no static model: one level for all is its equal.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from fairway.artifact.ans import AnsEncoder
from fairway.artifact.code_tensors import CodeTensor
from fairway.artifact.entropy import MAX_UNITS, StaticPlan, merge_units, pack_static, plan_static
from fairway.artifact.frequencies import entropy_bits
from fairway.artifact.level_codes import pack_level_codes
from fairway.artifact.levels import (
    Bank,
    Levels,
    bank_bits,
    build_bank,
    code_bits,
    code_lengths,
    fit_bank,
    fit_levels,
    polish,
    rounded,
)
from fairway.artifact.lockstep import (
    MAX_CALLS,
    Keyed,
    Running,
    calls,
    encode_rows,
    keyed,
    level_bases,
    level_parameters,
    running_bases,
    running_parameters,
    running_starts,
)
from fairway.artifact.shapes import SHAPED_BITS, AnyTable, choose_table
from fairway.artifact.streams import Coder, Part, Stream
from fairway.artifact.wire import brotli_pack

WINDOWS = ((6, 4), (8, 5), (10, 6), (12, 6))
"""Windows and priors of the running magnitude that are tried."""
SAMPLE = 1 << 20
WORTH_A_LOOK = 1.0005
MANY, COARSER = 1 << 22, (4, 8, 1024)
"""Below so many codes coarser levels are tried, up to one level for all: the tables weigh more than the fit."""
TOO_FEW = 1 << 10
"""Codes that cannot pay for the tables of a running magnitude."""
RARE = 1e-4
"""Share of the codes in buckets at either end that are joined to the next bucket."""


@dataclass(frozen=True, eq=False)
class LevelPlan:
    """Tensors that share one bank.

    Attributes:
        tensors: Of one grid.
        levels: Of each.
        bank: Tables of all.
        bits: Ideal bits of each tensor with its maps, without the tables.
    """

    tensors: list[CodeTensor]
    levels: dict[Part, Levels]
    bank: Bank
    bits: dict[Part, float]


@dataclass(frozen=True, eq=False)
class RunningPlan:
    """Tensors of one height and grid that are read together.

    Attributes:
        found: Their keys, cut to the buckets of ``settings``.
        settings: Of the running magnitude.
        starts: Of each tensor.
        tables: One per key.
        bits: Ideal bits of each tensor, without the tables.
    """

    found: Keyed
    settings: Running
    starts: list[int]
    tables: list[AnyTable]
    bits: dict[Part, float]


class Pool:
    """The tables of an artifact while it is written."""

    def __init__(self, tables: list[AnyTable]) -> None:
        self._tables = tables
        self._numbers: dict[int, int] = {}

    def number(self, table: AnyTable) -> int:
        """Number of a table, which is put behind the others if it is new."""
        if id(table) not in self._numbers:
            self._numbers[id(table)] = self.bank([table])
        return self._numbers[id(table)]

    def bank(self, tables: Sequence[AnyTable]) -> int:
        """Number of the first of these tables, which are put behind the others."""
        self._tables.extend(tables)
        return len(self._tables) - len(tables)


def pack_codes(tensors: Sequence[CodeTensor], pool: list[AnyTable]) -> list[Stream]:
    """Streams of all codes; the tables that they use are appended to ``pool``."""
    filled = [tensor for tensor in tensors if tensor.codes.size]
    scalars = [tensor for tensor in filled if not tensor.trellis]
    static = plan_static(scalars)
    best: dict[Part, float] = dict(static.bits)
    levelled: list[LevelPlan] = []
    for members in _by(filled, lambda tensor: tensor.grid):
        for plan in plan_levels(members, best):
            levelled.append(plan)
            best |= plan.bits
    running: list[RunningPlan] = []
    for members in _by(filled, lambda tensor: (tensor.grid, len(tensor.codes))):
        for plan in plan_running(members, best):
            if sum(map(_calls, running)) + _calls(plan) <= MAX_CALLS:
                running.append(plan)
    taken = {part for plan in running for part in plan.bits}
    levelled = [left for plan in levelled if (left := _without(plan, taken))]
    taken |= {part for plan in levelled for part in plan.bits}
    return _pack(tensors, plan_static([t for t in scalars if t.part not in taken], static), levelled, running, pool)


def _by(tensors: Sequence[CodeTensor], key: Callable[[CodeTensor], object]) -> list[list[CodeTensor]]:
    groups: dict[object, list[CodeTensor]] = {}
    for tensor in tensors:
        groups.setdefault(key(tensor), []).append(tensor)
    return list(groups.values())


def plan_levels(members: list[CodeTensor], best: Mapping[Part, float]) -> list[LevelPlan]:
    """Levels for those of the tensors of one grid that they make smaller, in one bank or in one per kind of tensor.

    Args:
        members: Filled tensors.
        best: Bits of those that another coder can hold.
    """
    levels = {tensor.part: fit_levels(tensor) for tensor in members}
    kinds = _by(members, lambda tensor: tensor.kind)
    options = [[_level_plan(members, levels)]]
    if 1 < len(kinds) < len(members):
        options.append([_level_plan(kind, levels) for kind in kinds])
    if sum(tensor.codes.size for tensor in members) < MANY:
        options += [[_finished(members, {part: rounded(own, step) for part, own in levels.items()})] for step in COARSER]
    plans = min(options, key=lambda plans: sum(map(_total, plans)))
    winners = []
    for plan in plans:
        losers = {part for part, bits in plan.bits.items() if part in best and best[part] <= bits}
        kept = _without(plan, losers)
        saved = sum(best[part] - bits for part, bits in kept.bits.items() if part in best) if kept else 0.0
        if kept and (saved > kept.bank.bits or kept.tensors[0].trellis):
            winners.append(kept)
    return winners


def _level_plan(members: list[CodeTensor], known: Mapping[Part, Levels]) -> LevelPlan:
    bank = build_bank(members, [known[tensor.part] for tensor in members])
    levels = {tensor.part: polish(tensor, known[tensor.part], bank) for tensor in members}
    return _finished(members, levels)


def _finished(members: list[CodeTensor], levels: dict[Part, Levels]) -> LevelPlan:
    bank = build_bank(members, [levels[tensor.part] for tensor in members])
    bits = {t.part: code_bits(t, levels[t.part], bank) + levels[t.part].map_bits() for t in members}
    return LevelPlan(members, levels, bank, bits)


def _total(plan: LevelPlan) -> float:
    return sum(plan.bits.values()) + plan.bank.bits


def _without(plan: LevelPlan, parts: set[Part]) -> LevelPlan | None:
    """The plan for the tensors that are not in ``parts``, with a bank of their own; None for no tensor."""
    left = [tensor for tensor in plan.tensors if tensor.part not in parts]
    if not left:
        return None
    return (
        plan if len(left) == len(plan.tensors) else _finished(left, {tensor.part: plan.levels[tensor.part] for tensor in left})
    )


def plan_running(members: list[CodeTensor], best: Mapping[Part, float]) -> list[RunningPlan]:
    """Running magnitudes for those tensors of one height that they make smaller, in one stream or in one per kind.

    Args:
        members: Filled tensors of one grid.
        best: Bits of all of them under other coders.
    """
    elements = sum(tensor.codes.size for tensor in members)
    if elements < TOO_FEW:
        return []
    settings, rate = _sampled(members)
    if rate * elements > WORTH_A_LOOK * sum(best[tensor.part] for tensor in members):
        return []
    kinds = _by(members, lambda tensor: tensor.kind)
    together = [fit_running(members, settings)]
    apart = [fit_running(kind, settings) for kind in kinds] if 1 < len(kinds) < len(members) else together
    winners = []
    for plan in min(together, apart, key=lambda plans: sum(sum(p.bits.values()) + bank_bits(p.tables) for p in plans)):
        kept = [tensor for tensor in plan.found.tensors if plan.bits[tensor.part] < best[tensor.part]]
        if not kept:
            continue
        final = plan if len(kept) == len(plan.found.tensors) else fit_running(kept, settings)
        if sum(best[part] - bits for part, bits in final.bits.items()) > bank_bits(final.tables):
            winners.append(final)
    return winners


def _sampled(members: list[CodeTensor]) -> tuple[Running, float]:
    """The best settings on some of the columns, and their bits per code there."""
    stride = max(1, sum(tensor.codes.size for tensor in members) // SAMPLE)
    sample = [replace(tensor, codes=tensor.codes[:, ::stride]) for tensor in members]
    starts, low, span = running_starts(members), *_symbol_range(sample)
    size = sum(tensor.codes.size for tensor in sample)

    def rate(settings: Running) -> tuple[float, Running]:
        counts = keyed(sample, running_bases(sample, settings, starts)).counts(low, span)
        return float(np.sum(entropy_bits(counts)) + SHAPED_BITS * np.count_nonzero(counts.any(axis=1))) / size, settings

    found = [rate(Running(window, prior, above=False)) for window, prior in WINDOWS]
    found.append(rate(replace(min(found, key=lambda pair: pair[0])[1], above=True)))
    bits, settings = min(found, key=lambda pair: pair[0])
    return settings, bits


def _symbol_range(members: Sequence[CodeTensor]) -> tuple[int, int]:
    low = min(int(tensor.codes.min()) for tensor in members) // members[0].classes
    return low, max(int(tensor.codes.max()) for tensor in members) // members[0].classes - low + 1


def fit_running(members: list[CodeTensor], settings: Running) -> RunningPlan:
    """Keys, tables and ideal bits of tensors of one height and grid under these settings, all buckets open."""
    starts, low, span = running_starts(members), *_symbol_range(members)
    found = keyed(members, running_bases(members, settings, starts))
    settings, found = _cut(found, settings)
    counts = found.counts(low, span)
    # The last bucket may lack codes of a class or parity, which have a table all the same.
    missing = settings.bases * members[0].classes - len(counts)
    tables = fit_bank(np.pad(counts, ((0, missing), (0, 0))), low, members[0].classes)
    lengths = code_lengths(tables, low, span)
    ends = np.cumsum([0, *(tensor.codes.shape[1] for tensor in members)])
    bits = {}
    for tensor, start, stop in zip(members, ends[:-1], ends[1:], strict=True):
        own = found.counts(low, span, slice(start, stop))
        bits[tensor.part] = float(np.sum(own * lengths[: len(own)]))
    return RunningPlan(found, settings, starts, tables, bits)


def _cut(found: Keyed, settings: Running) -> tuple[Running, Keyed]:
    """Settings with the buckets that matter, and the keys under them."""
    inner = found.tensors[0].classes * (3 if settings.above else 1)
    counts = np.cumsum(np.bincount(found.keys.ravel() // inner))
    first = int(np.searchsorted(counts, RARE * counts[-1], side="right"))
    last = max(first, int(np.searchsorted(counts, (1 - RARE) * counts[-1])))
    keys = np.arange((len(counts)) * inner)
    buckets = np.clip(keys // inner, first, last) - first
    return (
        replace(settings, first=settings.first + first, buckets=last - first + 1),
        replace(found, keys=(buckets * inner + keys % inner).astype(np.uint16)[found.keys]),
    )


def _pack(
    tensors: Sequence[CodeTensor],
    static: StaticPlan,
    levelled: Sequence[LevelPlan],
    running: Sequence[RunningPlan],
    tables: list[AnyTable],
) -> list[Stream]:
    pool = Pool(tables)
    budget = MAX_CALLS - sum(_calls(plan) for plan in running)
    streams = [pack_running(plan, pool) for plan in running]
    maps = _share_maps(levelled)
    for plan in levelled:
        start = pool.bank(plan.bank.tables)
        for members in _by(plan.tensors, lambda tensor: (len(tensor.codes), 0 if tensor.trellis else tensor.part)):
            if not members[0].trellis:
                streams.append(_pack_levelled(members[0], plan, start, maps, pool, tables))
                continue
            needed = calls(len(members[0].codes), sum(t.codes.shape[1] for t in members), len(plan.bank.tables))
            if needed <= budget:
                budget -= needed
                streams.append(_pack_walked(members, plan, start, maps, pool))
    done = {part for stream in streams for part in stream.parts}
    streams += [_pack_alone(tensor, static, pool) for tensor in tensors if tensor.part not in done]
    return sorted(streams, key=lambda stream: (stream.coder is Coder.LOCKSTEP_CODES, stream.parts[0].tensor))


def _calls(plan: RunningPlan) -> int:
    rows, columns = plan.found.keys.shape
    return calls(rows, columns, len(plan.tables))


def _encoded(found: Keyed, tables: Sequence[AnyTable], maps: Sequence[tuple[np.ndarray, AnyTable]] = ()) -> bytes:
    """Payload of a stream: the maps of its tensors, then its rows."""
    encoder = AnsEncoder()
    encode_rows(encoder, found, tables)
    for values, table in reversed(maps):
        encoder.push(values, table.table)
    return encoder.payload()


def pack_running(plan: RunningPlan, pool: Pool) -> Stream:
    """The stream of a plan; its tables go into the pool."""
    parameters = running_parameters(pool.bank(plan.tables), plan.settings, plan.starts)
    parts = tuple(tensor.part for tensor in plan.found.tensors)
    return Stream(Coder.LOCKSTEP_CODES, parameters, parts, _encoded(plan.found, plan.tables))


Maps = Mapping[Part, tuple[AnyTable | None, AnyTable | None]]


def _numbers(tensor: CodeTensor, maps: Maps, pool: Pool) -> tuple[int | None, int | None]:
    rows, columns = (None if table is None else pool.number(table) for table in maps[tensor.part])
    return rows, columns


def _pack_levelled(
    tensor: CodeTensor, plan: LevelPlan, start: int, maps: Maps, pool: Pool, tables: Sequence[AnyTable]
) -> Stream:
    levels = plan.levels[tensor.part]
    first = start + levels.lowest - plan.bank.first
    return pack_level_codes(tensor, levels, first, _numbers(tensor, maps, pool), tables)


def _pack_walked(members: list[CodeTensor], plan: LevelPlan, start: int, maps: Maps, pool: Pool) -> Stream:
    levels = [plan.levels[tensor.part] for tensor in members]
    firsts = [own.lowest - plan.bank.first for own in levels]
    base = min(firsts)
    firsts = [first - base for first in firsts]
    found = keyed(members, level_bases(levels, firsts))
    numbers = [_numbers(tensor, maps, pool) for tensor in members]
    parameters = level_parameters(start + base * members[0].classes, firsts, numbers)
    coded = [
        pair
        for tensor, own in zip(members, levels, strict=True)
        for pair in zip(own.from_zero(), maps[tensor.part], strict=True)
    ]
    payload = _encoded(
        found, plan.bank.tables[base * members[0].classes :], [(values, table) for values, table in coded if table is not None]
    )
    return Stream(Coder.LOCKSTEP_CODES, parameters, tuple(tensor.part for tensor in members), payload)


def _pack_alone(tensor: CodeTensor, static: StaticPlan, pool: Pool) -> Stream:
    """A tensor that no walk may hold: too long for one, or empty."""
    if not tensor.trellis:
        return pack_static(tensor, static, pool.number)
    return Stream(Coder.BROTLI, b"", (tensor.part,), brotli_pack(tensor.codes.astype("<i2").tobytes()))


def _share_maps(plans: Sequence[LevelPlan]) -> dict[Part, tuple[AnyTable | None, AnyTable | None]]:
    """Tables for the levels of rows and of columns, shared where that saves bytes; None where all levels are the same."""
    values = [
        (part, side, own)
        for plan in plans
        for part, levels in plan.levels.items()
        for side, own in enumerate(levels.from_zero())
    ]
    moving = [(part, side, own) for part, side, own in values if own.any()]
    tables: dict[tuple[Part, int], AnyTable] = {}
    if moving:
        longest = max(int(own.max()) for _, _, own in moving) + 1
        counts = np.stack([np.bincount(own, minlength=longest) for _, _, own in moving])
        labels = merge_units(counts) if len(counts) <= MAX_UNITS else np.zeros(len(counts), np.int64)
        shared = [choose_table(counts[labels == label].sum(axis=0), 0) for label in range(int(labels.max()) + 1)]
        tables = {(part, side): shared[label] for (part, side, _), label in zip(moving, labels.tolist(), strict=True)}
    return {part: (tables.get((part, 0)), tables.get((part, 1))) for plan in plans for part in plan.levels}

"""Integer codes through ANS with explicit integer tables, shared between tensors wherever sharing costs fewer bytes.

Each tensor starts with its own histogram, or with one per group of similar rows where that saves more than the map of
rows costs. Then the two histograms whose union saves most bytes (one table less against a worse fit) are merged again
and again. One table per tensor, per class of tensors, for all of them, and per group of rows are all reachable ends of
this walk, so the measured size decides between them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int8, Int64, UInt8

from fairway.artifact.ans import AnsDecoder, encode_sections
from fairway.artifact.code_tensors import CodeTensor, Trace, table_at
from fairway.artifact.frequencies import entropy_bits
from fairway.artifact.records import largest_code
from fairway.artifact.shapes import AnyTable, choose_table, table_cost
from fairway.artifact.streams import Coder, Part, Stream
from fairway.artifact.wire import Cursor, damaged, varint

ROW_GROUPS = (2, 4, 8)
REFINEMENTS = 4
MAX_UNITS = 1024
TABLE_BITS, TABLE_BITS_PER_SYMBOL = 40.0, 5.0


@dataclass(frozen=True, eq=False)
class Unit:
    """Codes that certainly share a table: a tensor, or one group of its rows. ``counts[i]`` counts the code ``i - c``."""

    part: Part
    bits: int
    kind: str
    counts: Int64[np.ndarray, "symbols"]


def row_histograms(codes: Int8[np.ndarray, "rows columns"], bits: int) -> Int64[np.ndarray, "rows symbols"]:
    """How often each code from -c to c occurs in each row."""
    limit = largest_code(bits)
    symbols = 2 * limit + 1
    flat = codes.astype(np.int64)
    flat += np.arange(len(codes))[:, None] * symbols + limit
    return np.bincount(flat.ravel(), minlength=len(codes) * symbols).reshape(len(codes), symbols)


def code_histograms(codes: Int8[np.ndarray, "rows columns"], bits: int) -> Int64[np.ndarray, "groups symbols"]:
    """Histograms of the rows; one histogram of all codes where rows are too short to differ by more than their noise."""
    if 4 * codes.shape[1] >= 2 * largest_code(bits) + 1:
        return row_histograms(codes, bits)
    return row_histograms(codes.reshape(1, -1), bits)


def split_rows(histograms: Int64[np.ndarray, "rows symbols"]) -> UInt8[np.ndarray, "rows"] | None:
    """Groups of similar rows, or None where one table for all rows is smaller.

    Starts from equal groups by mean magnitude and reassigns each row to the group that codes it in the fewest bits.
    """
    rows, symbols = histograms.shape
    if rows < 2 * ROW_GROUPS[0]:
        return None
    magnitudes = histograms @ np.abs(np.arange(symbols) - symbols // 2)
    order = np.argsort(magnitudes, kind="stable")
    best, best_bits = None, model_bits(histograms.sum(axis=0)[None])
    for groups in ROW_GROUPS:
        assignment = np.empty(rows, np.int64)
        assignment[order] = np.arange(rows) * groups // rows
        for _ in range(REFINEMENTS):
            summed = _group_sums(histograms, assignment, groups)
            assignment = np.argmin(histograms @ _code_lengths(summed).T, axis=1)
        map_counts = np.bincount(assignment, minlength=groups)
        bits = model_bits(_group_sums(histograms, assignment, groups)) + model_bits(map_counts[None])
        if bits < best_bits:
            best, best_bits = assignment, bits
    if best is None:
        return None
    return np.unique(best, return_inverse=True)[1].astype(np.uint8)


def _group_sums(
    histograms: Int64[np.ndarray, "rows symbols"], assignment: Int64[np.ndarray, "rows"], groups: int
) -> Int64[np.ndarray, "groups symbols"]:
    return np.stack([histograms[assignment == group].sum(axis=0) for group in range(groups)])


def _code_lengths(counts: Int64[np.ndarray, "groups symbols"]) -> np.ndarray:
    smoothed = counts + 1 / 16
    return np.log2(smoothed.sum(axis=1, keepdims=True)) - np.log2(smoothed)


def model_bits(counts: Int64[np.ndarray, "groups symbols"]) -> float:
    """Estimated bits of all counted symbols under one ideal table per row of ``counts``, the tables included."""
    return float(np.sum(_unit_bits(counts)))


def _unit_bits(counts: Int64[np.ndarray, "groups symbols"]) -> np.ndarray:
    used = np.count_nonzero(counts, axis=-1)
    return entropy_bits(counts) + np.where(used > 0, TABLE_BITS + TABLE_BITS_PER_SYMBOL * used, 0.0)


def merge_units(counts: Int64[np.ndarray, "units symbols"]) -> Int64[np.ndarray, "units"]:
    """Cluster number of every unit after merging, pair by pair, while a merge saves bits."""
    units = len(counts)
    merged, costs = counts.copy(), _unit_bits(counts)
    owner, alive = np.arange(units), np.ones(units, bool)
    savings = np.full((units, units), -np.inf)
    for first in range(units - 1):
        rest = slice(first + 1, units)
        savings[first, rest] = costs[first] + costs[rest] - _unit_bits(merged[first] + merged[rest])
    while True:
        first, second = np.unravel_index(int(np.argmax(savings)), savings.shape)
        if not savings[first, second] > 0:
            return np.unique(owner, return_inverse=True)[1].astype(np.int64)
        merged[first] += merged[second]
        costs[first] = _unit_bits(merged[first : first + 1])[0]
        owner[owner == second] = first
        alive[second] = False
        savings[second, :] = savings[:, second] = -np.inf
        fresh = np.where(alive, costs[first] + costs - _unit_bits(merged[first] + merged), -np.inf)
        savings[first, first + 1 :] = fresh[first + 1 :]
        savings[:first, first] = fresh[:first]


@dataclass(frozen=True, eq=False)
class StaticPlan:
    """How tensors are coded under tables that depend on the row alone.

    Attributes:
        assignments: Group of every row of each tensor; None for one group.
        tables: Table of each group of each tensor.
        bits: Ideal bits of each tensor with its map, without the tables.
        table_bits: Estimate of what all tables cost in the file.
    """

    assignments: dict[Part, UInt8[np.ndarray, "rows"] | None]
    tables: dict[Part, list[AnyTable]]
    bits: dict[Part, float]
    table_bits: float


def plan_static(tensors: Sequence[CodeTensor], known: StaticPlan | None = None) -> StaticPlan:
    """Groups of rows and shared tables for filled tensors without a trellis.

    Args:
        tensors: The tensors.
        known: A plan for more of them, whose groups are kept.
    """
    units: list[Unit] = []
    groups: dict[Part, UInt8[np.ndarray, "rows"] | None] = {}
    for tensor in tensors:
        histograms = code_histograms(tensor.codes, tensor.bits)
        assignment = split_rows(histograms) if known is None else known.assignments[tensor.part]
        groups[tensor.part] = assignment
        masks = [slice(None)] if assignment is None else [assignment == group for group in range(int(assignment.max()) + 1)]
        units += [Unit(tensor.part, tensor.bits, tensor.kind, histograms[mask].sum(axis=0)) for mask in masks]
    shared, table_bits = _share_tables(units)
    tables: dict[Part, list[AnyTable]] = {tensor.part: [] for tensor in tensors}
    bits = dict.fromkeys(tables, 0.0)
    for unit, table in zip(units, shared, strict=True):
        tables[unit.part].append(table)
        bits[unit.part] += table.table.bits(unit.counts, -largest_code(unit.bits))
    for part, assignment in groups.items():
        bits[part] += 0.0 if assignment is None else model_bits(np.bincount(assignment)[None])
    return StaticPlan(groups, tables, bits, table_bits)


def _share_tables(units: Sequence[Unit]) -> tuple[list[AnyTable], float]:
    """Table of every unit, and an estimate of the bits of all of them."""
    found: list[AnyTable | None] = [None] * len(units)
    table_bits = 0.0
    for bits in sorted({unit.bits for unit in units}):
        members = [position for position, unit in enumerate(units) if unit.bits == bits]
        labels = np.arange(len(members))
        if len(members) > MAX_UNITS:
            labels = np.unique([units[position].kind for position in members], return_inverse=True)[1]
            labels = labels if int(labels.max()) < MAX_UNITS else np.zeros(len(members), np.int64)
        counts = np.stack([units[position].counts for position in members])
        starts = _group_sums(counts, labels, int(labels.max()) + 1)
        clusters = merge_units(starts)[labels]
        for cluster in range(int(clusters.max()) + 1):
            table = choose_table(counts[clusters == cluster].sum(axis=0), -largest_code(bits), 0)
            table_bits += table_cost(table)
            for position in np.array(members)[clusters == cluster]:
                found[int(position)] = table
    return [table for table in found if table is not None], table_bits


def pack_static(tensor: CodeTensor, plan: StaticPlan, number: Callable[[AnyTable], int]) -> Stream:
    """The stream of one tensor of a plan.

    Args:
        tensor: Codes without a trellis.
        plan: A plan that holds the tensor, or any plan if it is empty.
        number: Puts a table into the pool, if it is new, and returns its number.
    """
    parts = (tensor.part,)
    if tensor.codes.size == 0:
        return Stream(Coder.STATIC_CODES, varint(0), parts, b"")
    tables, assignment = plan.tables[tensor.part], plan.assignments[tensor.part]
    if assignment is None:
        payload = encode_sections([(tensor.codes.ravel(), tables[0].table)])
        return Stream(Coder.STATIC_CODES, varint(1) + varint(number(tables[0])), parts, payload)
    rows = choose_table(np.bincount(assignment), 0)
    sections = [(assignment, rows.table)]
    sections += [(tensor.codes[assignment == group].ravel(), table.table) for group, table in enumerate(tables)]
    parameters = varint(len(tables)) + varint(number(rows)) + b"".join(varint(number(table)) for table in tables)
    return Stream(Coder.STATIC_CODES, parameters, parts, encode_sections(sections))


def unpack_static(
    stream: Stream, shape: tuple[int, ...], bits: int, pool: Sequence[AnyTable], what: str, trace: Trace | None = None
) -> Int8[np.ndarray, "rows columns"]:
    """Codes of one tensor; its tables cannot produce a code outside [-c, c].

    Args:
        stream: Its parameters are the number of row groups (0 for an empty tensor), the table of the map if there are several,
            the table of each group; its payload the map of the rows, then the codes of each group in row order.
        shape: Rows and columns, checked against the caps before.
        bits: Width of the codes.
        pool: Tables of the artifact.
        what: Name of the tensor in messages.
        trace: Notes which table each code had.

    Raises:
        ArtifactError: a table is missing or reaches outside the range, or data is missing or left over.
    """
    cursor = Cursor(stream.parameters, f"parameters of {what}")
    count = cursor.varint()
    if count > ROW_GROUPS[-1] or (count == 0) != (0 in shape):
        raise damaged(f"{what} of shape {shape} has {count} groups of rows")
    row_table = table_at(cursor, pool, 0, count - 1, what) if count > 1 else None
    limit = largest_code(bits)
    tables = [table_at(cursor, pool, -limit, limit, what) for _ in range(count)]
    cursor.finish()
    decoder = AnsDecoder(stream.payload, f"codes of {what}")
    codes, assignment = np.empty(shape, np.int8), None
    if row_table is None:
        for stored in tables:
            decoder.take_into(codes.reshape(-1), stored.table)
    else:
        assignment = decoder.take(shape[0], row_table.table)
        for group, stored in enumerate(tables):
            chosen = assignment == group
            codes[chosen] = decoder.take(int(chosen.sum()) * shape[1], stored.table).reshape(-1, shape[1])
    decoder.finish()
    if trace is not None:
        _note(trace, tables, pool, assignment, row_table)
    return codes


def _note(
    trace: Trace, tables: list[AnyTable], pool: Sequence[AnyTable], groups: np.ndarray | None, row_table: AnyTable | None
) -> None:
    places = {id(table): number for number, table in enumerate(pool)}
    numbers = np.array([places[id(table)] for table in tables] or [0])
    trace.note_codes(0, numbers[:1] if groups is None else numbers[groups][:, None])
    if groups is not None and row_table is not None:
        trace.note_map(0, groups, row_table)

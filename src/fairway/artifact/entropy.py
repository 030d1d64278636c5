"""Integer codes through ANS with explicit integer tables, shared between tensors wherever sharing costs fewer bytes.

Each tensor starts with its own histogram, or with one per group of similar rows where that saves more than the map of
rows costs. Then the two histograms whose union saves most bytes (one table less against a worse fit) are merged again
and again. One table per tensor, per class of tensors, for all of them, and per group of rows are all reachable ends of
this walk, so the measured size decides between them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int8, Int64, UInt8

from fairway.artifact.ans import AnsDecoder, encode_sections
from fairway.artifact.frequencies import entropy_bits
from fairway.artifact.records import largest_code
from fairway.artifact.streams import Coder, Part, Plane, Stream
from fairway.artifact.tables import StoredTable, fit_table
from fairway.artifact.wire import Cursor, damaged, varint

ROW_GROUPS = (2, 4, 8)
REFINEMENTS = 4
MAX_UNITS = 1024
TABLE_BITS, TABLE_BITS_PER_SYMBOL = 40.0, 5.0


@dataclass(frozen=True, eq=False)
class CodeTensor:
    """Codes to be packed.

    Attributes:
        index: Position of the tensor in the manifest.
        codes: int8 [rows, columns].
        bits: Width of the codes.
        kind: Tensors of one kind share a histogram from the start when there are very many tensors.
        plane: Ordinary or protected columns; those of one tensor are packed on their own.
    """

    index: int
    codes: Int8[np.ndarray, "rows columns"]
    bits: int
    kind: str
    plane: Plane = Plane.CODES

    @property
    def part(self) -> Part:
        """Where the codes belong."""
        return Part(self.index, self.plane)


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


def pack_codes(tensors: Sequence[CodeTensor], pool: list[StoredTable]) -> list[Stream]:
    """One stream per tensor; the tables that they use are appended to ``pool``."""
    units: list[Unit] = []
    groups: dict[Part, UInt8[np.ndarray, "rows"] | None] = {}
    for tensor in tensors:
        histograms = code_histograms(tensor.codes, tensor.bits)
        assignment = groups[tensor.part] = split_rows(histograms) if tensor.codes.size else None
        masks = [slice(None)] if assignment is None else [assignment == group for group in range(int(assignment.max()) + 1)]
        units += [Unit(tensor.part, tensor.bits, tensor.kind, histograms[mask].sum(axis=0)) for mask in masks]
    table_of = _share_tables(units, pool)
    streams = []
    for tensor in tensors:
        ids = [table_of[position] for position, unit in enumerate(units) if unit.part == tensor.part]
        streams.append(_pack_tensor(tensor, groups[tensor.part], ids, pool))
    return streams


def _share_tables(units: Sequence[Unit], pool: list[StoredTable]) -> list[int]:
    table_of = [-1] * len(units)
    for bits in sorted({unit.bits for unit in units}):
        members = [position for position, unit in enumerate(units) if unit.bits == bits and unit.counts.any()]
        if not members:
            continue
        labels = np.arange(len(members))
        if len(members) > MAX_UNITS:
            labels = np.unique([units[position].kind for position in members], return_inverse=True)[1]
            labels = labels if int(labels.max()) < MAX_UNITS else np.zeros(len(members), np.int64)
        counts = np.stack([units[position].counts for position in members])
        starts = _group_sums(counts, labels, int(labels.max()) + 1)
        clusters = merge_units(starts)[labels]
        for cluster in range(int(clusters.max()) + 1):
            pool.append(fit_table(counts[clusters == cluster].sum(axis=0), -largest_code(bits)))
            for position in np.array(members)[clusters == cluster]:
                table_of[int(position)] = len(pool) - 1
    return table_of


def _pack_tensor(
    tensor: CodeTensor, assignment: UInt8[np.ndarray, "rows"] | None, ids: list[int], pool: list[StoredTable]
) -> Stream:
    parts = (tensor.part,)
    if tensor.codes.size == 0:
        return Stream(Coder.STATIC_CODES, varint(0), parts, b"")
    if assignment is None:
        payload = encode_sections([(tensor.codes.ravel(), pool[ids[0]].table)])
        return Stream(Coder.STATIC_CODES, varint(1) + varint(ids[0]), parts, payload)
    pool.append(fit_table(np.bincount(assignment), 0))
    sections = [(assignment, pool[-1].table)]
    sections += [(tensor.codes[assignment == group].ravel(), pool[table].table) for group, table in enumerate(ids)]
    parameters = varint(len(ids)) + varint(len(pool) - 1) + b"".join(varint(table) for table in ids)
    return Stream(Coder.STATIC_CODES, parameters, parts, encode_sections(sections))


def unpack_codes(
    parameters: bytes, payload: bytes, shape: tuple[int, ...], bits: int, pool: Sequence[StoredTable], what: str
) -> Int8[np.ndarray, "rows columns"]:
    """Codes of one tensor; its tables cannot produce a code outside [-c, c].

    Args:
        parameters: Number of row groups (0 for an empty tensor), table of the map if there are several, table per group.
        payload: Words of ``encode_sections``: the map of the rows, then the codes of each group in row order.
        shape: Rows and columns, checked against the caps before.
        bits: Width of the codes.
        pool: Tables of the artifact.
        what: Name of the tensor in messages.

    Raises:
        ArtifactError: a table is missing or reaches outside the range, or data is missing or left over.
    """
    cursor = Cursor(parameters, f"parameters of {what}")
    count = cursor.varint()
    if count > ROW_GROUPS[-1] or (count == 0) != (0 in shape):
        raise damaged(f"{what} of shape {shape} has {count} groups of rows")
    row_table = _table(cursor, pool, 0, count - 1, what) if count > 1 else None
    limit = largest_code(bits)
    tables = [_table(cursor, pool, -limit, limit, what) for _ in range(count)]
    cursor.finish()
    decoder = AnsDecoder(payload, f"codes of {what}")
    codes = np.empty(shape, np.int8)
    if row_table is None:
        for stored in tables:
            decoder.take_into(codes.reshape(-1), stored.table)
    else:
        assignment = decoder.take(shape[0], row_table.table)
        for group, stored in enumerate(tables):
            chosen = assignment == group
            codes[chosen] = decoder.take(int(chosen.sum()) * shape[1], stored.table).reshape(-1, shape[1])
    decoder.finish()
    return codes


def _table(cursor: Cursor, pool: Sequence[StoredTable], low: int, high: int, what: str) -> StoredTable:
    index = cursor.varint()
    if index >= len(pool):
        raise damaged(f"{what} uses frequency table {index} of {len(pool)}")
    if pool[index].low < low or pool[index].high > high:
        raise damaged(f"{what} uses a table for [{pool[index].low}, {pool[index].high}] where [{low}, {high}] is allowed")
    return pool[index]

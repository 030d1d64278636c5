"""The format document as a program: a second reader on Python integers and struct, sharing only ``ans_plain`` and no types.

It follows docs/format.md line by line, trusts its input and is slow; the tests compare the real reader with it.
"""

import hashlib
import json
import struct

import brotli
from plain_lockstep import read_grid_scales, read_level_codes, read_lockstep, read_mixed_tables

from fairway.artifact.ans_plain import decode_plain

TYPES = [("e", 2), ("f", 4), ("d", 8), ("b", 1), ("h", 2), ("i", 4), ("q", 8), ("B", 1), ("H", 2)]


class Bytes:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, count):
        self.at += count
        return self.data[self.at - count : self.at]

    def byte(self):
        return self.take(1)[0]

    def varint(self):
        value = shift = 0
        while True:
            piece = self.byte()
            value |= (piece & 127) << shift
            shift += 7
            if piece < 128:
                return value


def unzigzag(value):
    return value // 2 if value % 2 == 0 else -(value + 1) // 2


def frequencies(weights):
    if not sum(weights):
        weights = [1] * len(weights)
    total = sum(weights)
    result = [1 + weight * (2**24 - len(weights)) // total for weight in weights]
    result[weights.index(max(weights))] += 2**24 - sum(result)
    return result


def words_of(payload):
    return list(struct.unpack(f"<{len(payload) // 4}I", payload))


def read_tables(payload):
    data = Bytes(payload)
    shapes = [(unzigzag(data.varint()), data.varint() + 1, data.byte()) for _ in range(data.varint())]
    order, decay = data.byte(), data.byte()
    weights = [2**20]
    while len(weights) < 2**14:
        weights.append(weights[-1] * decay // 256)
    total = sum(span for _, span, _ in shapes)
    (symbols,), used_up = decode_plain(words_of(data.data[data.at :]), [(total, 0, frequencies(weights))])
    assert used_up
    tables = []
    for low, span, mantissa in shapes:
        levels = [unzigzag(symbol) for symbol in symbols[:span]]
        symbols = symbols[span:]
        for _ in range(order):
            for index in range(1, span):
                levels[index] += levels[index - 1]
        exponents = [max(0, (level >> mantissa) - 1) for level in levels]
        pairs = zip(levels, exponents, strict=True)
        tables.append((low, frequencies([((level - (e << mantissa)) << e) + ((1 << e) >> 1) for level, e in pairs])))
    return tables


def read_codes(parameters, payload, rows, columns, tables):
    data = Bytes(parameters)
    groups = data.varint()
    if groups < 2:
        picked = [tables[data.varint()] for _ in range(groups)]
        sections, used_up = decode_words(payload, [(rows * columns, *table) for table in picked])
        assert used_up
        return [code for section in sections for code in section]
    row_table = tables[data.varint()]
    picked = [tables[data.varint()] for _ in range(groups)]
    (assignment,), _ = decode_words(payload, [(rows, *row_table)])
    sections = [(rows, *row_table)] + [(assignment.count(group) * columns, *table) for group, table in enumerate(picked)]
    (_, *parts), used_up = decode_words(payload, sections)
    assert used_up
    out = []
    for group in assignment:
        out += parts[group][:columns]
        del parts[group][:columns]
    return out


def decode_words(payload, sections):
    return decode_plain(words_of(payload), sections)


def read_values(coder, parameters, payload, letter, width, count, tables):
    if coder == 6:
        (values,), used_up = decode_words(payload, [(count, *tables[Bytes(parameters).varint()])])
        assert used_up
        return struct.pack(f"<{count}{letter}", *values)
    if coder == 5:
        data = Bytes(parameters)
        low_bits, table = data.varint(), tables[data.varint()]
        uniform = [2**24 >> low_bits] * 2**low_bits
        (high, low), used_up = decode_words(payload, [(count, *table), (count, 0, uniform)])
        assert used_up
        keys = [(h << low_bits) | small for h, small in zip(high, low, strict=True)]
        return struct.pack(f"<{count}H", *(key ^ 0x8000 if key & 0x8000 else key ^ 0xFFFF for key in keys))
    raw = payload if coder == 0 else brotli.decompress(payload)
    if coder == 2:
        raw = bytes(raw[position * count + index] for index in range(count) for position in range(width))
    assert len(raw) == count * struct.calcsize(letter)
    return raw


def read_plain(content):
    """Header document, and per tensor a dictionary of its shape, bits and the little-endian bytes of its planes."""
    magic, version, length, packed_document, document_size, packed_manifest, manifest_size, _ = struct.unpack_from(
        "<8sIQIIII16s", content
    )
    assert (magic, version, length) == (b"\x89FWZ\r\n\x1a\n", 1, len(content))
    assert hashlib.blake2b(content[:-16], digest_size=16).digest() == content[-16:]
    document = brotli.decompress(content[52 : 52 + packed_document])
    manifest = brotli.decompress(content[52 + packed_document : 52 + packed_document + packed_manifest])
    assert (len(document), len(manifest)) == (document_size, manifest_size)
    payloads, data = Bytes(content[52 + packed_document + packed_manifest : -16]), Bytes(manifest)
    tensors = []
    for _ in range(data.varint()):
        name = data.take(data.varint()).decode()
        kind, detail = data.byte(), data.byte()
        shape = tuple(data.varint() for _ in range(data.varint()))
        coded = kind != 1
        grid = {"trellis": 0, "gain": b"\x00\x3c", "grid": 0, "columns": 0}
        if kind == 3:
            grid = {"trellis": data.varint(), "gain": data.take(2), "grid": data.varint(), "columns": data.byte()}
        element = TYPES[4 if grid["trellis"] else 3] if coded else TYPES[detail]
        tensors.append(
            {"name": name, "bits": detail if coded else 0, "type": element, "shape": shape}
            | grid
            | (read_parts(data) if kind > 1 else {"starts": [], "rank": 0})
        )
    tables = []
    for _ in range(data.varint()):
        coder, parameters = data.byte(), data.take(data.varint())
        parts = [(data.varint(), data.byte()) for _ in range(data.varint())]
        payload = payloads.take(data.varint())
        if coder in (3, 7):
            tables = read_tables(payload) if coder == 3 else read_mixed_tables(Bytes, payload, read_tables, frequencies)
            continue
        sizes = [product(shape_of(tensors[index], plane)) for index, plane in parts]
        index, plane = parts[0]
        letter, width = type_of(tensors[index], plane)
        shapes = [shape_of(tensors[part], own) for part, own in parts]
        if coder in (4, 8, 9):
            fields = Bytes(parameters)
            if coder == 4:
                codes = read_codes(parameters, payload, *shapes[0], tables)
            elif coder == 8:
                codes = read_level_codes(fields, words_of(payload), *shapes[0], tables)
            else:
                widths = [columns for _, columns in shapes]
                codes = read_lockstep(fields, words_of(payload), shapes[0][0], widths, tensors[index]["trellis"], tables)
            raw = struct.pack(f"<{len(codes)}{letter}", *codes)
        elif coder == 10:
            raw = read_grid_scales(Bytes(parameters), words_of(payload), sum(sizes), tensors[index]["grid"], tables)
        else:
            raw = read_values(coder, parameters, payload, letter, width, sum(sizes), tables)
        for (index, plane), size in zip(parts, sizes, strict=True):
            tensors[index][plane], raw = raw[: size * width], raw[size * width :]
    return json.loads(document), tensors


def read_parts(data):
    parts = {"high": data.varint(), "starts": [], "size": 0}
    if parts["high"]:
        parts["size"], end = data.varint(), 0
        for _ in range(data.varint()):
            parts["starts"].append(end + data.varint())
            end = parts["starts"][-1] + parts["size"]
    parts["rank"] = data.varint()
    parts["runs"] = (data.varint(), data.varint()) if parts["rank"] else ()
    return parts


def shape_of(tensor, plane):
    if plane == 2 or not tensor["bits"]:
        return tensor["shape"]
    rows, columns = tensor["shape"]
    finer = len(tensor["starts"]) * tensor.get("size", 0)
    shapes = {0: (rows, columns - finer), 1: (rows,), 3: (rows, finer), 4: (rows,), 9: (columns,)}
    if tensor["rank"]:
        left, right = tensor["runs"]
        shapes |= {5: (rows, tensor["rank"]), 6: (left,), 7: (tensor["rank"], columns), 8: (right,)}
    return shapes[plane]


def type_of(tensor, plane):
    return TYPES[0] if plane in (1, 6, 8, 9) else TYPES[4] if plane == 4 else TYPES[3] if plane in (5, 7) else tensor["type"]


def product(values):
    result = 1
    for value in values:
        result *= value
    return result

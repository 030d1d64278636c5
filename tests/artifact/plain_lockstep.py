"""The later coders of the format document on Python integers: tables of a formula, levels, row by row, scales on a grid."""

import struct

import brotli

from fairway.artifact.ans_plain import PlainDecoder

GENERATORS = {4: (0o5, 0o2), 8: (0o13, 0o4), 16: (0o23, 0o4), 64: (0o103, 0o24), 256: (0o515, 0o362)}


def unzigzag(value):
    return value // 2 if value % 2 == 0 else -(value + 1) // 2


def read_mixed_tables(reader, payload, read_tables, frequencies):
    data = reader(payload)
    size, packed = data.varint(), data.varint()
    head = reader(brotli.decompress(data.take(packed)))
    assert len(head.data) == size
    stored = iter(read_tables(data.data[data.at :]))
    count = head.varint()
    flags = "".join(f"{byte:08b}" for byte in head.take((count + 7) // 8))[:count]
    fields = []
    for _ in range(5):
        column, value = [], 0
        for _ in range(flags.count("1")):
            value += unzigzag(head.varint())
            column.append(value)
        fields.append(column)
    shaped = iter(zip(*fields, strict=True))
    return [shaped_table(*next(shaped), frequencies) if flag == "1" else next(stored) for flag in flags]


def shaped_table(low, span, centre, level, tail, frequencies):
    exponent = max(0, (level >> 6) - 1)
    rate = ((level - (exponent << 6)) << exponent) + ((1 << exponent) >> 1)
    rates = [rate * (4 + tail) // 4, rate, rate * 4 // (4 + tail)]
    distances = [abs(2 * symbol - centre) for symbol in range(low, low + span)]
    wide, middle, narrow = (bell(min(each, 2**40), max(distances) + 1) for each in rates)
    return low, frequencies([(wide[u] + 2 * middle[u] + narrow[u]) >> 22 for u in distances])


def bell(rate, length):
    ratio = 2**40 - rate
    step = ratio * ratio >> 40
    values = [2**40]
    while len(values) < length:
        values.append(values[-1] * ratio >> 40)
        ratio = ratio * step >> 40
    return values


def read_map(fields, decoder, count, tables):
    return decoder.take(count, *tables[fields.varint()]) if fields.byte() else [0] * count


def read_level_codes(fields, words, rows, columns, tables):
    start, decoder = fields.varint(), PlainDecoder(words)
    row_levels, column_levels = read_map(fields, decoder, rows, tables), read_map(fields, decoder, columns, tables)
    sums = [row + column for row in row_levels for column in column_levels]
    codes = [0] * len(sums)
    for level in sorted(set(sums)):
        places = [place for place, value in enumerate(sums) if value == level]
        for place, code in zip(places, decoder.take(len(places), *tables[start + level]), strict=True):
            codes[place] = code
    assert decoder.used_up()
    return codes


class Column:
    """One column of a walk: its state and its magnitude."""

    def __init__(self, tensor, level, start):
        self.tensor, self.level, self.state = tensor, level, 0
        self.magnitude, self.above, self.codes = start * 64, 1, []

    def take(self, code, row, window, prior, states):
        self.codes.append(code)
        shift = min(window, (row + 2**prior).bit_length() - 1)
        self.magnitude += (abs(code) * 4096 - self.magnitude + (1 << shift >> 1)) >> shift
        doubled = 2 * abs(code) * 4096
        self.above = (doubled > self.magnitude) + (doubled > 3 * self.magnitude)
        if states:
            h0, _ = GENERATORS[states]
            # j mod 4 = 2 parity(e & h0) + parity(e & h1) with e = 2 s + b, and h0 is odd.
            half = code >> 1 & 1
            bit = half ^ ((2 * self.state & h0).bit_count() & 1)
            self.state = (2 * self.state + bit) % states

    def parity(self, states):
        return (2 * self.state & GENERATORS[states][1]).bit_count() & 1 if states else 0


def read_lockstep(fields, words, rows, widths, states, tables):
    mode, start, decoder = fields.byte(), fields.varint(), PlainDecoder(words)
    classes, columns, row_levels = 2 if states else 1, [], []
    window = prior = 0
    if mode == 0:
        for tensor, width in enumerate(widths):
            first = fields.varint()
            row_levels.append([first + level for level in read_map(fields, decoder, rows, tables)])
            columns += [Column(tensor, level, 0) for level in read_map(fields, decoder, width, tables)]
    else:
        window, prior, first, buckets = (fields.varint() for _ in range(4))
        for tensor, width in enumerate(widths):
            magnitude = fields.varint()
            columns += [Column(tensor, 0, magnitude) for _ in range(width)]
        bounds = [16]
        while bounds[-1] < 2**20:
            bounds.append(bounds[-1] + max(1, bounds[-1] >> 4))
    for row in range(rows):
        keys = []
        for column in columns:
            if mode == 0:
                base = row_levels[column.tensor][row] + column.level
            else:
                bucket = sum(bound <= column.magnitude >> 6 for bound in bounds)
                base = min(max(bucket, first), first + buckets - 1) - first
                base = 3 * base + column.above if mode == 2 else base
            keys.append(classes * base + column.parity(states))
        for key in sorted(set(keys)):
            members = [place for place, own in enumerate(keys) if own == key]
            symbols = decoder.take(len(members), *tables[start + key])
            for place, symbol in zip(members, symbols, strict=True):
                code = 2 * symbol + key % 2 if states else symbol
                columns[place].take(code, row, window, prior, states)
    assert decoder.used_up()
    out = []
    for tensor in range(len(widths)):
        own = [column.codes for column in columns if column.tensor == tensor]
        out += [codes[row] for row in range(rows) for codes in own]
    return out


def read_grid_scales(fields, words, count, steps, tables):
    order, table, decoder = fields.varint(), tables[fields.varint()], PlainDecoder(words)
    values = decoder.take(min(count, 1), 0, [2**11] * 2**13) if order else []
    values = [value - 4096 for value in values] + decoder.take(count - len(values), *table)
    assert decoder.used_up()
    for place in range(1, count) if order else ():
        values[place] += values[place - 1]
    return struct.pack(f"<{count}H", *(scale_bits(value, steps) for value in values))


def scale_bits(exponent, steps):
    octave, step = divmod(exponent, steps)
    near = round(1024 * 2 ** (step / steps))
    mantissa = max(m for m in range(near - 2, near + 3) if (2 * m - 1) ** steps <= 2**step * 2048**steps)
    return ((octave + 15) << 10) + mantissa - 1024

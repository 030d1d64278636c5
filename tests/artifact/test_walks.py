"""Codes read row by row: bit for bit, like the plain reader, at their entropy, and refused where they are forged."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from artifact_samples import HEADER, forge, forge_streams, grid_tensors, half_floats, path_codes, same, walk_tensors, walked
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_lockstep import read_lockstep
from plain_reader import Bytes, words_of

from fairway.artifact.code_tensors import CodeTensor, Trace
from fairway.artifact.codes import Pool, fit_running, pack_codes, pack_running
from fairway.artifact.container import decode, encode
from fairway.artifact.contexts import Running
from fairway.artifact.frequencies import entropy_bits
from fairway.artifact.layout import parse
from fairway.artifact.lockstep import MAX_CALLS, Shape, unpack_lockstep
from fairway.artifact.manifest import Entry, Extras, check_size, pack_manifest
from fairway.artifact.records import CodedTensor, RawTensor
from fairway.artifact.streams import Coder, Plane, Stream
from fairway.artifact.wire import varint
from fairway.base.errors import ArtifactError
from fairway.quant.trellis_states import GENERATORS, path_parities, trellis


def random_path(generator, rows, columns, states, widths):
    """A path of normal numbers: the nearest code of the parity that the state allows."""
    machine, state = trellis(states), np.zeros(columns, np.int64)
    codes = np.empty((rows, columns), np.int16)
    for row in range(rows):
        parity = machine.parity[state].astype(np.int64)
        value = np.broadcast_to(widths, (rows, columns))[row] * generator.standard_normal(columns)
        codes[row] = 2 * np.rint((value - parity) / 2) + parity
        state = machine.step(state, codes[row])
    return codes


@st.composite
def members(draw):
    """Tensors of one height and grid, on a trellis or not."""
    states, rows = draw(st.sampled_from([0, *GENERATORS])), draw(st.integers(1, 12))
    generator = np.random.default_rng(draw(st.integers(0, 2**31)))
    tensors = []
    for index in range(draw(st.integers(1, 3))):
        columns, width = draw(st.integers(1, 9)), draw(st.sampled_from([0.0, 0.6, 4.0, 20.0]))
        if states:
            codes = random_path(generator, rows, columns, states, width)
        else:
            codes = np.clip(np.rint(width * generator.standard_normal((rows, columns))), -31, 31).astype(np.int8)
        tensors.append(CodeTensor(index, codes, 6, f"blocks.{index % 2}.weight", trellis=states))
    return tensors


running = st.builds(Running, window=st.integers(0, 15), prior=st.integers(0, 15), above=st.booleans())


@settings(max_examples=30, deadline=None)
@given(members(), running)
def test_walks_come_back_and_the_plain_reader_agrees(tensors, chosen):
    pool = []
    stream = pack_running(fit_running(tensors, chosen), Pool(pool))
    widths = [tensor.codes.shape[1] for tensor in tensors]
    rows, states = len(tensors[0].codes), tensors[0].trellis
    found, calls = unpack_lockstep(stream, Shape(rows, widths, states, 6, "w"), pool, MAX_CALLS)
    assert calls <= rows * sum(widths)
    assert all(np.array_equal(tensor.codes, codes) for tensor, codes in zip(tensors, found, strict=True))
    assert all(codes.dtype == tensor.codes.dtype for tensor, codes in zip(tensors, found, strict=True))
    tables = [(table.low, table.table.frequencies.tolist()) for table in pool]
    plain = read_lockstep(Bytes(stream.parameters), words_of(stream.payload), rows, widths, states, tables)
    assert plain == [code for tensor in tensors for code in tensor.codes.ravel().tolist()]


@settings(max_examples=30, deadline=None)
@given(members(), st.integers(0, 2**31))
def test_any_network_of_paths_comes_back_through_the_file(drawn, seed):
    generator = np.random.default_rng(seed)
    tensors = {}
    for index, tensor in enumerate(drawn):
        rows, columns = tensor.codes.shape
        steps = int(generator.integers(0, 12))
        scales = np.exp2(generator.integers(-12, 12, rows) / max(1, steps)).astype(np.float16)
        own = np.exp2(generator.integers(-9, 9, columns) / max(1, steps)).astype(np.float16) if index % 2 else None
        gain = float(np.float16(generator.uniform(0.5, 2)))
        grid = {"trellis": tensor.trellis, "gain": gain, "scale_grid": steps, "column_scales": own}
        tensors[f"blocks.{index}.weight"] = CodedTensor(tensor.codes, scales, 6, **grid)
    found = decode(encode(tensors, {})).tensors
    assert all(same(record, found[name]) for name, record in tensors.items())


@pytest.mark.parametrize("shape", [(0, 4), (4, 0), (0, 0), (1, 1), (1, 50), (50, 1)])
def test_degenerate_paths(shape):
    tensors = {"w": CodedTensor(path_codes(*shape, 8, 3), half_floats(shape[0], 3), 6, trellis=8)}
    assert same(decode(encode(tensors, {})).tensors["w"], tensors["w"])


@pytest.mark.parametrize("states", [4, 8, 64])
def test_paths_cost_their_entropy_given_the_parity(states):
    generator = np.random.default_rng(states)
    tensors = [
        CodeTensor(index, random_path(generator, 512, 384, states, 4.88), 6, "blocks.*.weight", trellis=states)
        for index in range(2)
    ]
    pool = []
    size = 8 * sum(len(stream.payload) for stream in pack_codes(tensors, pool))
    ideal = 0.0
    for tensor in tensors:
        parities = path_parities(tensor.codes, states)
        counts = [np.bincount((tensor.codes[parities == parity] >> 1).astype(np.int64) + 64) for parity in (0, 1)]
        ideal += sum(float(entropy_bits(own)) for own in counts)
    assert ideal <= size * 1.0001
    assert size < 1.001 * ideal


def test_columns_of_different_width_cost_their_conditional_entropy_on_a_trellis():
    generator = np.random.default_rng(5)
    widths = 4.88 * np.exp(0.2 * generator.standard_normal(512))
    codes = random_path(generator, 2048, 512, 8, widths)
    pool = []
    (stream,) = pack_codes([CodeTensor(0, codes, 6, "w", trellis=8)], pool)
    # Gaussian of width s on steps of 2: entropy log2(s / 2) + log2(2 pi e) / 2, with a twelfth of a step squared.
    ideal = float(np.sum(0.5 * np.log2(2 * np.pi * np.e * ((widths / 2) ** 2 + 1 / 12)))) * 2048
    assert 8 * len(stream.payload) < 1.003 * ideal


def test_running_magnitudes_follow_what_levels_cannot():
    generator = np.random.default_rng(6)
    drift = 3 * np.exp(0.5 * np.cumsum(0.08 * generator.standard_normal((1024, 256)), axis=0))
    codes = np.clip(np.rint(drift * generator.standard_normal(drift.shape)), -127, 127).astype(np.int8)
    pool = []
    (stream,) = pack_codes([CodeTensor(0, codes, 8, "w")], pool)
    assert stream.coder is Coder.LOCKSTEP_CODES
    assert stream.parameters[0] in (1, 2)
    order0 = float(entropy_bits(np.bincount(codes.ravel().astype(np.int64) + 127)))
    assert 8 * len(stream.payload) < 0.93 * order0


def test_a_constant_trellis_costs_almost_nothing():
    tensors = {"w": CodedTensor(np.zeros((400, 64), np.int16), half_floats(400, 3), 6, trellis=8)}
    layout = parse(encode(tensors, {}))
    assert layout.report.code_bytes < 16


def test_the_trace_names_the_table_of_every_code():
    generator = np.random.default_rng(7)
    tensor = CodeTensor(0, random_path(generator, 20, 30, 4, 5.0), 6, "w", trellis=4)
    pool = []
    stream = pack_running(fit_running([tensor], Running(6, 2, above=True)), Pool(pool))
    trace = Trace((tensor.part,))
    unpack_lockstep(replace(stream, parts=(tensor.part,)), Shape(20, [30], 4, 6, "w"), pool, MAX_CALLS, trace)
    bits = trace.ideal_bits(tensor.part, tensor.codes, 4, pool)
    assert abs(8 * len(stream.payload) - bits) <= 64
    # The first table of the bank has an even number here, and those of odd codes are the odd ones.
    assert np.array_equal(trace.numbers[tensor.part] % 2, tensor.codes % 2)


@cache
def sample_layout():
    return parse(walked(walk_tensors(), HEADER))


def walk_stream(change, plane=Plane.CODES):
    """The sample of walks with its last stream of codes changed."""
    layout = sample_layout()
    streams = [
        change(s) if s.coder is Coder.LOCKSTEP_CODES and s.parts[0].plane is plane and s.parts[0].tensor == 3 else s
        for s in layout.streams
    ]
    assert streams != layout.streams
    return forge_streams(layout, streams)


def parameters_with(**fields):
    """Parameters of a running stream of one tensor, with chosen fields."""
    values = {"start": 0, "window": 4, "prior": 1, "first": 20, "buckets": 2, "magnitude": 300} | fields
    body = b"".join(varint(values[name]) for name in ("start", "window", "prior", "first", "buckets", "magnitude"))
    return lambda stream: replace(stream, parameters=b"\1" + body)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: replace(s, parameters=b"\3" + s.parameters[1:]), "read in mode 3"),
        (lambda s: replace(s, parameters=s.parameters[:-1]), "asks for|holds a number"),
        (lambda s: replace(s, parameters=s.parameters + b"\0"), "after its last field"),
        (lambda s: replace(s, payload=s.payload + b"\1\0\0\0"), "data is missing or left over"),
        (lambda s: replace(s, payload=s.payload[:-4]), "data is missing or left over"),
        (parameters_with(window=16), "has windows 16 and 1"),
        (parameters_with(prior=16), "has windows 4 and 16"),
        (parameters_with(buckets=0), "0 buckets from 20"),
        (parameters_with(buckets=250), "250 buckets from 20"),
        (parameters_with(first=1 << 60), "buckets from 1152921504606846976"),
        (parameters_with(magnitude=1 << 20), "starts up to 1048576"),
        (parameters_with(start=1 << 40), "uses frequency tables 1099511627776"),
        (lambda s: replace(s, parameters=b"\0\0" + varint(1024) + b"\0\0"), "starts at level 1024"),
        (lambda s: replace(s, parameters=b"\0\0\0\2\0"), "a map of kind 2"),
        (lambda s: replace(s, parameters=b"\0\0\0\1" + varint(99999) + b"\0"), "uses frequency table 99999"),
    ],
)
def test_forged_walks_are_refused(change, message):
    with pytest.raises(ArtifactError, match=message):
        decode(walk_stream(change))


def forged_entry(entry: Entry, streams=()) -> bytes:
    layout = parse(encode({}, {}))
    return forge(layout, manifest=pack_manifest([entry], list(streams)), payload=b"".join(s.payload for s in streams))


@pytest.mark.parametrize(
    ("extras", "message"),
    [
        (Extras(trellis=5), "a trellis of 5 states"),
        (Extras(gain=0), "a gain of bits 0"),
        (Extras(gain=0x7C00), "a gain of bits 31744"),
        (Extras(gain=0xBC00), "a gain of bits 48128"),
        (Extras(scale_grid=257), "257 scales per octave"),
        (Extras((0,), 1, 8, trellis=8), "1 groups of protected columns"),
        (Extras((0,), 1, 8, column_scales=True), "1 groups of protected columns"),
    ],
)
def test_forged_grids_are_refused(extras, message):
    with pytest.raises(ArtifactError, match=message):
        decode(forged_entry(Entry("w", (4, 4), 6, np.dtype("<i2" if extras.trellis else "<i1"), extras)))


def test_a_grid_that_changes_nothing_is_refused():
    entry = Entry("w", (4, 4), 6, np.dtype("<i2"), Extras(trellis=8))
    packed = pack_manifest([entry], [])
    place = packed.index(varint(8) + b"\x00\x3c")
    layout = parse(encode({}, {}))
    with pytest.raises(ArtifactError, match="a trellis of 0 states"):
        decode(forge(layout, manifest=packed[:place] + b"\0" + packed[place + 1 :], payload=b""))


def test_walks_that_would_take_for_ever_are_refused_before_the_first_row():
    rows = (1 << 19) + 1
    with pytest.raises(ArtifactError, match="have 524289 rows, above 524288"):
        check_size([Entry("w", (rows, 1), 6, np.dtype("<i2"), Extras(trellis=8))], 1 << 20, 1 << 28)
    shape = Shape(1 << 22, [4], 0, 6, "w")
    pool, parameters = [], b"\1" + b"".join(map(varint, (0, 4, 1, 20, 4, 300)))
    tensor = CodeTensor(0, np.arange(-8, 8, dtype=np.int8).reshape(4, 4), 6, "w")
    pack_running(fit_running([tensor], Running(4, 1, above=False, first=20, buckets=4)), Pool(pool))
    while len(pool) < 4:
        pool.append(pool[0])
    with pytest.raises(ArtifactError, match=f"needs 16777216 calls of the coder where {MAX_CALLS} are left"):
        unpack_lockstep(Stream(Coder.LOCKSTEP_CODES, parameters, (), b""), shape, pool, MAX_CALLS)


def test_codes_off_the_path_are_refused_however_they_are_stored():
    codes = path_codes(6, 4, 8, 3)
    layout = parse(encode({"w": CodedTensor(codes, half_floats(6, 1), 6, trellis=8)}, {}))
    for wrong in (codes + (np.arange(24).reshape(6, 4) == 9), codes * 0 + 1, codes * 0 + 8192):
        raw = Stream(Coder.RAW, b"", layout.streams[1].parts, wrong.astype("<i2").tobytes())
        streams = [layout.streams[0], *(raw if s.parts[0].plane is Plane.CODES else s for s in layout.streams[1:])]
        with pytest.raises(ArtifactError, match=r"no path of the trellis of 8 states|outside \[-8191, 8191\]"):
            decode(forge_streams(layout, streams))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"codes": np.zeros((2, 4), np.int16), "trellis": 7}, "a trellis of 7 states"),
        ({"codes": np.zeros((2, 4), np.int8), "trellis": 8}, "give int16"),
        ({"codes": np.zeros((2, 4), np.int16)}, "give int8"),
        ({"codes": np.full((2, 4), 3, np.int16), "trellis": 8}, "no path"),
        ({"gain": 0.1}, "gain=0.1 is no positive finite float16"),
        ({"gain": 0.0}, "gain=0.0 is no positive"),
        ({"gain": 1e9}, "gain=1000000000.0 is no positive"),
        ({"scale_grid": 257}, "outside 0..256 points"),
        ({"scale_grid": 8}, "is not the float16 nearest to"),
        ({"column_scales": np.ones(3, np.float16)}, "3 column scales do not fit 4 columns"),
        ({"column_scales": np.ones(4)}, "give float16 in one dimension"),
        ({"column_scales": np.zeros(4, np.float16)}, "scale 0.0 of row 0"),
    ],
)
def test_impossible_grids_are_refused(change, message):
    fields = {"codes": np.zeros((2, 4), np.int8), "scales": np.array([0.3, 0.7], np.float16), "bits": 6} | change
    with pytest.raises(ArtifactError, match=message):
        CodedTensor(**fields)


def test_a_trellis_that_needs_too_many_calls_is_stored_without_a_walk(monkeypatch):
    monkeypatch.setattr("fairway.artifact.codes.MAX_CALLS", 100)
    tensors = {"w": CodedTensor(path_codes(60, 3, 4, 1), half_floats(60, 3), 6, trellis=4)}
    content = encode(tensors, {})
    assert Coder.LOCKSTEP_CODES not in {stream.coder for stream in parse(content).streams}
    assert same(decode(content).tensors["w"], tensors["w"])


def test_parts_and_controls_of_the_sample_survive():
    content = encode(grid_tensors(), HEADER)
    found = decode(content).tensors
    assert all(same(record, found[name]) for name, record in grid_tensors().items())
    assert isinstance(found["blocks.0.mlp_scale"], RawTensor)
    for position in range(0, len(content), 7):
        changed = bytearray(content)
        changed[position] ^= 0x21
        with pytest.raises(ArtifactError):
            decode(bytes(changed))

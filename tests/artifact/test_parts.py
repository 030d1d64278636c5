"""Protected columns and repairs in the container: bit-exact or refused, and cheap."""

from dataclasses import replace

import numpy as np
import pytest
from artifact_samples import HEADER, forge, forge_streams, half_floats, parts_tensors, same
from hypothesis import given, settings
from hypothesis import strategies as st

from fairway.artifact.ans import encode_sections
from fairway.artifact.arrays import unpack_array
from fairway.artifact.container import decode, encode
from fairway.artifact.frequencies import entropy_bits
from fairway.artifact.inspect import inspect
from fairway.artifact.layout import DIGEST_BYTES, PREFIX, parse, seal
from fairway.artifact.manifest import Extras, pack_manifest
from fairway.artifact.records import CodedTensor, Protected, Repair, largest_code, protected_steps, scales_from_steps
from fairway.artifact.streams import Coder, Plane, Stream
from fairway.artifact.tables import StoredTable
from fairway.artifact.wire import varint
from fairway.base.errors import ArtifactError


@st.composite
def positive_halves(draw, count):
    return np.array(draw(st.lists(st.integers(1, 0x7BFF), min_size=count, max_size=count)), np.uint16).view(np.float16)


@st.composite
def integers(draw, rows, columns, limit):
    values = draw(st.lists(st.integers(-limit, limit), min_size=rows * columns, max_size=rows * columns))
    return np.array(values, np.int8).reshape(rows, columns)


@st.composite
def parts(draw):
    """Arguments of a record; it is built outside, since the type checker of the tests draws random numbers."""
    rows, columns, bits = draw(st.integers(1, 6)), draw(st.integers(1, 12)), draw(st.integers(2, 8))
    codes = draw(integers(rows, columns, largest_code(bits)))
    protected = repair = None
    if draw(st.booleans()):
        size, high = draw(st.integers(1, columns)), draw(st.integers(2, 8))
        starts, free = [], 0
        while free + size <= columns and (not starts or draw(st.booleans())):
            starts.append(draw(st.integers(free, columns - size)))
            free = starts[-1] + size
        protected = (tuple(starts), size, high, draw(positive_halves(rows)))
        for start in starts:
            codes[:, start : start + size] = draw(integers(rows, size, largest_code(high)))
    if draw(st.booleans()):
        rank = draw(st.integers(1, 3))
        left, right = draw(integers(rows, rank, 127)), draw(integers(rank, columns, 127))
        runs = [draw(st.sampled_from([n for n in range(1, a.size + 1) if a.size % n == 0])) for a in (left, right)]
        repair = (left, draw(positive_halves(runs[0])), right, draw(positive_halves(runs[1])))
    return codes, draw(positive_halves(rows)), bits, protected, repair


@settings(max_examples=20, deadline=None)
@given(st.lists(parts(), min_size=1, max_size=4))
def test_any_parts_come_back_bit_for_bit(drawn):
    tensors = {
        f"blocks.{index}.weight": CodedTensor(*plain, finer and Protected(*finer), factors and Repair(*factors))
        for index, (*plain, finer, factors) in enumerate(drawn)
    }
    found = decode(encode(tensors, {})).tensors
    assert all(same(record, found[name]) for name, record in tensors.items())


@settings(max_examples=40, deadline=None)
@given(scales=positive_halves(5), finer=positive_halves(5), bits=st.integers(2, 8), high=st.integers(2, 8))
def test_steps_carry_any_two_scales(scales, finer, bits, high):
    steps = protected_steps(scales, bits, Protected((0,), 1, high, finer))
    assert scales_from_steps(scales, bits, high, steps).tobytes() == finer.tobytes()


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), size=st.floats(-2, 3))
def test_scales_of_one_deviation_differ_by_a_rounding(seed, size):
    sigma = (np.random.default_rng(seed).uniform(0.5, 2.0, 100) * 10.0**size).astype(np.float32)
    scales, finer = (sigma * 14 / 63).astype(np.float16), (sigma * 14 / 127).astype(np.float16)
    steps = protected_steps(scales, 7, Protected((0,), 1, 8, finer))
    assert int(np.abs(steps).max()) <= 2


def test_the_sample_is_read_back_and_flipped_or_cut_bytes_are_refused():
    content = encode(parts_tensors(), HEADER)
    found = decode(content).tensors
    assert all(same(record, found[name]) for name, record in parts_tensors().items())
    for position in range(0, len(content), 3):
        changed = bytearray(content)
        changed[position] ^= 0x81
        for damaged in (bytes(changed), content[:position]):
            with pytest.raises(ArtifactError, match=r"copy it again|give a \.fwz file"):
                decode(damaged)


def test_a_resealed_change_of_any_payload_byte_is_refused_by_the_content_digest():
    content = encode(parts_tensors(), HEADER)
    layout = parse(content)
    start = PREFIX.size + layout.report.document_bytes + layout.report.manifest_bytes
    for position in range(start, len(content) - DIGEST_BYTES):
        changed = bytearray(content[:-DIGEST_BYTES])
        changed[position] ^= 0x10
        with pytest.raises(ArtifactError):
            decode(seal(bytes(changed)))


def test_the_bytes_add_up_and_a_part_changes_no_other_tensor():
    report = parse(encode(parts_tensors(), HEADER)).report
    parts = (report.fixed_bytes, report.document_bytes, report.manifest_bytes, report.table_bytes, report.repair_bytes)
    assert sum(parts) + report.code_bytes + report.scale_bytes + report.control_bytes == report.total_bytes
    assert report.repair_bytes > 0
    plain = {
        name: replace(record, protected=None, repair=None)
        if isinstance(record, CodedTensor) and not record.protected
        else record
        for name, record in parts_tensors().items()
    }
    assert parse(encode(plain, HEADER)).report.code_bytes == report.code_bytes


def test_protected_codes_cost_their_entropy_and_their_scales_next_to_nothing(tmp_path):
    generator = np.random.default_rng(3)
    sigma = (0.02 * np.exp(0.3 * generator.standard_normal((2048, 1)))).astype(np.float32)
    weights = sigma * generator.standard_normal((2048, 192))
    scales, finer = (sigma[:, 0] * 14 / 63).astype(np.float16), (sigma[:, 0] * 14 / 127).astype(np.float16)
    codes = np.clip(np.rint(weights / scales[:, None].astype(np.float32)), -63, 63).astype(np.int8)
    plain = CodedTensor(codes.copy(), scales, 7)
    codes[:, 64:128] = np.clip(np.rint(weights[:, 64:128] / finer[:, None].astype(np.float32)), -127, 127)
    record = CodedTensor(codes, scales, 7, Protected((64,), 64, 8, finer))
    sizes = {}
    for name, tensor in (("plain", plain), ("protected", record)):
        (tmp_path / name).write_bytes(encode({"w": tensor}, {}))
        (sizes[name],) = inspect(tmp_path / name).tensors
    ideal = sum(
        float(entropy_bits(np.bincount(part.astype(np.uint8).ravel()))) for part in (codes[:, 64:128], plain.codes[:, :128])
    )
    assert 8 * sizes["protected"].code_bytes < 1.002 * ideal
    # One bit more for each protected code, and a fraction of a byte for each second scale.
    assert sizes["protected"].code_bytes - sizes["plain"].code_bytes == pytest.approx(2048 * 64 / 8, rel=0.03)
    assert sizes["protected"].scale_bytes - sizes["plain"].scale_bytes < 2048 / 4


def test_factors_cost_their_entropy(tmp_path):
    generator = np.random.default_rng(4)
    left = np.clip(np.rint(2.2 * generator.standard_normal((2048, 4))), -7, 7).astype(np.int8)
    right = np.clip(np.rint(2.2 * generator.standard_normal((4, 512))), -7, 7).astype(np.int8)
    codes = np.clip(np.rint(2.4 * generator.standard_normal((2048, 512))), -31, 31).astype(np.int8)
    record = CodedTensor(codes, half_floats(2048, 3), 6, None, Repair(left, half_floats(1, 3), right, half_floats(4, 3)))
    (tmp_path / "model.fwz").write_bytes(encode({"w": record}, {}))
    (line,) = inspect(tmp_path / "model.fwz").tensors
    ideal = sum(float(entropy_bits(np.bincount((part + 7).ravel()))) for part in (left, right)) / 8
    assert line.repair_bytes < ideal + 2 * 5 + 16
    assert line.repair_bytes < 0.55 * (left.size + right.size)


def protected(starts=(0,), size=2, bits=8, scales=None) -> CodedTensor:
    finer = half_floats(2, 1) if scales is None else scales
    return CodedTensor(np.zeros((2, 4), np.int8), half_floats(2, 1), 4, Protected(starts, size, bits, finer))


def repaired(left=(2, 1), right=(1, 4), scales=None, kind=np.int8) -> CodedTensor:
    factors = np.ones(left, kind), half_floats(1, 1) if scales is None else scales, np.ones(right, np.int8), half_floats(1, 1)
    return CodedTensor(np.zeros((2, 4), np.int8), half_floats(2, 1), 4, None, Repair(*factors))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: protected(starts=(3,)), "do not lie side by side in 4 columns"),
        (lambda: protected(starts=(1, 2)), "do not lie side by side"),
        (lambda: protected(starts=(2, 0)), "do not lie side by side"),
        (lambda: protected(starts=()), "do not lie side by side"),
        (lambda: protected(starts=(-1,)), "do not lie side by side"),
        (lambda: protected(size=0), "do not lie side by side"),
        (lambda: protected(bits=9), "protected bits=9 is outside 2..8"),
        (lambda: protected(scales=half_floats(3, 1)), "3 protected scales do not fit 2 rows"),
        (lambda: protected(scales=np.zeros(2, np.float16)), "scale 0.0 of row 0"),
        (lambda: protected(scales=np.ones(2)), "give float16 in one dimension"),
        (lambda: repaired(left=(3, 1)), r"have no product of shape \(2, 4\)"),
        (lambda: repaired(right=(2, 4)), "have no product"),
        (lambda: repaired(left=(2, 0)), "give filled int8"),
        (lambda: repaired(kind=np.int16), "left factor is int16"),
        (lambda: repaired(scales=half_floats(3, 1)), "cannot be cut into 3 equal runs"),
        (lambda: repaired(scales=np.zeros(0, np.float16)), "cannot be cut into 0 equal runs"),
        (lambda: repaired(scales=np.array([np.nan], np.float16)), "scale nan of row 0"),
    ],
)
def test_impossible_parts_are_refused(make, message):
    with pytest.raises(ArtifactError, match=message):
        make()


def forged_extras(extras: Extras | bytes, shape=(24, 16)) -> bytes:
    """The sample with the parts of its first tensor, or with its bytes in the manifest, replaced."""
    layout = parse(encode(parts_tensors(), HEADER))
    entry = layout.entries[0]
    known = pack_manifest([entry], [])
    if isinstance(extras, bytes):
        head = pack_manifest([replace(entry, extras=None)], [])[:-1]
        kind = head.index(bytes([0, entry.bits]), 2)
        manifest = head[:kind] + b"\x02" + head[kind + 1 :] + extras + b"\0"
    else:
        manifest = pack_manifest([replace(entry, extras=extras, shape=shape)], [])
    assert manifest != known
    return forge(layout, manifest=manifest, payload=b"")


@pytest.mark.parametrize(
    ("extras", "message"),
    [
        (Extras((12,), 8, 8), "1 groups of 8 protected columns of 8 bits in 16 columns"),
        (Extras((0,), 8, 9), "protected columns of 9 bits"),
        (Extras((0,), 8, 1), "protected columns of 1 bits"),
        (Extras((0, 0), 0, 8), "groups of 0 protected columns"),
        (Extras((), 8, 8), "0 groups"),
        (Extras(), "announces parts that it lacks"),
        (Extras(rank=2, left_runs=5, right_runs=1), "repair of rank 2 with 5 and 1 scales"),
        (Extras(rank=2, left_runs=1, right_runs=5), "repair of rank 2 with 1 and 5 scales"),
        (Extras(rank=2, left_runs=0, right_runs=1), "repair of rank 2 with 0 and 1 scales"),
        (Extras(rank=1 << 41, left_runs=1, right_runs=1), "has a repair of rank"),
        (varint(8) + varint(1) + varint(1 << 40), "announces"),
        (varint(8) + b"\x80", "asks for|0 groups"),
        (varint(0) + varint(1 << 30) + varint(1) + varint(1), "belongs to exactly one"),
    ],
)
def test_forged_parts_of_the_manifest_are_refused(extras, message):
    with pytest.raises(ArtifactError, match=message):
        decode(forged_extras(extras))


def test_parts_of_an_empty_matrix_are_refused():
    with pytest.raises(ArtifactError, match="announces parts that it lacks"):
        decode(forged_extras(Extras(rank=1, left_runs=1, right_runs=1), shape=(0, 16)))


def forged_stream(plane: Plane, change) -> bytes:
    layout = parse(encode(parts_tensors(), HEADER))
    streams = [change(s) if s.parts and s.parts[0].plane is plane else s for s in layout.streams]
    assert streams != layout.streams
    return forge_streams(layout, streams)


def raw(dtype: str, value: float):
    """Replace the elements of a stream by one value, as they are."""

    def change(stream: Stream) -> Stream:
        counts = dict.fromkeys(stream.parts, 24)
        return Stream(Coder.RAW, b"", stream.parts, np.full(sum(counts.values()), value, dtype).tobytes())

    return change


@pytest.mark.parametrize(
    ("plane", "change", "message"),
    [
        (Plane.PROTECTED_STEPS, raw("<i2", -32768), "leads out of float16"),
        (Plane.PROTECTED_STEPS, raw("<i2", 32767), "leads out of float16"),
        (Plane.PROTECTED_STEPS, raw("<i2", 1), "differs from its digest"),
        (
            Plane.LEFT_SCALES,
            lambda s: replace(s, coder=Coder.RAW, parameters=b"", payload=bytes(50)),
            "not finite and positive",
        ),
        (Plane.LEFT_CODES, lambda s: replace(s, coder=Coder.STATIC_INTEGERS, parameters=varint(99)), "under table 99 of"),
        (Plane.LEFT_CODES, lambda s: replace(s, coder=Coder.STATIC_INTEGERS, parameters=b""), "asks for"),
        (Plane.LEFT_SCALES, lambda s: replace(s, coder=Coder.STATIC_INTEGERS, parameters=b"\0"), "coded as integers"),
        (Plane.LEFT_CODES, lambda s: replace(s, coder=Coder.STATIC_CODES), "a stream of codes carries"),
        (Plane.PROTECTED_CODES, lambda s: replace(s, payload=s.payload + b"\1\0\0\0"), "data is missing or left over"),
    ],
)
def test_forged_streams_of_parts_are_refused(plane, change, message):
    with pytest.raises(ArtifactError, match=message):
        decode(forged_stream(plane, change))


@pytest.mark.parametrize(("dtype", "low"), [("<i1", -129), ("<i1", 127), ("<i2", 32767)])
def test_a_table_beyond_the_type_is_refused(dtype, low):
    pool = [StoredTable(low, 0, np.ones(2, np.int64))]
    payload = encode_sections([(np.full(9, low), pool[0].table)])
    with pytest.raises(ArtifactError, match=rf"a table for \[{low}, {low + 1}\] where int\d+ is allowed"):
        unpack_array(Coder.STATIC_INTEGERS, varint(0), payload, np.dtype(dtype), 9, pool, "codes")


def test_other_types_have_no_table_of_integers():
    pool = [StoredTable(0, 0, np.ones(2, np.int64))]
    with pytest.raises(ArtifactError, match="float16 is coded as integers"):
        unpack_array(Coder.STATIC_INTEGERS, varint(0), b"", np.dtype("<f2"), 9, pool, "codes")

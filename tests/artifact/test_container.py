"""The container: bit-exact or refused. Exhaustive over every byte of a small file, and over random tensors."""

import json

import numpy as np
import pytest
from artifact_samples import HEADER, binomial_codes, forge, forge_streams, half_floats, same, sample_tensors
from hypothesis import given, settings
from hypothesis import strategies as st

from fairway.artifact.container import decode, encode, read_artifact, read_layout, write_artifact
from fairway.artifact.layout import DIGEST_BYTES, PREFIX, parse, seal
from fairway.artifact.manifest import Entry, pack_manifest
from fairway.artifact.records import Artifact, CodedTensor, RawTensor, largest_code
from fairway.artifact.streams import Coder, Stream
from fairway.artifact.wire import brotli_pack, varint
from fairway.base.errors import ArtifactError, MachineError

NAMES = st.text(st.characters(codec="utf-8", categories=["L", "N", "P"]), min_size=1, max_size=20)


@st.composite
def coded_tensors(draw):
    bits, rows, columns = draw(st.integers(2, 8)), draw(st.integers(0, 12)), draw(st.integers(0, 12))
    limit = largest_code(bits)
    kind = draw(st.sampled_from(["any", "equal", "extreme"]))
    choices = {"any": st.integers(-limit, limit), "equal": st.just(draw(st.integers(-limit, limit)))}
    symbol = choices.get(kind, st.sampled_from([-limit, limit]))
    codes = draw(st.lists(symbol, min_size=rows * columns, max_size=rows * columns))
    scales = draw(st.lists(st.integers(1, 0x7BFF), min_size=rows, max_size=rows))
    return CodedTensor(np.array(codes, np.int8).reshape(rows, columns), np.array(scales, np.uint16).view(np.float16), bits)


@st.composite
def raw_tensors(draw):
    dtype = np.dtype(draw(st.sampled_from(["<f2", "<f4", "<f8", "<i4", "<i8", "<u1", ">f4"])))
    shape = tuple(draw(st.lists(st.integers(0, 4), max_size=4)))
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    return RawTensor(np.frombuffer(draw(st.binary(min_size=size, max_size=size)), dtype).reshape(shape))


@settings(max_examples=50, deadline=None)
@given(
    st.dictionaries(NAMES, st.one_of(coded_tensors(), raw_tensors()), max_size=6),
    st.dictionaries(
        st.text(max_size=8), st.one_of(st.integers(), st.text(max_size=9), st.floats(allow_nan=False, allow_infinity=False))
    ),
)
def test_any_tensors_come_back_bit_for_bit(tensors, header):
    artifact = decode(encode(tensors, header))
    assert artifact.header == header
    assert list(artifact.tensors) == list(tensors)
    for name, record in tensors.items():
        found = artifact.tensors[name]
        little = (
            RawTensor(record.values.astype(record.values.dtype.newbyteorder("<"))) if isinstance(record, RawTensor) else record
        )
        assert same(little, found)


def test_the_sample_survives_the_disk_and_its_bytes_add_up(tmp_path):
    path = tmp_path / "model.fwz"
    report = write_artifact(path, sample_tensors(), HEADER)
    artifact = read_artifact(path)
    assert artifact.header == HEADER
    assert all(same(record, artifact.tensors[name]) for name, record in sample_tensors().items())
    sections = (report.fixed_bytes, report.document_bytes, report.manifest_bytes, report.table_bytes)
    assert sum(sections) + report.code_bytes + report.scale_bytes + report.control_bytes == report.total_bytes
    assert report.total_bytes == path.stat().st_size
    assert read_layout(path).report == report


def test_equal_input_gives_equal_bytes():
    assert encode(sample_tensors(), HEADER) == encode(sample_tensors(), dict(reversed(HEADER.items())))


def test_decoded_arrays_can_be_changed():
    for record in decode(encode(sample_tensors(), HEADER)).tensors.values():
        arrays = [record.codes, record.scales] if isinstance(record, CodedTensor) else [record.values]
        assert all(array.flags.writeable for array in arrays)


def test_every_flipped_byte_is_refused():
    content = encode(sample_tensors(), HEADER)
    for position in range(len(content)):
        for flip in (0x01, 0x80, 0xFF):
            changed = bytearray(content)
            changed[position] ^= flip
            with pytest.raises(ArtifactError, match=r"copy it again|give a \.fwz file"):
                decode(bytes(changed))


def test_every_truncation_and_extension_is_refused():
    content = encode(sample_tensors(), HEADER)
    for length in range(len(content)):
        with pytest.raises(ArtifactError, match=r"copy it again|give a \.fwz file"):
            decode(content[:length])
    for extra in (b"\0", b"\0" * 16, content):
        with pytest.raises(ArtifactError, match="declares"):
            decode(content + extra)


def test_a_resealed_change_of_any_payload_byte_is_refused_by_the_content_digest():
    content = encode(sample_tensors(), HEADER)
    layout = parse(content)
    start = PREFIX.size + layout.report.document_bytes + layout.report.manifest_bytes
    for position in range(start, len(content) - DIGEST_BYTES):
        changed = bytearray(content[:-DIGEST_BYTES])
        changed[position] ^= 0x10
        with pytest.raises(ArtifactError):
            decode(seal(bytes(changed)))


@pytest.mark.parametrize("write", [b"", b"hello", b"PK\x03\x04" + bytes(200), bytes(500)])
def test_other_files_are_named_as_such(tmp_path, write):
    path = tmp_path / "other.fwz"
    path.write_bytes(write)
    with pytest.raises(ArtifactError, match=r"other\.fwz is not a Fairway artifact"):
        read_artifact(path)


def test_missing_files_and_folders_are_refused(tmp_path):
    with pytest.raises(ArtifactError, match="does not exist"):
        read_artifact(tmp_path / "absent.fwz")
    with pytest.raises(ArtifactError, match="cannot be read"):
        read_artifact(tmp_path)


def test_a_newer_format_asks_for_an_update():
    content = bytearray(encode({}, {}))
    content[8] = 2
    with pytest.raises(ArtifactError, match="format version 2, this release reads 1; update fairway"):
        decode(seal(bytes(content[:-DIGEST_BYTES])))


def test_nothing_is_written_when_the_input_is_refused(tmp_path):
    with pytest.raises(ArtifactError):
        write_artifact(tmp_path / "model.fwz", {"bad\nname": RawTensor(np.zeros(1, np.float16))}, {})
    (tmp_path / "file").write_text("x")
    with pytest.raises(MachineError):
        write_artifact(tmp_path / "file" / "model.fwz", {}, {})
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CodedTensor(np.zeros((2, 2), np.int16), half_floats(2, 1), 6), "give int8"),
        (lambda: CodedTensor(np.zeros(4, np.int8), half_floats(4, 1), 6), "give int8"),
        (lambda: CodedTensor(np.zeros((2, 2), np.int8), half_floats(3, 1), 6), r"give float16 \[rows\]"),
        (lambda: CodedTensor(np.zeros((2, 2), np.int8), np.ones(2, np.float32), 6), r"give float16 \[rows\]"),
        (lambda: CodedTensor(np.zeros((2, 2), np.int8), half_floats(2, 1), 9), "bits=9 is outside 2..8"),
        (lambda: CodedTensor(np.full((2, 2), 32, np.int8), half_floats(2, 1), 6), r"code 32 is outside \[-31, 31\]"),
        (lambda: CodedTensor(np.full((2, 2), -128, np.int8), half_floats(2, 1), 8), "code -128 is outside"),
        (lambda: CodedTensor(np.zeros((2, 2), np.int8), np.array([1, 0], np.float16), 6), "scale 0.0 of row 1"),
        (lambda: CodedTensor(np.zeros((2, 2), np.int8), np.array([np.nan, 1], np.float16), 6), "scale nan of row 0"),
        (lambda: CodedTensor(np.zeros((2, 2), np.int8), np.array([np.inf, 1], np.float16), 6), "scale inf of row 0"),
        (lambda: CodedTensor(np.zeros((2, 2), np.int8), np.array([-1, 1], np.float16), 6), "scale -1.0 of row 0"),
        (lambda: RawTensor(np.zeros(2, np.complex64)), "does not store"),
        (lambda: RawTensor(np.zeros(2, np.bool_)), "does not store"),
        (lambda: RawTensor(np.array(["a"])), "does not store"),
        (lambda: RawTensor(np.zeros((1,) * 9, np.float16)), "at most 8"),
        (lambda: encode({"": RawTensor(np.zeros(1))}, {}), "rename the tensor"),
        (lambda: encode({"a" * 256: RawTensor(np.zeros(1))}, {}), "rename the tensor"),
        (lambda: encode({"\ud800": RawTensor(np.zeros(1))}, {}), "rename the tensor"),
        (lambda: encode({}, {"x": float("nan")}), "not a JSON object"),
        (lambda: encode({}, {"x": {1, 2}}), "not a JSON object"),
        (lambda: encode({}, {"x": "y" * (1 << 20)}), "keep large values outside"),
    ],
)
def test_bad_input_is_refused_with_its_remedy(make, message):
    with pytest.raises(ArtifactError, match=message):
        make()


def forged_manifest(entries, streams=()):
    return forge(parse(encode(sample_tensors(), HEADER)), manifest=pack_manifest(entries, list(streams)), payload=b"")


def raw_entry(shape, name="w"):
    return Entry(name, shape, 0, np.dtype("<f4"))


@pytest.mark.parametrize(
    ("forged", "message"),
    [
        (lambda: forged_manifest([raw_entry((1 << 39, 1 << 39))]), "each of 1 belongs to exactly one"),
        (lambda: forged_manifest([raw_entry((1 << 41,))]), "with a dimension above"),
        (lambda: forged_manifest([raw_entry((2,)), raw_entry((3,))]), "share a name"),
        (lambda: forge(parse(encode({}, {})), manifest=varint(1 << 50)), "announces"),
        (lambda: forge(parse(encode({}, {})), manifest=varint(1) + varint(200) + b"a"), "asks for 200 bytes"),
        (lambda: forge(parse(encode({}, {})), manifest=b"\0\0\0"), "after its last field"),
        (lambda: forge(parse(encode({}, {})), payload=b"abc"), "payload has 3 bytes after"),
        (lambda: forge(parse(encode({}, {})), document=b'{"b":1,"a":2}'), "canonical form"),
        (lambda: forge(parse(encode({}, {})), document=b'{"a":1,"a":1}'), "canonical form"),
        (lambda: forge(parse(encode({}, {})), document=b'{"a":NaN}'), "canonical form"),
        (lambda: forge(parse(encode({}, {})), document=b"[1]"), "canonical form"),
        (lambda: forge(parse(encode({}, {})), document=b"[" * 100_000), "canonical form"),
        (lambda: forge(parse(encode({}, {})), document=b'{"a":' + b"9" * 5000 + b"}"), "canonical form"),
        (lambda: forge(parse(encode({}, {})), document=b"\xff"), "canonical form"),
        (lambda: forge(parse(encode({}, {})), document=b'{"a":"' + b"a" * (1 << 20) + b'"}'), "do not fit"),
        (lambda: forge(parse(encode({}, {})), document=b'{"a":1}'), "content differs from its digest"),
    ],
)
def test_forged_fields_behind_a_right_checksum_are_refused(forged, message):
    with pytest.raises(ArtifactError, match=message):
        decode(forged())


def changed_streams(change):
    layout = parse(encode(sample_tensors(), HEADER))
    streams = list(layout.streams)
    change(streams)
    return forge_streams(layout, streams)


def replace(streams, index, **fields):
    old = streams[index]
    values = {"coder": old.coder, "parameters": old.parameters, "parts": old.parts, "payload": old.payload} | fields
    streams[index] = Stream(**values)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda streams: streams.append(streams[-1]), "exactly one"),
        (lambda streams: streams.pop(), "exactly one"),
        (lambda streams: streams.reverse(), "first stream|of 0"),
        (lambda streams: replace(streams, 1, coder=Coder.BROTLI), "2 bytes of parameters where its coder has none"),
        (lambda streams: replace(streams, -1, coder=Coder.STATIC_CODES), "a stream of codes carries"),
        (lambda streams: replace(streams, -1, coder=Coder.LOCKSTEP_CODES), "a stream of codes carries"),
        (lambda streams: replace(streams, -1, coder=Coder.GRID_SCALES, parameters=b"\0\0"), "on a grid of 0"),
        (lambda streams: replace(streams, 1, payload=streams[1].payload[:-4]), "data is missing or left over"),
        (lambda streams: replace(streams, 1, payload=streams[1].payload + b"\1\0\0\0"), "data is missing or left over"),
        (lambda streams: replace(streams, 1, parts=streams[1].parts + streams[2].parts), "exactly one"),
        (lambda streams: replace(streams, 0, parameters=b"\0"), "frequency tables are not"),
    ],
)
def test_forged_streams_are_refused(change, message):
    with pytest.raises(ArtifactError, match=message):
        decode(changed_streams(change))


def test_an_unknown_coder_asks_for_an_update():
    manifest = pack_manifest([], []).removesuffix(b"\0") + varint(1) + bytes([77]) + varint(0) * 3
    with pytest.raises(ArtifactError, match="coder 77, which this release does not know; update fairway"):
        decode(forge(parse(encode({}, {})), manifest=manifest))


def test_codes_and_scales_out_of_range_are_refused_when_reading():
    layout = parse(encode({"w": CodedTensor(np.full((1, 2), 3, np.int8), half_floats(1, 1), 3)}, {}))
    streams = list(layout.streams)
    codes, scales = streams[1], streams[2]
    narrow = [Entry("w", (1, 2), 2, np.dtype("<i1"))]
    wrong_bits = forge(layout, manifest=pack_manifest(narrow, streams), payload=b"".join(s.payload for s in streams))
    with pytest.raises(ArtifactError, match=r"where \[-1, 1\] is allowed"):
        decode(wrong_bits)
    for value in (0.0, np.inf, np.nan, -1.0):
        bad = Stream(Coder.RAW, b"", scales.parts, np.array([value], "<f2").tobytes())
        with pytest.raises(ArtifactError, match="not finite and positive"):
            decode(forge_streams(layout, [streams[0], codes, bad]))
    stored = Stream(Coder.RAW, b"", codes.parts, b"\x04\x00")
    with pytest.raises(ArtifactError, match=r"code 4 is outside \[-3, 3\]"):
        decode(forge_streams(layout, [streams[0], stored, scales]))


def test_element_caps_hold_before_anything_is_allocated():
    constant = {"w": CodedTensor(np.zeros((300, 100), np.int8), half_floats(300, 1), 6)}
    content = encode(constant, {})
    assert decode(content, max_elements=30_300).tensors["w"].shape == (300, 100)
    with pytest.raises(ArtifactError, match="30300 elements, above the cap of 30299; raise max_elements"):
        decode(content, max_elements=30_299)
    layout = parse(encode({"w": CodedTensor(np.zeros((1, 100), np.int8), half_floats(1, 1), 6)}, {}))
    huge = [Entry("w", (1, 200_000_000), 6, np.dtype("<i1"))]
    payload = b"".join(stream.payload for stream in layout.streams)
    with pytest.raises(ArtifactError, match="per byte that the format allows"):
        decode(forge(layout, manifest=pack_manifest(huge, layout.streams), payload=payload))


def test_shapes_are_compared_with_the_model():
    artifact = Artifact({}, {"a": RawTensor(np.zeros((2, 3))), "b": RawTensor(np.zeros(4))})
    artifact.require_shapes({"a": (2, 3), "b": (4,)})
    with pytest.raises(ArtifactError, match=r"tensor a has shape \(2, 3\) where the model needs \(3, 2\)"):
        artifact.require_shapes({"a": (3, 2), "b": (4,)})
    with pytest.raises(ArtifactError, match="lacks tensor c"):
        artifact.require_shapes({"a": (2, 3), "b": (4,), "c": (1,)})
    with pytest.raises(ArtifactError, match="has a tensor b that the model lacks"):
        artifact.require_shapes({"a": (2, 3)})


def test_header_is_stored_once_and_canonical():
    content = encode({}, {"b": 1, "a": [1.5, None, True]})
    assert json.loads(parse(content).document) == {"a": [1.5, None, True], "b": 1}
    assert brotli_pack(b'{"a":[1.5,null,true],"b":1}') in content


def test_many_tensors_of_many_kinds():
    tensors = {
        f"layers.{i}.kind{i % 7}.weight": CodedTensor(binomial_codes(3, 5, 6, i + 1), half_floats(3, i + 1), 6)
        for i in range(150)
    }
    artifact = decode(encode(tensors, {}))
    assert all(same(record, artifact.tensors[name]) for name, record in tensors.items())

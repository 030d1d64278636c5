"""docs/format.md is true: its example is regenerated and decoded, and a second reader written from it agrees."""

from pathlib import Path

import numpy as np
import pytest
from artifact_samples import HEADER, REPAIR_ARRAYS, grid_tensors, parts_tensors, sample_tensors, walk_tensors, walked
from plain_reader import read_plain

from fairway.artifact.container import decode, encode
from fairway.artifact.layout import PREFIX
from fairway.artifact.records import CodedTensor, RawTensor
from fairway.artifact.streams import Coder

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "tests" / "golden" / "artifact"
GOLDEN = sorted(path.stem for path in FOLDER.glob("*.fwz"))


def documented_example() -> bytes:
    block = (ROOT / "docs" / "format.md").read_text("utf-8").split("```hex\n")[1].split("```")[0]
    lines = block.strip("\n").split("\n")
    assert [line[:4] for line in lines] == [f"{16 * index:04x}" for index in range(len(lines))]
    return bytes.fromhex("".join(line[6:53] for line in lines))


def example_tensors():
    return {
        "w": CodedTensor(np.array([[-1, 0, 2, 0], [1, 0, 0, -1]], np.int8), np.array([0.5, 0.25], np.float16), 3),
        "gain": RawTensor(np.array([1.5, -2], np.float16)),
    }


def test_the_example_is_what_the_writer_makes():
    assert encode(example_tensors(), {"seed": 7}).hex(" ") == documented_example().hex(" ")


def test_the_example_decodes_to_what_the_text_says():
    artifact = decode(documented_example())
    assert artifact.header == {"seed": 7}
    coded, gain = artifact.tensors["w"], artifact.tensors["gain"]
    assert (coded.codes.tolist(), coded.scales.tolist(), coded.bits) == ([[-1, 0, 2, 0], [1, 0, 0, -1]], [0.5, 0.25], 3)
    assert gain.values.tolist() == [1.5, -2.0]


def test_the_document_names_the_frame_and_every_coder():
    text = (ROOT / "docs" / "format.md").read_text("utf-8")
    assert f"| {PREFIX.size} | | header document" in text
    for coder in Coder:
        assert f"| {int(coder)} {coder.name.lower().replace('_', ' ')} |" in text


@pytest.mark.parametrize("source", ["example", "sample", "parts", "grid", "walks", *GOLDEN])
def test_a_reader_written_from_the_document_agrees(source):
    makers = {
        "example": documented_example,
        "sample": lambda: encode(sample_tensors(), HEADER),
        "parts": lambda: encode(parts_tensors(), HEADER),
        "grid": lambda: encode(grid_tensors(), HEADER),
        "walks": lambda: walked(walk_tensors(), HEADER),
    }
    content = makers[source]() if source in makers else (FOLDER / f"{source}.fwz").read_bytes()
    header, tensors = read_plain(content)
    artifact = decode(content)
    assert header == artifact.header
    assert [tensor["name"] for tensor in tensors] == list(artifact.tensors)
    for tensor in tensors:
        record = artifact.tensors[tensor["name"]]
        assert tensor["shape"] == record.shape
        if isinstance(record, CodedTensor):
            ordinary = ~record.protected.mask(record.shape[1]) if record.protected else np.ones(record.shape[1], bool)
            assert (tensor["bits"], tensor[1]) == (record.bits, record.scales.tobytes())
            assert tensor[0] == record.codes[:, ordinary].tobytes()
            assert (tensor["trellis"], tensor["grid"]) == (record.trellis, record.scale_grid)
            assert np.frombuffer(tensor["gain"], "<f2")[0] == record.gain
            assert (record.column_scales is None) == (9 not in tensor)
            assert record.column_scales is None or tensor[9] == record.column_scales.tobytes()
            assert_parts(tensor, record, ordinary)
        else:
            assert tensor[2] == record.values.tobytes()


def assert_parts(tensor, record, ordinary):
    if record.protected is not None:
        finer = record.protected
        assert (tuple(tensor["starts"]), tensor["size"], tensor["high"]) == (finer.starts, finer.size, finer.bits)
        assert tensor[3] == record.codes[:, ~ordinary].tobytes()
        for scale, own, step in zip(record.scales, finer.scales, np.frombuffer(tensor[4], "<i2"), strict=True):
            ratio = (2 ** (record.bits - 1) - 1) / (2 ** (finer.bits - 1) - 1)
            expected = np.float16(min(max(float(scale) * ratio, 2.0**-14), 65504.0))
            assert int(expected.view(np.uint16)) + int(step) == int(own.view(np.uint16))
    if record.repair is not None:
        planes = [getattr(record.repair, name).tobytes() for name in REPAIR_ARRAYS]
        assert [tensor[plane] for plane in (5, 6, 7, 8)] == planes

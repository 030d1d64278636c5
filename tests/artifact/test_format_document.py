"""docs/format.md is true: its example is regenerated and decoded, and a second reader written from it agrees."""

from pathlib import Path

import numpy as np
import pytest
from artifact_samples import HEADER, sample_tensors
from plain_reader import read_plain

from fairway.artifact.container import decode, encode
from fairway.artifact.layout import PREFIX
from fairway.artifact.records import CodedTensor, RawTensor
from fairway.artifact.streams import Coder

ROOT = Path(__file__).parents[2]


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


@pytest.mark.parametrize("source", ["example", "sample", "golden"])
def test_a_reader_written_from_the_document_agrees(source):
    golden = ROOT / "tests" / "golden" / "artifact" / "format1.fwz"
    makers = {"example": documented_example, "sample": lambda: encode(sample_tensors(), HEADER), "golden": golden.read_bytes}
    content = makers[source]()
    header, tensors = read_plain(content)
    artifact = decode(content)
    assert header == artifact.header
    assert [tensor["name"] for tensor in tensors] == list(artifact.tensors)
    for tensor in tensors:
        record = artifact.tensors[tensor["name"]]
        assert tensor["shape"] == record.shape
        if isinstance(record, CodedTensor):
            assert (tensor["bits"], tensor[0], tensor[1]) == (record.bits, record.codes.tobytes(), record.scales.tobytes())
        else:
            assert tensor[2] == record.values.tobytes()

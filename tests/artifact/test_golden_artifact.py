"""Stored artifacts decode to stored arrays for ever; the golden tiny model of PR #1413 beats the PR's own file."""

from pathlib import Path

import numpy as np
import pytest
from artifact_samples import HEADER, parts_tensors
from make_golden_artifact import arrays_to_compare, golden_tensors
from safetensors.numpy import load_file

from fairway.artifact.container import decode, encode, read_artifact, read_layout
from fairway.artifact.frequencies import entropy_bits
from fairway.artifact.records import CodedTensor, RawTensor
from fairway.artifact.streams import Coder, Plane

GOLDEN = Path(__file__).parents[1] / "golden" / "artifact"
SHARED = Path(__file__).parents[3] / "shared" / "golden" / "quant"


FILES = ("format1", "format1_parts", "format1_grid", "format1_walks")


@pytest.mark.parametrize("file", FILES)
def test_the_golden_artifacts_of_format_1_decode_to_the_stored_arrays(file):
    artifact = read_artifact(GOLDEN / f"{file}.fwz")
    assert artifact.header == HEADER
    decoded = arrays_to_compare(artifact.tensors)
    with np.load(GOLDEN / f"{file}.npz", allow_pickle=False) as stored:
        assert set(decoded) == set(stored.files)
        seen = set()
        for key in stored.files:
            name, _, *bits = key.split("|")
            record, found = artifact.tensors[name], decoded[key]
            assert found.dtype == stored[key].dtype
            assert found.shape == stored[key].shape
            assert found.tobytes() == stored[key].tobytes()
            assert not bits or (isinstance(record, CodedTensor) and record.bits == int(bits[0]))
            seen.add(name)
        assert seen == set(artifact.tensors)


def test_the_golden_artifacts_use_every_coder_plane_and_groups_of_rows():
    streams = [stream for name in FILES for stream in read_layout(GOLDEN / f"{name}.fwz").streams]
    assert {stream.coder for stream in streams} == set(Coder)
    assert {part.plane for stream in streams for part in stream.parts} == set(Plane)
    assert any(stream.coder is Coder.STATIC_CODES and stream.parameters[0] > 1 for stream in streams)
    assert {stream.parameters[0] for stream in streams if stream.coder is Coder.LOCKSTEP_CODES} == {0, 1, 2}


def test_todays_writer_is_no_worse_for_the_first_golden_tensors():
    # It chooses by estimates of what tables cost, which are off by a byte or two in files so small.
    today = len(encode(golden_tensors(), HEADER)) + len(encode(parts_tensors(), HEADER))
    assert today <= 4 + sum((GOLDEN / f"{name}.fwz").stat().st_size for name in ("format1", "format1_parts"))
    assert all(entry.extras is None for entry in read_layout(GOLDEN / "format1.fwz").entries)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared golden data of the quantizer is not on this machine")
def test_the_tiny_model_of_pr_1413_is_smaller_than_the_prs_own_file_and_exact(record_property):
    model, sizes = np.load(SHARED / "model_1413.npz"), np.load(SHARED / "sizes.npz")
    controls = load_file(SHARED / "model_weights_f16.safetensors")
    published = dict(zip(sizes["1413.names"].tolist(), sizes["1413.bytes"].tolist(), strict=True))
    own_file = next(size for name, size in published.items() if int(size) == 432_903)
    tensors, ideal = {}, 0.0
    for name, scheme in zip(model["scheme_names"].tolist(), model["scheme"].tolist(), strict=True):
        if scheme.startswith("gptq"):
            tensors[name] = CodedTensor(model[f"{name}.q"], model[f"{name}.scale"], 8 if "int8" in scheme else 6)
            ideal += float(entropy_bits(np.bincount(tensors[name].codes.view(np.uint8).ravel()))) / 8
        else:
            tensors[name] = RawTensor(controls[name])
    content = encode(tensors, {"pull_request": 1413})
    artifact = decode(content)
    for name, record in tensors.items():
        found = artifact.tensors[name]
        planes = ("codes", "scales") if isinstance(record, CodedTensor) else ("values",)
        assert all(getattr(found, plane).tobytes() == getattr(record, plane).tobytes() for plane in planes)
    codes = sum(len(stream.payload) for stream in read_streams(content) if stream.coder is Coder.STATIC_CODES)
    record_property("bytes", len(content))
    assert len(content) < 0.98 * own_file
    assert codes < 1.001 * ideal


def read_streams(content):
    from fairway.artifact.layout import parse

    return parse(content).streams

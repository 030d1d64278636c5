"""Inspection accounts for every byte."""

import json
from pathlib import Path

import numpy as np
import pytest
from artifact_samples import (
    HEADER,
    binomial_codes,
    half_floats,
    parts_tensors,
    path_codes,
    sample_tensors,
)

from fairway.artifact.container import write_artifact
from fairway.artifact.inspect import inspect
from fairway.artifact.records import CodedTensor
from fairway.base.errors import ArtifactError

GOLDEN = Path(__file__).parents[1] / "golden" / "artifact"


def test_parts_and_tensors_add_up(tmp_path):
    write_artifact(tmp_path / "model.fwz", sample_tensors(), HEADER)
    found = inspect(tmp_path / "model.fwz")
    assert sum(found.parts.values()) == found.total_bytes == (tmp_path / "model.fwz").stat().st_size
    lines = {line.name: line for line in found.tensors}
    assert list(lines) == list(sample_tensors())
    codes = sum(line.code_bytes for line in lines.values() if line.entropy is not None)
    assert codes == pytest.approx(found.parts["codes"])
    assert sum(line.scale_bytes for line in lines.values()) == pytest.approx(found.parts["scales"])
    controls = sum(line.code_bytes for line in lines.values() if line.entropy is None)
    assert controls == pytest.approx(found.parts["controls"])
    assert found.header == HEADER
    assert found.weights == 24 * 16 + 2 * 12 * 16
    assert found.controls == 16 + 16 + 6 + 1
    assert lines["embedding.weight"].scheme == "int8"
    assert lines["order"].scheme == "int32"
    assert lines["blocks.0.mlp.up.weight"].group == lines["blocks.1.mlp.up.weight"].group == "blocks.*.mlp.up.weight"


def test_protected_columns_and_repairs_are_shown_and_add_up(tmp_path):
    write_artifact(tmp_path / "model.fwz", parts_tensors(), HEADER)
    found = inspect(tmp_path / "model.fwz")
    lines = {line.name: line for line in found.tensors}
    assert sum(found.parts.values()) == found.total_bytes
    assert sum(line.repair_bytes for line in found.tensors) == pytest.approx(found.parts["repairs"])
    assert sum(line.scale_bytes for line in found.tensors) == pytest.approx(found.parts["scales"])
    assert sum(line.code_bytes for line in found.tensors) == pytest.approx(found.parts["codes"] + found.parts["controls"])
    assert lines["embedding.weight"].scheme == "int5+8xint8+rank2"
    assert lines["blocks.1.mlp.up.weight"].scheme == "int5+rank2"
    assert lines["blocks.2.mlp.up.weight"].scheme == "int5"
    for name, record in parts_tensors().items():
        line = lines[name]
        repaired = isinstance(record, CodedTensor) and record.repair is not None
        assert (line.repair_bytes > 0) == repaired, name
        assert line.coded == pytest.approx(8 * line.bytes / line.elements)


def test_entropy_and_coded_bits_are_per_weight(tmp_path):
    codes = binomial_codes(256, 64, 6, 5)
    write_artifact(tmp_path / "model.fwz", {"w": CodedTensor(codes, half_floats(256, 3), 6)}, {})
    (line,) = inspect(tmp_path / "model.fwz").tensors
    share = np.bincount(codes.ravel() + 31) / codes.size
    share = share[share > 0]
    assert line.entropy == pytest.approx(-float(np.sum(share * np.log2(share))))
    assert 8 * line.code_bytes / line.elements == pytest.approx(line.entropy, rel=0.01)
    assert line.coded == pytest.approx(8 * (line.code_bytes + line.scale_bytes) / line.elements)


def test_the_dictionary_is_json(tmp_path):
    write_artifact(tmp_path / "model.fwz", sample_tensors(), HEADER)
    found = inspect(tmp_path / "model.fwz").to_dict()
    assert json.loads(json.dumps(found))["tensors"][0]["name"] == "embedding.weight"


def test_an_empty_artifact_can_be_inspected(tmp_path):
    write_artifact(tmp_path / "model.fwz", {}, {})
    found = inspect(tmp_path / "model.fwz")
    assert (found.weights, found.controls, found.tensors) == (0, 0, ())


def test_a_damaged_file_is_refused_by_name(tmp_path):
    write_artifact(tmp_path / "model.fwz", sample_tensors(), HEADER)
    content = bytearray((tmp_path / "model.fwz").read_bytes())
    content[-40] ^= 1
    (tmp_path / "model.fwz").write_bytes(content)
    with pytest.raises(ArtifactError, match=r"model\.fwz: the checksum over the file"):
        inspect(tmp_path / "model.fwz")


def test_walks_are_shown_with_their_ideal_and_their_loss():
    for name in ("format1_grid", "format1_walks"):
        found = inspect(GOLDEN / f"{name}.fwz")
        assert sum(found.parts.values()) == found.total_bytes
        assert sum(line.scale_bytes for line in found.tensors) == pytest.approx(found.parts["scales"])
        coded = [line for line in found.tensors if line.ideal is not None]
        assert sum(line.ideal * line.elements for line in coded) == pytest.approx(8 * found.ideal_bytes)
        for line in coded:
            assert line.loss == pytest.approx(8 * line.code_bytes / line.elements - line.ideal)
            # Every stream ends in whole words, which it shares in proportion.
            assert 0 <= line.loss * line.elements <= 64 + 1e-6 * line.ideal * line.elements
    lines = {line.name: line for line in inspect(GOLDEN / "format1_grid.fwz").tensors}
    assert lines["blocks.0.mlp.up.weight"].scheme == "trellis8+rank2"
    assert lines["blocks.0.mlp.up.weight"].ideal < lines["blocks.0.mlp.up.weight"].entropy
    assert lines["blocks.0.mlp_scale"].ideal is None
    assert lines["blocks.0.mlp_scale"].loss is None


def test_the_ideal_of_a_static_tensor_is_its_entropy_when_there_are_many_codes(tmp_path):
    write_artifact(tmp_path / "model.fwz", {"w": CodedTensor(binomial_codes(512, 64, 6, 5), half_floats(512, 3), 6)}, {})
    (line,) = inspect(tmp_path / "model.fwz").tensors
    assert line.entropy <= line.ideal <= 1.001 * line.entropy


def test_the_entropy_of_a_path_leaves_out_what_its_state_tells(tmp_path):
    """Half the codes are even; which ones is known from the codes above."""
    codes = path_codes(64, 32, 8, 3, 5)
    scales = np.ones(64, np.float16)
    write_artifact(tmp_path / "model.fwz", {"w": CodedTensor(codes, scales, 6, trellis=8)}, {})
    (line,) = inspect(tmp_path / "model.fwz").tensors
    expected = 0.0
    for parity in (0, 1):
        shares = np.unique(codes[codes % 2 == parity], return_counts=True)[1] / np.sum(codes % 2 == parity)
        expected -= np.mean(codes % 2 == parity) * np.sum(shares * np.log2(shares))
    assert line.scheme == "trellis8"
    assert line.entropy == pytest.approx(expected, rel=1e-12)

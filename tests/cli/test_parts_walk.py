"""Protected columns and low-rank repair through the whole command line: calibrated, packed, shown, scored and decoded."""

import json
from pathlib import Path

import pytest
import torch
from commands import command, flags
from safetensors.torch import load_file

from fairway.artifact.adapter import state_from_records
from fairway.base.values import with_fields
from fairway.config import Recipe
from fairway.score.load import TOKENIZER_RECORD, load_packed


@pytest.mark.parametrize("weighting", ["hessian", pytest.param("published", marks=pytest.mark.long)])
def test_the_parts_travel_with_the_artifact(weighting: str, quick: Recipe, corpus: Path, tmp_path: Path) -> None:
    changes = {
        "quant.embedding.bits": 7,
        "quant.protection.groups": 2,
        "quant.protection.columns": 8,
        "quant.repair.tensors": 3,
        "quant.repair.rank": 2,
        "quant.repair.weighting": weighting,
        "score.passes": ("float", "plain"),
        "score.max_tokens": 300,
    }
    recipe = with_fields(quick, changes)
    words = [*flags(recipe), "--score.passes", "float", "plain"]
    for step in (["train", "tiny", "--data", corpus, "--out", tmp_path, *words], ["pack", tmp_path], ["score", tmp_path]):
        code, _, error = command(*step)
        assert code == 0, error
    packed = load_packed(tmp_path / "model.fwz")
    state = state_from_records({n: r for n, r in packed.artifact.tensors.items() if n != TOKENIZER_RECORD})
    assert sum(len(tensor.protected.starts) for tensor in state.tensors.values() if tensor.protected) == 2
    repaired = {name for name, tensor in state.tensors.items() if tensor.repair}
    assert 1 <= len(repaired) <= 3
    weights = load_file(tmp_path / "weights.safetensors")
    for name, tensor in state.tensors.items():
        error = (tensor.dequantize() - weights[name].float()).square().mean().sqrt()
        assert float(error) < 0.4 * float(weights[name].float().square().mean().sqrt()), name
        assert torch.isfinite(tensor.dequantize()).all()
    code, out, error = command("inspect", tmp_path / "model.fwz", "--json")
    assert code == 0, error
    shown = json.loads(out)
    lines = {line["name"]: line for line in shown["tensors"]}
    assert {name for name, line in lines.items() if line["repair_bytes"] > 0} == repaired
    assert sum(shown["parts"].values()) == shown["total_bytes"]
    assert json.loads((tmp_path / "score.json").read_text())["passes"]["plain"]["bits_per_byte"] > 0
    code, _, error = command("prove", tmp_path, "--tokens", 200, "--pass", "plain")
    assert code == 0, error
    assert json.loads((tmp_path / "proof.json").read_text())["decoded_exactly"]

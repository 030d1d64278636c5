"""The trellis through the command line: gradients measured, a target filled, and the artifact read back bit for bit."""

from pathlib import Path

import pytest

from cli.commands import command, flags
from fairway.artifact.adapter import state_from_records
from fairway.base.values import with_fields
from fairway.config import Recipe
from fairway.score.load import TOKENIZER_RECORD, load_packed

PARTS = ("attention", "mlp", "embedding")
FINE = {"states": 8, "scale_grid": 8, "column_steps": "conditional"}
CENTROIDS = [f"--quant.{part}.centroids" for part in PARTS]


@pytest.mark.long
def test_a_target_on_the_command_line_is_filled(quick: Recipe, corpus: Path, tmp_path: Path) -> None:
    changes = {f"quant.{part}.{name}": value for part in PARTS for name, value in FINE.items()}
    recipe = with_fields(quick, {**changes, "quant.sensitivity_batches": 2})
    code, _, error = command("train", "tiny", "--data", corpus, "--out", tmp_path, *flags(recipe), *CENTROIDS)
    assert code == 0, error
    code, _, error = command("pack", tmp_path)
    assert code == 0, error
    target = int((tmp_path / "model.fwz").stat().st_size * 0.9)
    code, _, error = command("pack", tmp_path, "--target-bytes", target)
    assert code == 0, error
    assert target * 0.995 <= (tmp_path / "model.fwz").stat().st_size <= target
    packed = load_packed(tmp_path / "model.fwz")
    assert packed.header["quant"]["target_bytes"] == target
    state = state_from_records({n: r for n, r in packed.artifact.tensors.items() if n != TOKENIZER_RECORD})
    for tensor in state.tensors.values():
        assert (tensor.trellis, tensor.scale_grid) == (8, 8)
        assert tensor.column_scales is not None
    code, _, error = command("pack", tmp_path, "--target-bytes", 900)
    assert code == 1
    assert "above the target of 900" in error

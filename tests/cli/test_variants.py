"""The parts of the later systems through the whole command line: lanes, Hessian-aware steps, frozen blocks, AdamW."""

import json
from pathlib import Path

import pytest
import torch
from commands import command, flags
from safetensors.torch import load_file

from fairway.artifact.adapter import state_from_records
from fairway.base.values import with_fields
from fairway.config import Recipe, SchemeConfig
from fairway.quant.clip import sdclip
from fairway.quant.types import QuantizedState
from fairway.score.load import TOKENIZER_RECORD, load_packed


@pytest.fixture(scope="module")
def varied(quick: Recipe) -> Recipe:
    changes = {
        "model.residual.topology": "routed_lanes",
        "model.residual.parallel_from": 3,
        "quant.attention.importance": 0.175,
        "quant.mlp.importance": 0.175,
        "quant.embedding.importance": 0.5,
        "score.max_tokens": 600,
        "score.adaptation.frozen_blocks": 2,
        "score.adaptation.optimizer": "adamw",
        "score.adaptation.weight_decay": 0.1,
        "score.adaptation.learning_rate": 0.002,
        "score.adaptation.window_key": "last_input",
    }
    return with_fields(quick, changes)


@pytest.fixture(scope="module")
def folder(varied: Recipe, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "varied"
    for words in (["train", "tiny", "--data", corpus, "--out", out, *flags(varied)], ["pack", out], ["score", out]):
        code, _, error = command(*words)
        assert code == 0, error
    return out


def packed_state(folder: Path) -> QuantizedState:
    tensors = load_packed(folder / "model.fwz").artifact.tensors
    return state_from_records({name: record for name, record in tensors.items() if name != TOKENIZER_RECORD})


def test_the_pass_adapts_within_its_limits_and_is_decoded(folder: Path) -> None:
    passes = json.loads((folder / "score.json").read_text())["passes"]
    assert passes["adapted"]["bits_per_byte"] < passes["sliding"]["bits_per_byte"]
    code, _, error = command("prove", folder, "--tokens", 300, "--pass", "adapted")
    assert code == 0, error
    assert json.loads((folder / "proof.json").read_text())["decoded_exactly"]


def test_the_steps_of_the_artifact_are_hessian_aware_and_its_lanes_exact(folder: Path, varied: Recipe) -> None:
    weights, state = load_file(folder / "weights.safetensors"), packed_state(folder)
    for name, tensor in state.tensors.items():
        scheme: SchemeConfig = varied.quant.embedding if name == "embedding.weight" else varied.quant.mlp
        plain = sdclip(weights[name].float(), None, with_fields(scheme, {"importance": 0.0}))
        factor = (tensor.scales.float() / plain.float()).numpy()
        assert factor.min() >= (1 - scheme.importance) * (1 - 2**-9)
        assert factor.mean() == pytest.approx(1.0, abs=2e-3)
        assert factor.std() > 0
    for name, control in state.controls.items():
        assert torch.equal(control, weights[name].to(torch.float16)), name
    assert {"residual.write_weight", "residual.keep_weight"} <= set(state.controls)


def test_packing_again_gives_the_same_file(folder: Path) -> None:
    before = (folder / "model.fwz").read_bytes()
    code, _, error = command("pack", folder)
    assert code == 0, error
    assert (folder / "model.fwz").read_bytes() == before

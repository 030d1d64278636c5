"""Parity with the reference's PR #1413 network: losses, logits, gradients and variants, recurrence off and on."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from fairway.config import ModelConfig
from fairway.model.gpt import GPT
from reference_names import PER_LAYER, WHOLE, to_fairway

GOLDEN = Path(__file__).parent.parent / "golden" / "model"
CONFIG = ModelConfig(
    vocab_size=256, layers=11, width=64, query_heads=4, kv_heads=2, mlp_hidden=128, rotary_channels=8, query_gain=5.0
)
MODES = [("plain", False), ("looped", True)]
VECTORS = ["attn_scale", "mlp_scale", "resid_mix", "attn.q_gain"]
MATRICES = [name for name in PER_LAYER if name not in VECTORS]


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    with np.load(GOLDEN / "case_1413.npz") as arrays:
        return {name: arrays[name] for name in arrays.files}


@pytest.fixture(scope="module")
def batch(golden):
    return torch.from_numpy(golden["inputs.ids"]), torch.from_numpy(golden["inputs.targets"])


def network(**changes) -> GPT:
    model = GPT(replace(CONFIG, **changes))
    model.load_state_dict(to_fairway(load_file(GOLDEN / "state_1413.safetensors"), CONFIG.layers))
    return model


def token_losses(model, ids, targets, recurrent):
    logits = model.logits(model.hidden(ids, recurrent=recurrent))
    return nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten().long(), reduction="none").view(ids.shape)


def relative_error(found, expected):
    found = found.numpy()
    assert found.shape == expected.shape
    if not expected.any():
        return float(np.abs(found).max())
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


@pytest.mark.parametrize(("mode", "recurrent"), MODES)
def test_float32_outputs(golden, batch, mode, recurrent):
    model, (ids, targets) = network(), batch
    with torch.no_grad():
        hidden = model.hidden(ids, recurrent=recurrent)
        logits, losses = model.logits(hidden), token_losses(model, ids, targets, recurrent)
    np.testing.assert_allclose(losses.numpy(), golden[f"{mode}.ce"], rtol=0, atol=5e-5)
    np.testing.assert_allclose(logits[:1, ::4].numpy(), golden[f"{mode}.logits"], rtol=0, atol=5e-5)
    np.testing.assert_allclose(hidden[:1].numpy(), golden[f"{mode}.final_hidden"], rtol=0, atol=3e-5)


@pytest.mark.parametrize(("mode", "recurrent"), MODES)
def test_float64_outputs(golden, batch, mode, recurrent):
    model, (ids, targets) = network(), batch
    model.compute_dtype = torch.float64
    with torch.no_grad():
        losses, loss = token_losses(model, ids, targets, recurrent), model(ids, targets, recurrent=recurrent)
    np.testing.assert_allclose(losses.numpy(), golden[f"{mode}.ce_f64"], rtol=0, atol=1e-10)
    assert loss.item() == pytest.approx(golden[f"{mode}.train_loss_f64"].item(), abs=1e-10)


@pytest.mark.parametrize(("mode", "recurrent"), MODES)
def test_training_loss_and_gradients(golden, batch, mode, recurrent):
    model = network()
    loss = model(*batch, recurrent=recurrent)
    assert loss.item() == pytest.approx(golden[f"{mode}.train_loss"].item(), abs=1e-5)
    parameters = dict(model.named_parameters())
    grads = dict(zip(parameters, torch.autograd.grad(loss, list(parameters.values())), strict=True))
    errors = {}
    for key in ("skip_weights", "skip_gates"):
        errors[key] = relative_error(grads[WHOLE[key]], golden[f"{mode}.grad.{key}"])
    stacks = {key: torch.stack([grads[f"blocks.{i}.{ours}"] for i in range(11)]) for key, ours in PER_LAYER.items()}
    for key in VECTORS:
        errors[key] = relative_error(stacks[key], golden[f"{mode}.grad.blocks.*.{key}"])
    right, left = torch.from_numpy(golden["inputs.proj_right"]), torch.from_numpy(golden["inputs.proj_left"])
    matrices = {f"blocks.*.{key}": stacks[key] for key in MATRICES} | {"tok_emb.weight": grads["embedding.weight"]}
    for key, grad in matrices.items():
        prefix = f"{mode}.grad.{key}"
        errors[f"{key}.right"] = relative_error(grad @ right[: grad.shape[-1]], golden[f"{prefix}.right"])
        errors[f"{key}.left"] = relative_error(grad.mT @ left[: grad.shape[-2]], golden[f"{prefix}.left"])
        errors[f"{key}.norm"] = relative_error(grad.flatten(-2).norm(dim=-1), golden[f"{prefix}.norm"])
        errors[f"{key}.corner"] = relative_error(grad[..., :3, :5], golden[f"{prefix}.corner"])
    errors["rows"] = relative_error(grads["embedding.weight"][:12], golden[f"{mode}.grad.tok_emb.weight.rows"])
    assert max(errors.values()) < 1e-4, max(errors.items(), key=lambda item: item[1])


def test_skip_rows_beyond_the_used_slots_have_zero_gradient(batch):
    model = network()
    loss = model(*batch, recurrent=False)
    for grad in torch.autograd.grad(loss, [model.get_parameter("skips.weight"), model.get_parameter("skips.gate")]):
        assert grad[:5].any()
        assert not grad[5:].any()


@pytest.mark.parametrize(
    ("variant", "change"),
    [("var_xsa_last_4", {"exclusive_attention_layers": 4}), ("var_rope_exact", {"rotary_bfloat16": False})],
)
def test_variants(golden, batch, variant, change):
    model = network(**change)
    with torch.no_grad():
        logits = model.logits(model.hidden(batch[0], recurrent=True))
    np.testing.assert_allclose(logits[:, -6:].numpy(), golden[f"{variant}.logits_tail"], rtol=0, atol=5e-5)


def test_rotary_tables_and_schedules(golden):
    model = network()
    rotation = model.rotary.rows(64, torch.device("cpu"), torch.float32)
    np.testing.assert_array_equal(model.rotary.frequencies.numpy(), golden["rope_inv_freq"])
    np.testing.assert_allclose(rotation.cos.numpy(), golden["rope_cos"], atol=1e-6)
    np.testing.assert_allclose(rotation.sin.numpy(), golden["rope_sin"], atol=1e-6)
    for mode, recurrent in MODES:
        assert list(model.schedules[recurrent].encoder) == golden[f"schedule.enc_{mode}"].tolist()
        assert list(model.schedules[recurrent].decoder) == golden[f"schedule.dec_{mode}"].tolist()

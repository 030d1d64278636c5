"""Parity with the reference's networks: losses, logits, gradients and variants of four systems, recurrence off and on."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from fairway.model.gpt import GPT
from fairway.recipes import recipe
from reference_names import PER_LAYER, WHOLE, to_fairway

GOLDEN = Path(__file__).parent.parent / "golden" / "model"
MODES = [("plain", False), ("looped", True)]
MATRICES = [name for name in PER_LAYER if name.endswith(".weight")]
INPUTS = dict(np.load(GOLDEN / "inputs.npz"))
BATCH = torch.from_numpy(INPUTS["ids"]), torch.from_numpy(INPUTS["targets"])


class System:
    """A published network at the size of the stored state, and what the reference computed with it."""

    def __init__(self, name: str) -> None:
        self.config = replace(
            recipe(name).model, vocab_size=256, width=64, query_heads=4, kv_heads=2, mlp_hidden=128, rotary_channels=8
        )
        with np.load(GOLDEN / f"{name}.npz") as arrays:
            self.golden = {key: arrays[key] for key in arrays.files}

    def state(self) -> dict[str, torch.Tensor]:
        """The stored state under our names, float32."""
        tensors = {}
        for name in (name for name in self.golden if name.startswith("state.")):
            key, value = name.removeprefix("state."), self.golden[name]
            if value.dtype == np.uint8:
                high, low = value.astype(np.uint16)
                value = (high << 8 | low).view(np.float16)
            tensor = torch.from_numpy(value)
            stacked = "*" in key
            tensors |= {key.replace("*", str(i)): row for i, row in enumerate(tensor)} if stacked else {key: tensor}
        return to_fairway(tensors, self.config.layers)

    def network(self, **changes) -> GPT:
        """The network with the stored state."""
        model = GPT(replace(self.config, **changes))
        model.load_state_dict(self.state())
        return model


@pytest.fixture(scope="module", params=["pr1413", "pr1533", "pr1557", "pr1776"])
def system(request) -> System:
    return System(request.param)


def token_losses(logits):
    return nn.functional.cross_entropy(logits.flatten(0, 1), BATCH[1].flatten().long(), reduction="none").view(BATCH[1].shape)


def relative_error(found, expected):
    """``|found - expected| / |expected|``; entries that are exactly zero in ``expected`` must be so in ``found``."""
    found = found.detach().numpy()
    assert found.shape == expected.shape
    assert not found[expected == 0].any()
    return float(np.linalg.norm(found - expected) / max(np.linalg.norm(expected), np.finfo(np.float32).tiny))


@pytest.mark.parametrize(("mode", "recurrent"), MODES)
def test_float32_outputs(system, mode, recurrent):
    model, golden = system.network(), system.golden
    with torch.no_grad():
        hidden = model.hidden(BATCH[0], recurrent=recurrent)
        logits, loss = model.logits(hidden), model(*BATCH, recurrent=recurrent)
    np.testing.assert_allclose(token_losses(logits).numpy(), golden[f"{mode}.ce_f64"], rtol=0, atol=5e-5)
    np.testing.assert_allclose(logits[:1, 31::32].numpy(), golden[f"{mode}.logits"], rtol=0, atol=5e-5)
    np.testing.assert_allclose(hidden[:1, 31::32].numpy(), golden[f"{mode}.final_hidden"], rtol=0, atol=3e-5)
    assert loss.item() == pytest.approx(golden[f"{mode}.train_loss_f64"].item(), abs=1e-5)


@pytest.mark.parametrize(("mode", "recurrent"), MODES)
def test_float64_outputs(system, mode, recurrent):
    model, golden = system.network(), system.golden
    model.compute_dtype = torch.float64
    with torch.no_grad():
        losses = token_losses(model.logits(model.hidden(BATCH[0], recurrent=recurrent)))
        loss = model(*BATCH, recurrent=recurrent)
    np.testing.assert_allclose(losses.numpy(), golden[f"{mode}.ce_f64"], rtol=0, atol=1e-10)
    assert loss.item() == pytest.approx(golden[f"{mode}.train_loss_f64"].item(), abs=1e-10)


def gradients(model, recurrent):
    """Gradients of the mean loss under reference keys, layers stacked under ``*``."""
    parameters = dict(model.named_parameters())
    loss = model(*BATCH, recurrent=recurrent)
    grads = dict(zip(parameters, torch.autograd.grad(loss, list(parameters.values())), strict=True))
    stacks = {
        f"blocks.*.{key}": torch.stack([grads[f"blocks.{i}.{ours}"] for i in range(11)]) for key, ours in PER_LAYER.items()
    }
    return stacks | {key: grads[ours] for key, ours in WHOLE.items() if ours in grads}


@pytest.mark.parametrize(("mode", "recurrent"), MODES)
def test_gradients_of_every_tensor(system, mode, recurrent):
    right, left = torch.from_numpy(INPUTS["proj_right"]), torch.from_numpy(INPUTS["proj_left"])
    errors = {}
    for key, grad in gradients(system.network(), recurrent).items():
        prefix = f"{mode}.grad.{key}"
        if key == "tok_emb.weight" or key.removeprefix("blocks.*.") in MATRICES:
            projected = grad @ right[: grad.shape[-1]]
            found = {
                ".right": projected[..., ::8],
                ".both": projected @ left[: grad.shape[-2]],
                ".norm": grad.flatten(-2).norm(dim=-1),
            }
        else:
            found = {"": grad[..., ::8] if grad.shape[-1:] == (64,) else grad}
        errors |= {key + kind: relative_error(value, system.golden[prefix + kind]) for kind, value in found.items()}
    stored = {name.removeprefix(f"{mode}.grad.") for name in system.golden if name.startswith(f"{mode}.grad.")}
    assert errors.keys() == stored
    assert max(errors.values()) < 1e-4, max(errors.items(), key=lambda item: item[1])


def test_unread_rows_have_zero_gradient(system):
    """Skip rows beyond the slots of the plain schedule, and lane weights of layers before the lanes."""
    grads = gradients(system.network(), recurrent=False)
    unread = {"skip_weights": 5, "skip_gates": 5, "parallel_post_lambdas": 7, "parallel_resid_lambdas": 7}
    for key, rows in unread.items():
        if key.startswith("skip"):
            assert grads[key][:rows].flatten(1).any(1).all()
            assert not grads[key][rows:].any()
        elif key in grads:
            assert not grads[key][:rows].any()
            assert grads[key][rows:].all()


@pytest.mark.parametrize(
    ("variant", "change"),
    [("var_xsa_last_4", {"exclusive_attention_layers": 4}), ("var_rope_exact", {"rotary_bfloat16": False})],
)
def test_variants(system, variant, change):
    model = system.network(**change)
    with torch.no_grad():
        logits = model.logits(model.hidden(BATCH[0], recurrent=True))
    np.testing.assert_allclose(logits[:, -1].numpy(), system.golden[f"{variant}.logits_tail"], rtol=0, atol=5e-5)


def test_schedules(system):
    schedules = system.network().schedules
    for mode, recurrent in MODES:
        assert list(schedules[recurrent].encoder) == system.golden[f"schedule.enc_{mode}"].tolist()
        assert list(schedules[recurrent].decoder) == system.golden[f"schedule.dec_{mode}"].tolist()


def test_rotary_tables(system):
    model = system.network()
    rotation = model.rotary.rows(64, torch.device("cpu"), torch.float32)
    np.testing.assert_array_equal(model.rotary.frequencies.numpy(), INPUTS["rope_inv_freq"])
    np.testing.assert_allclose(rotation.cos.numpy(), INPUTS["rope_cos"], atol=1e-6)
    np.testing.assert_allclose(rotation.sin.numpy(), INPUTS["rope_sin"], atol=1e-6)

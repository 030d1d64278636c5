"""Parity with the reference's networks: losses, logits, gradients and variants of five systems, recurrence off and on."""

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from fairway.kernels.attention import Segments
from fairway.model.gpt import GPT
from fairway.recipes import recipe
from reference_names import PER_LAYER, WHOLE, to_fairway

GOLDEN = Path(__file__).parent.parent / "golden" / "model"
MODES = [("plain", False), ("looped", True)]
SYSTEMS = ["pr1413", "pr1533", "pr1557", "pr1776", "pr2140"]
DENSE = [(name, mode) for name in SYSTEMS for mode, _ in MODES]
PACKED = [("pr2140", f"{pack}_{mode}") for pack in ("packA", "packB") for mode, _ in MODES]
MATRICES = [name for name in PER_LAYER if name.endswith(".weight")]
INPUTS = dict(np.load(GOLDEN / "inputs.npz"))
BATCH = torch.from_numpy(INPUTS["ids"]), torch.from_numpy(INPUTS["targets"])


class Case:
    """Rows of tokens, dense or packed, and whether recurrence runs; named like the stored arrays."""

    def __init__(self, name: str) -> None:
        pack, _, mode = name.rpartition("_")
        self.recurrent, self.segments, prefix = mode == "looped", None, f"{pack}." if pack else ""
        self.ids, self.targets = (torch.from_numpy(INPUTS[prefix + key]) for key in ("ids", "targets"))
        if pack:
            length = self.ids.shape[1]
            longest = int(INPUTS[f"{pack}.max_piece"]) or length
            self.segments = Segments.cut(INPUTS[f"{pack}.bos_positions"].tolist(), length, longest)
            assert self.segments.starts.tolist() == INPUTS[f"{pack}.cu_seqlens"].tolist()

    def hidden(self, model: GPT) -> torch.Tensor:
        return model.hidden(self.ids, recurrent=self.recurrent, segments=self.segments)

    def loss(self, model: GPT) -> torch.Tensor:
        return model(self.ids, self.targets, recurrent=self.recurrent, segments=self.segments)

    def token_losses(self, logits: torch.Tensor) -> torch.Tensor:
        flat = nn.functional.cross_entropy(logits.flatten(0, 1), self.targets.flatten().long(), reduction="none")
        return flat.view(self.targets.shape)


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


published = cache(System)


@pytest.fixture(scope="module", params=SYSTEMS)
def system(request) -> System:
    return published(request.param)


def relative_error(found, expected):
    """``|found - expected| / |expected|``; entries that are exactly zero in ``expected`` must be so in ``found``."""
    found = found.detach().numpy()
    assert found.shape == expected.shape
    assert not found[expected == 0].any()
    return float(np.linalg.norm(found - expected) / max(np.linalg.norm(expected), np.finfo(np.float32).tiny))


@pytest.mark.parametrize(("name", "mode"), DENSE + PACKED)
def test_float32_outputs(name, mode):
    model, golden, case = published(name).network(), published(name).golden, Case(mode)
    with torch.no_grad():
        hidden = case.hidden(model)
        logits, loss = model.logits(hidden), case.loss(model)
    np.testing.assert_allclose(case.token_losses(logits).numpy(), golden[f"{mode}.ce_f64"], rtol=0, atol=5e-5)
    if f"{mode}.logits" in golden:
        np.testing.assert_allclose(logits[:1, 31::32].numpy(), golden[f"{mode}.logits"], rtol=0, atol=5e-5)
        np.testing.assert_allclose(hidden[:1, 31::32].numpy(), golden[f"{mode}.final_hidden"], rtol=0, atol=3e-5)
    assert loss.item() == pytest.approx(golden[f"{mode}.train_loss_f64"].item(), abs=1e-5)


@pytest.mark.parametrize(("name", "mode"), DENSE + PACKED)
def test_float64_outputs(name, mode):
    model, golden, case = published(name).network(), published(name).golden, Case(mode)
    model.compute_dtype = torch.float64
    with torch.no_grad():
        losses, loss = case.token_losses(model.logits(case.hidden(model))), case.loss(model)
    np.testing.assert_allclose(losses.numpy(), golden[f"{mode}.ce_f64"], rtol=0, atol=1e-10)
    assert loss.item() == pytest.approx(golden[f"{mode}.train_loss_f64"].item(), abs=1e-10)


def gradients(model, case):
    """Gradients of the mean loss under reference keys, layers stacked under ``*``."""
    parameters = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    grads = dict(zip(parameters, torch.autograd.grad(case.loss(model), list(parameters.values())), strict=True))
    stacks = {
        f"blocks.*.{key}": torch.stack([grads[f"blocks.{i}.{ours}"] for i in range(11)])
        for key, ours in PER_LAYER.items()
        if f"blocks.0.{ours}" in grads
    }
    return stacks | {key: grads[ours] for key, ours in WHOLE.items() if ours in grads}


@pytest.mark.parametrize(("name", "mode"), [*DENSE, ("pr2140", "packB_looped")])
def test_gradients_of_every_tensor(name, mode):
    right, left = torch.from_numpy(INPUTS["proj_right"]), torch.from_numpy(INPUTS["proj_left"])
    errors, golden = {}, published(name).golden
    for key, grad in gradients(published(name).network(), Case(mode)).items():
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
        errors |= {key + kind: relative_error(value, golden[prefix + kind]) for kind, value in found.items()}
    stored = {name.removeprefix(f"{mode}.grad.") for name in golden if name.startswith(f"{mode}.grad.")}
    assert errors.keys() == stored
    assert max(errors.values()) < 1e-4, max(errors.items(), key=lambda item: item[1])


def test_unread_rows_have_zero_gradient(system):
    """Skip rows beyond the slots of the plain schedule, and lane weights of layers before the lanes."""
    grads, first = gradients(system.network(), Case("plain")), system.config.residual.parallel_from
    unread = {"skip_weights": 5, "skip_gates": 5, "parallel_post_lambdas": first, "parallel_resid_lambdas": first}
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

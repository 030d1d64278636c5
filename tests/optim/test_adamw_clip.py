from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import Parameter

from fairway.config import AdamConfig
from fairway.optim.adamw import adamw
from fairway.optim.clip import clip_gradients

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "optim" / "adamw_clip.npz")


def run(pr: str, group: str, dtype: torch.dtype):
    """Yield step, weight, first and second moment of a golden run."""
    short = {"embedding": "embed", "scalar": "scalar"}[group]
    value = {
        name: float(GOLDEN[f"{pr}.config.{name}"]) for name in (f"{short}_lr", f"{short}_wd", "beta1", "beta2", "adam_eps")
    }
    config = AdamConfig(
        learning_rate=value[f"{short}_lr"],
        weight_decay=value[f"{short}_wd"],
        beta1=value["beta1"],
        beta2=value["beta2"],
        epsilon=value["adam_eps"],
    )
    weight = Parameter(torch.from_numpy(GOLDEN[f"{group}.param0"]).to(dtype))
    optimizer = adamw([weight], config)
    for step, multiplier in enumerate(GOLDEN["lr_multiplier"]):
        weight.grad = torch.from_numpy(GOLDEN[f"{group}.grad"][step]).to(dtype)
        optimizer.param_groups[0]["lr"] = config.learning_rate * float(multiplier)
        optimizer.step()
        state = optimizer.state[weight]
        yield step, {"param": weight.detach(), "exp_avg": state["exp_avg"], "exp_avg_sq": state["exp_avg_sq"]}


@pytest.mark.parametrize("pr", ["1413", "1533", "1776", "2140"])
@pytest.mark.parametrize("group", ["embedding", "scalar"])
def test_float32_matches_the_reference(pr, group):
    for step, tensors in run(pr, group, torch.float32):
        for name, tensor in tensors.items():
            expected = torch.from_numpy(GOLDEN[f"{pr}.{group}.{name}"][step])
            torch.testing.assert_close(tensor, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("pr", ["1413", "2140"])
def test_a_bfloat16_embedding_matches_within_one_ulp(pr):
    for step, tensors in run(pr, "embedding", torch.bfloat16):
        for name, tensor in tensors.items():
            expected = torch.from_numpy(GOLDEN[f"{pr}.embedding_bf16.{name}"][step])
            assert tensor.dtype == torch.bfloat16
            torch.testing.assert_close(tensor.float(), expected, rtol=torch.finfo(torch.bfloat16).eps, atol=0)


def test_the_worked_bfloat16_step():
    weight = Parameter(torch.tensor([0.005, -0.004, 0.0031], dtype=torch.bfloat16))
    weight.grad = torch.tensor([1e-4, -2e-3, 3e-5], dtype=torch.bfloat16)
    adamw([weight], AdamConfig(learning_rate=0.03, weight_decay=0.085)).step()
    torch.testing.assert_close(weight.detach().float(), torch.tensor([-0.0250244, 0.0260010, -0.0268555]), rtol=0, atol=1e-7)


@pytest.mark.parametrize("case", ["big", "small"])
def test_clipping_matches_the_reference(case):
    parameters = [Parameter(torch.zeros(GOLDEN[f"clip.{case}.grad{index}"].shape)) for index in range(3)]
    for index, parameter in enumerate(parameters):
        parameter.grad = torch.from_numpy(GOLDEN[f"clip.{case}.grad{index}"])
    norm = clip_gradients(parameters, 0.3)
    assert norm.item() == pytest.approx(float(GOLDEN[f"clip.{case}.norm"]), rel=1e-6)
    for index, parameter in enumerate(parameters):
        expected = torch.from_numpy(GOLDEN[f"clip.{case}.clipped{index}"])
        torch.testing.assert_close(parameter.grad, expected, rtol=1e-6, atol=0)


def test_clipping_mixes_float32_and_bfloat16():
    first, second = Parameter(torch.zeros(2)), Parameter(torch.zeros(2, dtype=torch.bfloat16))
    first.grad, second.grad = torch.tensor([3.0, 0.0]), torch.tensor([0.0, 4.0], dtype=torch.bfloat16)
    assert clip_gradients([first, second], 0.3).item() == pytest.approx(5.0)
    torch.testing.assert_close(first.grad, torch.tensor([0.18, 0.0]))
    torch.testing.assert_close(second.grad.float(), torch.tensor([0.0, 0.24023]), rtol=1e-4, atol=0)


def test_a_bfloat16_norm_is_not_rounded():
    parameter = Parameter(torch.zeros(1000, dtype=torch.bfloat16))
    parameter.grad = torch.ones(1000, dtype=torch.bfloat16)
    assert clip_gradients([parameter], 0.0).item() == pytest.approx(1000**0.5, rel=1e-6)


def test_a_limit_of_zero_measures_only_and_missing_gradients_are_left_out():
    with_gradient, without = Parameter(torch.zeros(2)), Parameter(torch.zeros(2))
    with_gradient.grad = torch.tensor([30.0, 40.0])
    assert clip_gradients([with_gradient, without], 0.0).item() == pytest.approx(50.0)
    assert torch.equal(with_gradient.grad, torch.tensor([30.0, 40.0]))

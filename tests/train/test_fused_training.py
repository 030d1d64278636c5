"""``machine.fused_kernels`` reaches the loss and every MLP of a training network, and changes nothing but rounding."""

import pytest
import torch

from fairway.config import MachineConfig
from fairway.model.gpt import GPT
from fairway.train.distributed import Ranks
from fairway.train.loop import new_learner
from fairway.train.machine import Machine, choose


def machine(fused: bool) -> Machine:
    return Machine(torch.device("cpu"), torch.float32, False, {}, fused_kernels=fused)


def step(model: GPT, recurrent: bool) -> dict[str, torch.Tensor]:
    ids = torch.randint(model.config.vocab_size, (2, 32), generator=torch.Generator().manual_seed(0))
    model(ids, ids.roll(-1, 1), recurrent=recurrent).backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("recurrent", [False, True])
def test_gradients_agree_with_those_of_plain_operations(quick, recurrent):
    models = [new_learner(quick, machine(fused), Ranks(0, 1)).model for fused in (False, True)]
    assert [model.fused_loss for model in models] == [False, True]
    assert [{block.mlp.fused for block in model.blocks} for model in models] == [{False}, {True}]
    for model in models:
        for seed, parameter in enumerate(model.parameters()):
            parameter.data.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed)))
    plain, fused = (step(model, recurrent) for model in models)
    for name, gradient in plain.items():
        torch.testing.assert_close(fused[name], gradient, atol=1e-6, rtol=1e-4, msg=lambda text, name=name: f"{name}: {text}")


def test_a_cpu_trains_with_plain_operations(quick):
    assert not new_learner(quick, choose(MachineConfig(device="cpu")), Ranks(0, 1)).model.fused_loss

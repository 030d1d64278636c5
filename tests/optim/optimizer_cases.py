"""What the tests of the optimizers share: a network that computes nothing, its gradients, and steps on one or more ranks."""

from collections.abc import Callable

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from fairway.config import MuonConfig, OptimConfig
from fairway.optim.optimizer import Optimizers
from fairway.optim.schedules import ScheduleValues

WIDTH, HIDDEN, KV, VOCAB = 12, 24, 6, 17


def shapes(layers: int, *, gate: bool = True) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a small network, as the model room names them."""
    named: dict[str, tuple[int, ...]] = {"embedding.weight": (VOCAB, WIDTH)}
    for i in range(layers):
        block = f"blocks.{i}"
        for name, rows in (("query", WIDTH), ("key", KV), ("value", KV), ("output", WIDTH)):
            named[f"{block}.attention.{name}.weight"] = (rows, WIDTH)
        named |= {f"{block}.mlp.up.weight": (HIDDEN, WIDTH), f"{block}.mlp.down.weight": (WIDTH, HIDDEN)}
        named |= {f"{block}.attention.query_gain": (4,), f"{block}.residual_mix": (2, WIDTH)}
        named |= {f"{block}.attention_scale": (WIDTH,), f"{block}.mlp_scale": (WIDTH,)}
    named["skips.weight"] = (layers // 2, WIDTH)
    if gate:
        named["skips.gate"] = (layers // 2, WIDTH)
    return named


def network(layers: int = 3, seed: int = 0) -> nn.Module:
    """A tree of modules with the right parameter names and random values; it computes nothing."""
    generator = torch.Generator().manual_seed(seed)
    root = nn.Module()
    for name, shape in shapes(layers).items():
        *path, leaf = name.split(".")
        node = root
        for part in path:
            if part not in node._modules:
                node.add_module(part, nn.Module())
            node = node.get_submodule(part)
        node.register_parameter(leaf, nn.Parameter(torch.randn(shape, generator=generator)))
    return root


def optim_config(layout: str) -> OptimConfig:
    return OptimConfig(matrices=MuonConfig(layout=layout))


def accumulate(parameter: nn.Parameter, gradient: torch.Tensor) -> None:
    """Add to a gradient as a backward pass does: in place where there is one."""
    if parameter.grad is None:
        parameter.grad = gradient.clone()
    else:
        parameter.grad += gradient


def give_gradients(model: nn.Module, seed: int, share: float = 1.0) -> None:
    """Random gradients of one step, times ``share``."""
    generator = torch.Generator().manual_seed(1000 + seed)
    for parameter in model.parameters():
        accumulate(parameter, share * torch.randn(parameter.shape, generator=generator).to(parameter))


def values(step: int) -> ScheduleValues:
    return ScheduleValues(learning_rate=1 - 0.04 * step, momentum=0.9 + 0.004 * step, recurrent=False)


def train(model: nn.Module, optimizers: Optimizers, first: int, last: int, share: float = 1.0) -> list[float]:
    """Steps ``first`` to ``last`` with given gradients; returns the norms before clipping."""
    norms = []
    for step in range(first, last):
        give_gradients(model, step, share)
        norms.append(optimizers.reduce_clip_and_step(values(step)).item())
        optimizers.zero_grad()
    return norms


def whole_state(model: nn.Module, optimizers: Optimizers) -> dict[str, torch.Tensor]:
    """Weights and optimizer state, detached from the live tensors; every rank calls it."""
    optimizers.synchronize()
    return {name: tensor.clone() for name, tensor in (model.state_dict() | optimizers.state_dict()).items()}


def on_ranks(world_size: int, folder: str, task: Callable[..., object], *arguments: object) -> list[object]:
    """Results of ``task(rank, world_size, *arguments)`` on each of ``world_size`` gloo processes."""
    mp.spawn(_enter, (world_size, folder, task, arguments), nprocs=world_size)
    return [torch.load(f"{folder}/rank{rank}.pt") for rank in range(world_size)]


def _enter(rank: int, world_size: int, folder: str, task: Callable[..., object], arguments: tuple[object, ...]) -> None:
    torch.set_num_threads(1)
    store = dist.FileStore(f"{folder}/store", world_size)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world_size)
    try:
        torch.save(task(rank, world_size, *arguments), f"{folder}/rank{rank}.pt")
    finally:
        dist.destroy_process_group()

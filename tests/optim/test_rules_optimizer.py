import pytest
import torch
import torch.multiprocessing as mp
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from fairway.base.errors import DataError, RecipeError
from fairway.config import OptimConfig
from fairway.optim.optimizer import build
from fairway.optim.rules import parameter_groups
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


def give_gradients(model: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(1000 + seed)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator).to(parameter.dtype)


def values(step: int) -> ScheduleValues:
    return ScheduleValues(learning_rate=1 - 0.1 * step, momentum=0.9 + 0.01 * step, recurrent=False)


def train(model: nn.Module, optimizers, first: int, last: int) -> None:
    for step in range(first, last):
        give_gradients(model, step)
        optimizers.clip_and_step(values(step))
        optimizers.zero_grad()


def test_every_parameter_has_one_group():
    groups = parameter_groups(shapes(3))
    assert list(groups) == list(shapes(3))
    counts = {group: list(groups.values()).count(group) for group in ("matrices", "embedding", "scalars")}
    assert counts == {"matrices": 18, "embedding": 1, "scalars": 14}
    assert groups["blocks.2.mlp.down.weight"] == "matrices"
    assert groups["skips.gate"] == "scalars"


def test_a_network_without_gates_is_covered_and_an_unknown_parameter_is_not():
    assert "skips.gate" not in parameter_groups(shapes(3, gate=False))
    with pytest.raises(RecipeError, match="lane_merge has 0 rules"):
        parameter_groups([*shapes(3), "lane_merge"])
    with pytest.raises(RecipeError, match=r"match no parameter: embedding\.weight"):
        parameter_groups([name for name in shapes(3) if name != "embedding.weight"])


def test_learning_rates_are_the_groups_own_times_the_schedule():
    model = network()
    config = OptimConfig()
    optimizers = build(model, config)
    give_gradients(model, 0)
    optimizers.step(values(2))
    rates = {group: optimizer.param_groups[0]["lr"] for group, optimizer in optimizers.optimizers.items()}
    assert rates == pytest.approx({"matrices": 0.02 * 0.8, "embedding": 0.03 * 0.8, "scalars": 0.02 * 0.8})
    assert optimizers.optimizers["matrices"].param_groups[0]["momentum"] == pytest.approx(0.92)


def test_clip_and_step_returns_the_norm_before_clipping_and_zero_grad_releases():
    model = network()
    optimizers = build(model, OptimConfig())
    give_gradients(model, 0)
    expected = torch.cat([parameter.grad.flatten() for parameter in model.parameters()]).norm()
    assert optimizers.clip_and_step(values(0)).item() == pytest.approx(expected.item(), rel=1e-5)
    clipped = torch.cat([parameter.grad.flatten() for parameter in model.parameters()]).norm()
    assert clipped.item() == pytest.approx(OptimConfig().gradient_clip, rel=1e-4)
    optimizers.zero_grad()
    assert all(parameter.grad is None for parameter in model.parameters())


@settings(deadline=None, max_examples=8)
@given(cut=st.integers(0, 4), low_precision=st.booleans())
def test_a_restored_run_continues_bit_by_bit(cut, low_precision):
    whole = network()
    optimizers = build(whole, OptimConfig(), low_precision=low_precision)
    train(whole, optimizers, 0, cut)
    weights = {name: tensor.clone() for name, tensor in whole.state_dict().items()}
    state = {name: tensor.clone() for name, tensor in optimizers.state_dict().items()}
    train(whole, optimizers, cut, 5)

    resumed = network(seed=1)
    later = build(resumed, OptimConfig(), low_precision=low_precision)
    train(resumed, later, 0, 2)
    resumed.load_state_dict(weights)
    later.load_state_dict(state)
    train(resumed, later, cut, 5)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name
    for name, tensor in optimizers.state_dict().items():
        assert torch.equal(tensor, later.state_dict()[name]), name


def test_state_names_do_not_depend_on_the_step_or_the_ranks():
    model = network()
    optimizers = build(model, OptimConfig())
    before = set(optimizers.state_dict())
    train(model, optimizers, 0, 1)
    assert set(optimizers.state_dict()) == before == set(build(network(), OptimConfig(), world_size=4, rank=3).state_dict())
    assert {"blocks.0.mlp.up.weight/momentum", "embedding.weight/exp_avg_sq", "skips.gate/step"} <= before
    assert all(isinstance(tensor, torch.Tensor) for tensor in optimizers.state_dict().values())


def test_a_foreign_state_is_refused_and_changes_nothing():
    optimizers = build(network(), OptimConfig())
    own = {name: tensor.clone() for name, tensor in optimizers.state_dict().items()}
    damaged = {name: tensor + 1 for name, tensor in own.items()}
    with pytest.raises(DataError, match="momentum"):
        optimizers.load_state_dict({name: tensor for name, tensor in damaged.items() if "1.mlp.up.weight" not in name})
    with pytest.raises(DataError, match=r"skips.weight/exp_avg is torch.float32 \(3,\)"):
        optimizers.load_state_dict(damaged | {"skips.weight/exp_avg": torch.zeros(3)})
    with pytest.raises(DataError, match=r"embedding.weight/exp_avg is torch.bfloat16 .* and the precision that wrote it"):
        optimizers.load_state_dict(damaged | {"embedding.weight/exp_avg": damaged["embedding.weight/exp_avg"].bfloat16()})
    assert all(torch.equal(tensor, own[name]) for name, tensor in optimizers.state_dict().items())


def test_low_precision_stores_the_embedding_and_its_moments_in_bfloat16():
    model = network()
    state = build(model, OptimConfig(), low_precision=True).state_dict()
    low = {name for name, tensor in state.items() if tensor.dtype == torch.bfloat16}
    assert low == {"embedding.weight/exp_avg", "embedding.weight/exp_avg_sq"}
    assert {name for name, tensor in model.named_parameters() if tensor.dtype == torch.bfloat16} == {"embedding.weight"}
    plain = network()
    build(plain, OptimConfig(embedding_bfloat16=False), low_precision=True)
    assert all(parameter.dtype == torch.float32 for parameter in plain.parameters())


def train_as_rank(rank: int, world_size: int, folder: str) -> None:
    store = torch.distributed.FileStore(f"{folder}/store", world_size)
    torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=world_size)
    model = network()
    optimizers = build(model, OptimConfig(), world_size=world_size, rank=rank)
    train(model, optimizers, 0, 5)
    torch.save(model.state_dict() | optimizers.state_dict(), f"{folder}/rank{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_ranks_end_with_the_weights_of_one(tmp_path):
    world_size = 2
    model = network()
    optimizers = build(model, OptimConfig())
    train(model, optimizers, 0, 5)
    alone = model.state_dict() | optimizers.state_dict()
    mp.spawn(train_as_rank, (world_size, str(tmp_path)), nprocs=world_size)
    ranks = [torch.load(tmp_path / f"rank{rank}.pt") for rank in range(world_size)]
    for name, tensor in alone.items():
        torch.testing.assert_close(ranks[0][name], tensor, rtol=0, atol=2e-6, msg=lambda text, name=name: f"{name}: {text}")
        assert all(torch.equal(rank[name], ranks[0][name]) for rank in ranks), name

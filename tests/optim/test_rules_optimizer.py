import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from optimizer_cases import give_gradients, network, on_ranks, optim_config, shapes, train, values, whole_state

from fairway.base.errors import DataError, RecipeError
from fairway.config import OptimConfig
from fairway.optim.optimizer import build
from fairway.optim.rules import parameter_groups

LAYOUTS = ["per_matrix", "banked"]


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
    assert rates == pytest.approx({"matrices": 0.02 * 0.92, "embedding": 0.03 * 0.92, "scalars": 0.02 * 0.92})
    assert optimizers.optimizers["matrices"].param_groups[0]["momentum"] == pytest.approx(0.908)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_step_returns_the_norm_before_clipping_and_zero_grad_clears(layout):
    model = network()
    optimizers = build(model, optim_config(layout))
    give_gradients(model, 0)
    expected = torch.cat([parameter.grad.flatten() for parameter in model.parameters()]).norm()
    assert optimizers.reduce_clip_and_step(values(0)).item() == pytest.approx(expected.item(), rel=1e-5)
    clipped = torch.cat([parameter.grad.flatten() for parameter in model.parameters()]).norm()
    assert clipped.item() == pytest.approx(OptimConfig().gradient_clip, rel=1e-4)
    optimizers.zero_grad()
    assert all(parameter.grad is None or not parameter.grad.any() for parameter in model.parameters())


@settings(deadline=None, max_examples=12)
@given(cut=st.integers(0, 4), low_precision=st.booleans(), layout=st.sampled_from(LAYOUTS))
def test_a_restored_run_continues_bit_by_bit(cut, low_precision, layout):
    whole = network()
    optimizers = build(whole, optim_config(layout), low_precision=low_precision)
    train(whole, optimizers, 0, cut)
    weights = {name: tensor.clone() for name, tensor in whole.state_dict().items()}
    state = {name: tensor.clone() for name, tensor in optimizers.state_dict().items()}
    train(whole, optimizers, cut, 5)

    resumed = network(seed=1)
    later = build(resumed, optim_config(layout), low_precision=low_precision)
    train(resumed, later, 0, 2)
    resumed.load_state_dict(weights)
    later.load_state_dict(state)
    train(resumed, later, cut, 5)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name
    for name, tensor in optimizers.state_dict().items():
        assert torch.equal(tensor, later.state_dict()[name]), name


@pytest.mark.parametrize("layout", LAYOUTS)
def test_state_names_do_not_depend_on_the_step_the_layout_or_the_ranks(layout):
    model = network()
    optimizers = build(model, optim_config(layout))
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


def train_as_rank(rank: int, world_size: int, layout: str, steps: int) -> tuple[dict[str, torch.Tensor], list[float]]:
    model = network()
    optimizers = build(model, optim_config(layout), world_size=world_size, rank=rank)
    # Rank r has (r + 1) of 1 + 2 + ... + W parts of every gradient, so the sum over ranks is the whole.
    norms = train(model, optimizers, 0, steps, share=2 * (rank + 1) / (world_size * (world_size + 1)))
    return whole_state(model, optimizers), norms


@pytest.mark.parametrize("layout", LAYOUTS)
def test_two_ranks_end_with_the_weights_of_one(layout, tmp_path):
    steps = 20
    model = network()
    optimizers = build(model, optim_config("per_matrix"))
    norms = train(model, optimizers, 0, steps)
    alone = whole_state(model, optimizers)
    results = on_ranks(2, str(tmp_path), train_as_rank, layout, steps)
    for state, found in results:
        assert found == pytest.approx(norms, rel=1e-5)
        assert state.keys() == alone.keys()
    for name, tensor in alone.items():
        states = [state[name] for state, _ in results]
        torch.testing.assert_close(states[0], tensor, rtol=1e-5, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}")
        assert torch.equal(states[0], states[1]), name

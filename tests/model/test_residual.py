"""Residual topologies: their equations written out, what a fresh network does, and which gradients flow."""

from dataclasses import replace

import pytest
import torch

from fairway.base.errors import RecipeError
from fairway.config import ModelConfig, RecurrenceConfig, ResidualConfig
from fairway.model.gpt import GPT
from fairway.model.initial import initialize
from fairway.recipes import recipe
from random_network import random_network

SMALL = ModelConfig(
    vocab_size=48, layers=7, width=32, query_heads=4, kv_heads=2, mlp_hidden=64, rotary_channels=4, query_gain=2.0,
    exclusive_attention_layers=7, recurrence=RecurrenceConfig(first=1, last=2, extra_passes=1),
)  # fmt: skip
PARALLEL_FROM = 4
IDS = torch.randint(48, (2, 19), generator=torch.Generator().manual_seed(0))


def small(topology: str, opening_skip: str = "both_lanes") -> ModelConfig:
    residual = ResidualConfig(topology=topology, parallel_from=PARALLEL_FROM, opening_skip=opening_skip)
    return replace(SMALL, residual=residual)


def fresh(config: ModelConfig) -> GPT:
    model = GPT(config)
    initialize(model, 0)
    return model


def silence(model: GPT, part: str) -> None:
    """Set the last map of attention or MLP to zero in every parallel layer."""
    for block in model.blocks[PARALLEL_FROM:]:
        torch.nn.init.zeros_(block.get_parameter(part))


def walk(model: GPT, monkeypatch: pytest.MonkeyPatch, *, recurrent: bool) -> list:
    """Every block application of a forward pass: block, lanes before, step, lanes after."""
    calls, apply = [], model.residual.step

    def record(block, lanes, step):
        after = apply(block, lanes, step)
        calls.append((block, lanes, step, after))
        return after

    monkeypatch.setattr(model.residual, "step", record)
    with torch.no_grad():
        model.hidden(IDS, recurrent=recurrent)
    return calls


def written_out(topology: str, model: GPT, block, lanes, step):
    """One step by the equations of docs/topologies.md."""
    residual, i = model.residual, block.layer
    if topology == "sequential" or i < PARALLEL_FROM:
        u = block.mix(step.bring(lanes[0]), step.first)
        y = u + block.attend(u, step)
        return (y + block.feed(y, step),)
    if topology == "single_stream":
        u = block.mix(step.bring(lanes[0]), step.first)
        return (u + block.attend(u, step) + block.feed(u, step),)
    a = step.bring(lanes[0])
    opening = a if model.config.residual.opening_skip == "both_lanes" else lanes[0]
    m = opening if i == PARALLEL_FROM else lanes[1]
    u = block.mix(a, step.first)
    y, z = block.attend(u, step), block.feed(m, step)
    if topology == "decoupled_lanes":
        return (u + y, m + z)
    keep, write = residual.keep_weight[i], residual.write_weight[i]
    return (keep[0] * a + write[0, 0] * y + write[1, 0] * z, keep[1] * m + write[0, 1] * y + write[1, 1] * z)


@pytest.mark.parametrize("recurrent", [False, True])
@pytest.mark.parametrize(
    "topology", ["sequential", "single_stream", "decoupled_lanes", "routed_lanes", "decoupled_lanes-late", "routed_lanes-late"]
)
def test_every_step_follows_its_equations(topology, recurrent, monkeypatch):
    topology, _, late = topology.partition("-")
    model = random_network(small(topology, "attention_lane" if late else "both_lanes"), dtype=torch.float64)
    calls = walk(model, monkeypatch, recurrent=recurrent)
    assert len(calls) == model.schedules[recurrent].applications
    with torch.no_grad():
        for block, lanes, step, after in calls:
            torch.testing.assert_close(after, written_out(topology, model, block, lanes, step), atol=1e-12, rtol=1e-12)


def test_initial_lane_parameters():
    balance = fresh(small("decoupled_lanes")).residual.balance
    routed = fresh(small("routed_lanes")).residual
    assert balance.shape == ()
    assert balance.item() == 0.5
    assert routed.write_weight.shape == (7, 2, 2)
    assert (routed.write_weight == 1.0).all()
    assert routed.keep_weight.shape == (7, 2)
    # 1.1 rounded to bfloat16, as the published system did by casting the whole module.
    assert (routed.keep_weight == 1.1015625).all()


@pytest.mark.parametrize(("recurrent", "skipped"), [(False, 2), (True, 3)])
def test_lanes_of_a_fresh_routed_network(recurrent, skipped, monkeypatch):
    """The MLP lane is the embedding times 1.1015625 per layer; the attention lane is averaged with skips on its way."""
    config = replace(
        recipe("pr1557").model, vocab_size=48, width=32, query_heads=4, kv_heads=2, mlp_hidden=64, rotary_channels=4
    )
    block, _, step, after = walk(fresh(config), monkeypatch, recurrent=recurrent)[-1]
    assert block.layer == 10
    torch.testing.assert_close(after[1], 1.47244 * step.first, atol=0, rtol=1e-5)
    factor = 1.1015625
    for bring in range(3):
        factor = 1.1015625 * ((factor + 1) / 2 if bring < skipped else factor)
    torch.testing.assert_close(after[0], factor * step.first, atol=0, rtol=1e-5)


BLOCKED = ("query.weight", "key.weight", "value.weight", "up.weight", "query_gain", "attention_scale", "mlp_scale")
GATES = ("attention.gate", "smear.weight")


@pytest.mark.parametrize("recurrent", [False, True])
@pytest.mark.parametrize("name", ["pr1413", "pr1533", "pr1557", "pr1776", "pr2140"])
def test_first_gradients(name, recurrent):
    """Output and down projections are zero, so nothing before them learns in the first step; nor do some lane weights."""
    size = {"vocab_size": 48, "width": 32, "query_heads": 4, "kv_heads": 2, "mlp_hidden": 64, "rotary_channels": 4}
    config = replace(recipe(name).model, **size)
    model = fresh(config)
    model(IDS, IDS.roll(-1, 1), recurrent=recurrent).backward()
    grads = {key: parameter.grad for key, parameter in model.named_parameters() if parameter.requires_grad}
    routed, first = name in ("pr1557", "pr2140"), config.residual.parallel_from
    for key, grad in grads.items():
        assert grad is not None, key
        layer = int(key.split(".")[1]) if key.startswith("blocks.") else -1
        # Routed lanes keep the lane itself, so the mix feeds attention alone, which adds nothing yet.
        silent = key.endswith(BLOCKED + GATES) or (routed and layer >= first and key.endswith("residual_mix"))
        if silent:
            assert not grad.any(), key
        elif not key.startswith(("residual.", "skips.gate")):
            assert grad.any(), key
    if routed:
        assert not grads["residual.write_weight"].any()
        assert grads["residual.keep_weight"][first:].any(1).all()
        assert not grads["residual.keep_weight"][:first].any()
    if name == "pr1533":
        # Both lanes still hold the embedding, and blending equal lanes in any ratio changes nothing.
        assert not grads["residual.balance"].any()


def test_decoupled_lanes_do_not_see_each_other(monkeypatch):
    model = random_network(small("decoupled_lanes"), dtype=torch.float64)
    silence(model, "attention.output.weight")
    silence(model, "mlp.down.weight")
    calls = [call for call in walk(model, monkeypatch, recurrent=True) if call[0].layer >= PARALLEL_FROM]
    with torch.no_grad():
        _, lanes, step, _ = calls[0]
        opening = step.bring(lanes[0])
        for block, lanes, step, (attention_lane, mlp_lane) in calls:
            assert torch.equal(attention_lane, block.mix(step.bring(lanes[0]), step.first))
            assert torch.equal(mlp_lane, opening)


@pytest.mark.parametrize(("balance", "idle"), [(1.0, "mlp"), (0.0, "attention")])
def test_a_lane_that_the_head_does_not_read_does_not_learn(balance, idle):
    model = random_network(small("decoupled_lanes"), dtype=torch.float64)
    torch.nn.init.constant_(model.residual.balance, balance)
    model(IDS, IDS.roll(-1, 1), recurrent=True).backward()
    for block in model.blocks[PARALLEL_FROM:]:
        for key, parameter in block.named_parameters():
            learns = not key.startswith(idle)
            if key.startswith(("mlp", "attention")):
                assert bool(parameter.grad.any()) is learns, key


def test_routed_lanes_contain_the_decoupled_ones():
    routed, decoupled = (
        random_network(small("routed_lanes"), dtype=torch.float64),
        random_network(small("decoupled_lanes"), dtype=torch.float64),
    )
    with torch.no_grad():
        routed.residual.write_weight.copy_(torch.eye(2))
        routed.residual.keep_weight.fill_(1.0)
        for block in routed.blocks[PARALLEL_FROM:]:
            block.residual_mix.copy_(torch.tensor([1.0, 0.0])[:, None])
        shared = {key: value for key, value in routed.state_dict().items() if not key.startswith("residual.")}
        decoupled.load_state_dict(shared, strict=False)
        decoupled.residual.balance.fill_(0.5)
        for recurrent in (False, True):
            outputs = [model.hidden(IDS, recurrent=recurrent) for model in (routed, decoupled)]
            torch.testing.assert_close(*outputs, atol=1e-12, rtol=1e-12)
        routed.residual.write_weight[-1, 1, 0] = 0.5
        assert not torch.allclose(routed.hidden(IDS, recurrent=False), outputs[1], atol=1e-3)


def test_the_mean_of_lanes_teaches_what_is_written_into_either_alike():
    model = random_network(small("routed_lanes"), dtype=torch.float64)
    model(IDS, IDS.roll(-1, 1), recurrent=True).backward()
    grad = model.residual.write_weight.grad
    torch.testing.assert_close(grad[-1, :, 0], grad[-1, :, 1], atol=1e-14, rtol=1e-12)
    assert (grad[-2, :, 0] - grad[-2, :, 1]).abs().min() > 1e-6


def test_both_routed_lanes_open_with_the_skip_and_later_skips_reach_attention_alone(monkeypatch):
    model = random_network(small("routed_lanes"), dtype=torch.float64)
    with torch.no_grad():
        model.residual.write_weight.zero_()
        model.residual.keep_weight.fill_(1.0)
    calls = [call for call in walk(model, monkeypatch, recurrent=True) if call[0].layer >= PARALLEL_FROM]
    with torch.no_grad():
        _, lanes, step, after = calls[0]
        opening = step.bring(lanes[0])
        assert not torch.equal(opening, lanes[0])
        assert torch.equal(after[0], opening)
        for _, lanes, step, after in calls:
            assert torch.equal(after[0], step.bring(lanes[0]))
            assert torch.equal(after[1], opening)


def test_a_single_stream_without_attention_is_sequential():
    models = [random_network(small(topology), dtype=torch.float64) for topology in ("sequential", "single_stream")]
    assert models[0].state_dict().keys() == models[1].state_dict().keys()
    with torch.no_grad():
        for recurrent in (False, True):
            first, second = (model.hidden(IDS, recurrent=recurrent) for model in models)
            assert not torch.allclose(first, second, atol=1e-3)
        for model in models:
            silence(model, "attention.output.weight")
        for recurrent in (False, True):
            assert torch.equal(*(model.hidden(IDS, recurrent=recurrent) for model in models))


@pytest.mark.parametrize("topology", ["single_stream", "decoupled_lanes", "routed_lanes"])
def test_bfloat16_activations_keep_the_lanes_narrow(topology, monkeypatch):
    model = fresh(small(topology))
    model.compute_dtype = torch.bfloat16
    for *_, after in walk(model, monkeypatch, recurrent=True):
        assert {lane.dtype for lane in after} == {torch.bfloat16}
    assert model.residual.merge(after).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("topology", "parallel_from", "message"),
    [
        ("routed_lanes", 11, r"parallel_from=11 is not below model\.layers=11; start earlier"),
        ("single_stream", 11, r"parallel_from=11 is not below model\.layers=11; start earlier"),
        ("decoupled_lanes", 5, r"parallel_from=5 lies before layer 6.*looped layers \(below 6\); use 6 or more"),
        ("routed_lanes", 4, r"parallel_from=4 lies before layer 6.*layers below 5.*or topology single_stream"),
        ("routed_lanes", -1, r"parallel_from=-1 is negative"),
    ],
)
def test_impossible_lanes_are_refused(topology, parallel_from, message):
    with pytest.raises(RecipeError, match=message):
        ModelConfig(residual=ResidualConfig(topology=topology, parallel_from=parallel_from))


def test_a_single_stream_may_start_anywhere_and_lanes_behind_the_encoder_without_recurrence():
    no_loop = RecurrenceConfig(extra_passes=0)
    for config in (
        replace(SMALL, residual=ResidualConfig(topology="single_stream", parallel_from=0)),
        replace(SMALL, recurrence=no_loop, residual=ResidualConfig(topology="routed_lanes", parallel_from=3)),
        replace(SMALL, residual=ResidualConfig(topology="sequential", parallel_from=99)),
    ):
        random_network(config)(IDS, IDS, recurrent=True).backward()
    with pytest.raises(RecipeError, match="lies before layer 3"):
        replace(SMALL, recurrence=no_loop, residual=ResidualConfig(topology="routed_lanes", parallel_from=2))

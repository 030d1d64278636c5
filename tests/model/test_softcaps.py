"""Bounds of their own for positive and negative logits."""

from dataclasses import replace

import pytest
import torch

from fairway.config import ModelConfig, OptimConfig, RecurrenceConfig
from fairway.model.gpt import GPT
from fairway.model.head import Caps, capped_logits, cross_entropy, plain_cross_entropy, softcap
from fairway.model.initial import initialize
from fairway.optim.optimizer import build

SMALL = ModelConfig(
    vocab_size=32, layers=2, width=16, query_heads=2, kv_heads=1, mlp_hidden=32, rotary_channels=4,
    exclusive_attention_layers=2, recurrence=RecurrenceConfig(extra_passes=0),
)  # fmt: skip
IDS = torch.arange(24).view(2, 12)


def caps(positive: float, negative: float) -> Caps:
    return Caps(torch.tensor(positive, requires_grad=True), torch.tensor(negative, requires_grad=True))


def network(mode: str) -> GPT:
    model = GPT(replace(SMALL, asymmetric_softcap=mode))
    initialize(model, 0)
    return model


def test_each_sign_has_its_bound():
    logits = torch.tensor([-60.0, -10.0, 0.0, 10.0, 60.0])
    found = softcap(logits, caps(8.0, 5.0))
    torch.testing.assert_close(found, torch.where(logits > 0, softcap(logits, 8.0), softcap(logits, 5.0)))
    assert found.abs().max() <= 8.0
    torch.testing.assert_close(softcap(logits, caps(30.0, 30.0)), softcap(logits, 30.0))


@pytest.mark.parametrize("chunk_rows", [3, 7, 64])
def test_loss_and_gradients_chunk_by_chunk(chunk_rows):
    hidden, embedding = torch.randn(20, 16, dtype=torch.float64), torch.randn(32, 16, dtype=torch.float64)
    targets, results = torch.arange(20), []
    for function in (plain_cross_entropy, lambda *args: cross_entropy(*args, chunk_rows)):
        inputs = [hidden.clone().requires_grad_(), embedding.clone().requires_grad_()]
        bounds = Caps(*(torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in (8.0, 5.0)))
        loss = function(*inputs, targets, bounds)
        results.append([loss, *torch.autograd.grad(loss, [*inputs, *bounds])])
    for plain, chunked in zip(*results, strict=True):
        torch.testing.assert_close(plain, chunked)


def test_trained_bounds_are_in_the_loss_and_with_the_scalars():
    model = network("trained")
    with torch.no_grad():
        model.embedding.weight.mul_(400)
        model.softcaps.positive.fill_(8.0)
        hidden = model.hidden(IDS, recurrent=False)
        expected = torch.nn.functional.cross_entropy(model.logits(hidden).flatten(0, 1), (IDS + 1).flatten())
    loss = model(IDS, IDS + 1, recurrent=False)
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert model.softcaps.positive.grad != 0
    moved = {id(p) for p in build(model, OptimConfig()).adams["scalars"].param_groups[0]["params"]}
    assert {id(model.softcaps.positive), id(model.softcaps.negative)} <= moved


def test_fixed_bounds_are_stored_but_no_optimizer_moves_them():
    model = network("fixed")
    with torch.no_grad():
        model.embedding.weight.mul_(400)
        model.softcaps.positive.fill_(8.0)
        logits = capped_logits(model.hidden(IDS, recurrent=False), model.embedding.weight, 30.0)
        assert model.logits(model.hidden(IDS, recurrent=False)).max() < 8.0 < logits.max()
        expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), (IDS + 1).flatten())
    loss = model(IDS, IDS + 1, recurrent=False)
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert model.softcaps.positive.grad is None
    optimizers = build(model, OptimConfig())
    assert not any(name.startswith("softcaps") for name in optimizers.parameters)
    assert "softcaps.positive" in model.state_dict()

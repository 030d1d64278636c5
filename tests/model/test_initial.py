"""Initial values and the properties of a fresh network."""

import math
from dataclasses import replace

import pytest
import torch

from fairway.base.errors import RecipeError
from fairway.config import ModelConfig
from fairway.model.gpt import GPT
from fairway.model.initial import initialize, orthogonal

SMALL = ModelConfig(
    vocab_size=512, layers=6, width=64, query_heads=4, kv_heads=2, mlp_hidden=256, rotary_channels=8,
    exclusive_attention_layers=6, query_gain=5.0,
)  # fmt: skip


def fresh(config: ModelConfig = SMALL, seed: int = 0) -> GPT:
    model = GPT(config)
    initialize(model, seed)
    return model


def test_values_by_rule():
    parameters = dict(fresh().named_parameters())
    for name, value in parameters.items():
        assert torch.equal(value, value.bfloat16().float()), name
        if name.endswith(("output.weight", "down.weight", "gate")):
            assert not value.any(), name
        if name.endswith(("attention_scale", "mlp_scale", "skips.weight")):
            assert (value == 1).all(), name
        if name.endswith("query_gain"):
            assert (value == 5.0).all(), name
        if name.endswith("residual_mix"):
            assert (value[0] == 1).all()
            assert not value[1].any()
    embedding = parameters["embedding.weight"]
    assert embedding.std().item() == pytest.approx(0.005, rel=0.02)
    assert embedding.mean().item() == pytest.approx(0.0, abs=1e-4)


@pytest.mark.parametrize("shape", [(256, 512), (512, 128), (64, 64)])
def test_orthogonal_along_the_shorter_side(shape):
    matrix = orthogonal(torch.Size(shape), torch.Generator().manual_seed(1)).double()
    gram = matrix @ matrix.T if shape[0] <= shape[1] else matrix.T @ matrix
    torch.testing.assert_close(gram, torch.eye(min(shape)).double(), atol=1e-6, rtol=0)


def test_matrices_are_orthogonal_up_to_the_rounding():
    model = fresh()
    query, key, up = (model.get_parameter(f"blocks.3.{name}.weight") for name in ("attention.query", "attention.key", "mlp.up"))
    for weight in (query, key, up.T):
        torch.testing.assert_close(weight @ weight.T, torch.eye(len(weight)), atol=2e-2, rtol=0)


def test_a_seed_fixes_every_value_whatever_the_storage():
    first, second, other = fresh(seed=3), GPT(SMALL).double(), fresh(seed=4)
    initialize(second, 3)
    for (name, value), twin, different in zip(first.named_parameters(), second.parameters(), other.parameters(), strict=True):
        assert torch.equal(value.double(), twin), name
        if name.endswith(("query.weight", "embedding.weight")):
            assert not torch.equal(value, different), name


def test_without_gates_no_rule_is_idle():
    fresh(replace(SMALL, skip_gates=False))


def test_a_parameter_without_a_rule_is_refused():
    model = GPT(SMALL)
    model.register_parameter("stray", torch.nn.Parameter(torch.zeros(3)))
    with pytest.raises(RecipeError, match="stray"):
        initialize(model, 0)


@pytest.mark.parametrize("recurrent", [False, True])
def test_a_fresh_network_sees_one_token(recurrent):
    model = fresh(replace(SMALL, vocab_size=8192, width=512, query_heads=8, kv_heads=4, mlp_hidden=64, layers=7))
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(8192, (2, 64), generator=generator)
    targets = torch.randint(8192, (2, 64), generator=generator)
    with torch.no_grad():
        logits = model.logits(model.hidden(ids, recurrent=recurrent))
        loss = model(ids, targets, recurrent=recurrent).item()
        rows = model.embedding.weight[ids]
        unit = rows / (rows.square().mean(-1, keepdim=True) + 2**-23).sqrt()
        unit = unit / (unit.square().mean(-1, keepdim=True) + 2**-23).sqrt()
        closed_form = 30 * torch.tanh(unit @ model.embedding.weight.T / 30)
    torch.testing.assert_close(logits, closed_form, atol=1e-5, rtol=1e-5)
    assert logits.std().item() == pytest.approx(0.1165, abs=0.003)
    assert logits.gather(2, ids[..., None]).mean().item() == pytest.approx(2.56, abs=0.05)
    assert loss == pytest.approx(9.019, abs=0.03)
    assert loss > math.log(8192)


def test_first_gradients():
    model = fresh()
    ids = torch.randint(512, (2, 32), generator=torch.Generator().manual_seed(5))
    model(ids, ids.roll(-1, 1), recurrent=True).backward()
    for name, parameter in model.named_parameters():
        grad = parameter.grad
        assert grad is not None, name
        blocked = ("query.weight", "key.weight", "value.weight", "up.weight", "query_gain", "attention_scale", "mlp_scale")
        if name.endswith(blocked):
            assert not grad.any(), name
        elif name.endswith(("output.weight", "down.weight", "embedding.weight", "skips.weight")):
            assert grad.any(), name

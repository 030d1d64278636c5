"""The whole network: parameter totals, causality, the recurrence switch, dtypes."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fairway.config import ModelConfig, RecurrenceConfig, ResidualConfig
from fairway.model.gpt import GPT
from fairway.model.linear import Linear
from fairway.model.residual import TOPOLOGIES
from fairway.recipes import recipe
from random_network import random_network

SMALL = ModelConfig(
    vocab_size=64, layers=4, width=32, query_heads=4, kv_heads=2, mlp_hidden=64, rotary_channels=4, query_gain=2.0,
    exclusive_attention_layers=3, recurrence=RecurrenceConfig(first=1, last=2, extra_passes=2),
)  # fmt: skip


@pytest.mark.parametrize(
    ("name", "total"),
    [
        ("baseline", 17_059_912),
        ("pr1394", 35_943_512),
        ("pr1413", 35_943_512),
        ("pr1533", 35_944_537),
        ("pr1557", 35_946_650),
        ("pr1776", 35_944_536),
        ("pr2140", 35_945_673),
    ],
)
def test_parameter_totals(name, total):
    with torch.device("meta"):
        model = GPT(recipe(name).model)
    assert sum(parameter.numel() for parameter in model.parameters()) == total


def test_two_extra_passes_need_fewer_skips_than_three():
    config = recipe("pr1557").model
    with torch.device("meta"):
        model = GPT(replace(config, recurrence=replace(config.recurrence, extra_passes=2)))
    assert sum(parameter.numel() for parameter in model.parameters()) == 35_944_602


def test_full_size_counts_of_pr1413():
    with torch.device("meta"):
        model = GPT(recipe("pr1413").model)
    assert len(model.state_dict()) == 113
    maps = [module for module in model.modules() if isinstance(module, Linear)]
    assert len(maps) == 66
    assert sum(module.weight.numel() for module in maps) == 31_719_424
    assert model.skips.weight.shape == (7, 512)


@given(
    data=st.data(),
    topology=st.sampled_from(sorted(TOPOLOGIES)),
    seed=st.integers(0, 1000),
    recurrent=st.booleans(),
    gates=st.booleans(),
)
@settings(deadline=None, max_examples=50)
def test_the_future_cannot_change_the_past(data, topology, seed, recurrent, gates):
    residual = ResidualConfig(topology=topology, parallel_from=3)
    model = random_network(replace(SMALL, skip_gates=gates, residual=residual), seed)
    model.compute_dtype = torch.float64
    ids = torch.randint(64, (2, 17), generator=torch.Generator().manual_seed(seed))
    cut = data.draw(st.integers(1, 16))
    changed = ids.clone()
    changed[:, cut:] = torch.randint(64, (2, 17 - cut), generator=torch.Generator().manual_seed(seed + 1))
    changed[:, cut] = (ids[:, cut] + 1) % 64
    with torch.no_grad():
        before, after = (model.logits(model.hidden(rows, recurrent=recurrent)) for rows in (ids, changed))
    torch.testing.assert_close(after[:, :cut], before[:, :cut], atol=1e-12, rtol=0)
    assert not torch.equal(after[:, cut], before[:, cut])


def test_rows_do_not_see_each_other():
    model = random_network(SMALL)
    ids = torch.randint(64, (3, 12))
    with torch.no_grad():
        together = model.hidden(ids, recurrent=True)
        alone = torch.cat([model.hidden(row[None], recurrent=True) for row in ids])
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-4)


def test_recurrence_without_extra_passes_is_the_plain_network():
    model = random_network(replace(SMALL, recurrence=RecurrenceConfig(first=1, last=2, extra_passes=0)))
    ids = torch.randint(64, (2, 12))
    with torch.no_grad():
        assert torch.equal(model.hidden(ids, recurrent=True), model.hidden(ids, recurrent=False))
    looped = random_network(SMALL)
    with torch.no_grad():
        assert not torch.allclose(looped.hidden(ids, recurrent=True), looped.hidden(ids, recurrent=False), atol=1e-3)


def test_one_layer_has_no_skips_and_still_runs():
    model = random_network(
        replace(SMALL, layers=1, exclusive_attention_layers=1, recurrence=RecurrenceConfig(first=0, last=0, extra_passes=0))
    )
    assert model.skips.weight.shape == (0, 32)
    model(torch.randint(64, (1, 5)), torch.randint(64, (1, 5)), recurrent=True).backward()


def test_bfloat16_activations_keep_float32_masters():
    model = random_network(SMALL)
    ids = torch.randint(64, (2, 24), generator=torch.Generator().manual_seed(0))
    exact = model(ids, ids.roll(-1, 1), recurrent=True)
    model.compute_dtype = torch.bfloat16
    assert model.hidden(ids, recurrent=True).dtype == torch.bfloat16
    loss = model(ids, ids.roll(-1, 1), recurrent=True)
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(exact.item(), rel=0.05)
    assert {grad.dtype for parameter in model.parameters() if (grad := parameter.grad) is not None} == {torch.float32}


def test_a_cast_of_the_module_leaves_the_rotary_tables_alone():
    model = random_network(SMALL)
    before = model.rotation(torch.zeros(1, 300, dtype=torch.long)).cos.clone()
    model.bfloat16().float()
    assert torch.equal(model.rotation(torch.zeros(1, 300, dtype=torch.long)).cos, before)
    assert "rotary" not in " ".join(model.state_dict())


def test_scoring_in_inference_mode_first_does_not_break_training():
    model, ids = random_network(SMALL), torch.randint(64, (1, 8))
    with torch.inference_mode():
        model.logits(model.hidden(ids, recurrent=True))
    model(ids, ids, recurrent=True).backward()
    assert model.embedding.weight.grad is not None

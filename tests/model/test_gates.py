"""Gates that read a few channels: worked examples, what they must not see, and what they do to a network."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fairway.base.errors import RecipeError
from fairway.config import GateConfig, ModelConfig, RecurrenceConfig
from fairway.data.tokenizer import BOS
from fairway.kernels.attention import Segments
from fairway.model.gates import SmearGate, channel_gate
from fairway.model.gpt import GPT
from fairway.model.initial import initialize
from random_network import random_network

BOTH = GateConfig(attention=True, smear=True)
SMALL = ModelConfig(
    vocab_size=64, layers=4, width=32, query_heads=4, kv_heads=2, mlp_hidden=64, rotary_channels=4, gates=BOTH,
    exclusive_attention_layers=4, recurrence=RecurrenceConfig(first=1, last=2, extra_passes=1),
)  # fmt: skip


def smear(weight: float, strength: float) -> SmearGate:
    gate = SmearGate(SMALL)
    torch.nn.init.constant_(gate.weight, weight)
    torch.nn.init.constant_(gate.strength, strength)
    return gate


def test_half_a_gate_adds_a_quarter_of_the_token_before():
    embedded = torch.randn(1, 5, 32)
    ids = torch.tensor([[7, 8, BOS, 9, 10]])
    smeared = smear(0.0, 0.5)(embedded, ids)
    for t, factor in enumerate([0.0, 0.25, 0.0, 0.25, 0.25]):
        before = embedded[:, t - 1] if t else torch.zeros(1, 32)
        torch.testing.assert_close(smeared[:, t], embedded[:, t] + factor * before)


def test_a_fresh_smear_changes_nothing():
    embedded = torch.randn(2, 6, 32)
    assert torch.equal(smear(0.0, 0.0)(embedded, torch.full((2, 6), 5)), embedded)


@given(
    ids=st.lists(st.integers(0, 9), min_size=1, max_size=20),
    weight=st.floats(-2, 2),
    strength=st.floats(-3, 3),
    seed=st.integers(0, 99),
)
@settings(deadline=None, max_examples=60)
def test_smear_written_out(ids, weight, strength, seed):
    embedded = torch.randn(1, len(ids), 32, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    gate = smear(weight, strength).double()
    found = gate(embedded, torch.tensor([ids]))[0]
    for t, token in enumerate(ids):
        expected = embedded[0, t]
        if t and token != BOS:
            opened = strength * torch.sigmoid(weight * embedded[0, t, :12].sum())
            expected = expected + opened * embedded[0, t - 1]
        torch.testing.assert_close(found[t], expected)


def test_a_gate_reads_its_window_alone():
    x, weight = torch.randn(1, 3, 32), torch.randn(4, 12)
    other = torch.cat([x[..., :12], torch.randn(1, 3, 20)], dim=-1)
    assert torch.equal(channel_gate(x, weight, 0.5), channel_gate(other, weight, 0.5))
    torch.testing.assert_close(channel_gate(x, weight, 0.5), (0.5 * x[..., :12] @ weight.T).sigmoid())
    assert (channel_gate(x, torch.zeros(4, 12)) == 0.5).all()


def test_fresh_attention_gates_halve_what_attention_adds():
    gated = random_network(SMALL)
    plain = GPT(replace(SMALL, gates=GateConfig(smear=True)))
    state = {name: value for name, value in gated.state_dict().items() if not name.endswith("attention.gate")}
    ids = torch.arange(12).view(1, 12)
    with torch.no_grad():
        for layer in range(4):
            gated.block(layer).attention.gate.zero_()
            state[f"blocks.{layer}.attention_scale"] = 0.5 * state[f"blocks.{layer}.attention_scale"]
        plain.load_state_dict(state)
        torch.testing.assert_close(gated.hidden(ids, recurrent=True), plain.hidden(ids, recurrent=True), atol=1e-5, rtol=1e-5)


def test_a_fresh_network_with_gates_has_gates_that_can_learn():
    model = GPT(SMALL)
    initialize(model, 0)
    ids = torch.arange(2, 26).view(2, 12)
    model(ids, ids.roll(-1, 1), recurrent=False).backward()
    # The strength times the gate: while the strength is zero, the weight behind it has no gradient.
    assert model.smear.strength.grad.all()
    assert not model.smear.weight.grad.any()


def test_documents_of_a_packed_row_are_computed_as_if_alone():
    model = random_network(SMALL)
    model.compute_dtype = torch.float64
    documents = [[BOS], [BOS, 5, 6, 7], [BOS, 9, 8, 7, 6, 5, 4], [BOS, 60, 61]]
    row = torch.tensor([[token for document in documents for token in document]])
    starts = [0, 1, 5, 12]
    segments = Segments.cut(starts, row.shape[1], row.shape[1])
    with torch.no_grad():
        packed = model.hidden(row, recurrent=True, segments=segments)[0]
        for start, document in zip(starts, documents, strict=True):
            alone = model.hidden(torch.tensor([document]), recurrent=True)[0]
            torch.testing.assert_close(packed[start : start + len(document)], alone, atol=1e-6, rtol=1e-6)


def test_without_the_mask_a_document_would_carry_the_end_of_the_one_before(monkeypatch):
    model, ids = random_network(SMALL), torch.tensor([[7, 8, 9, BOS, 5, 6]])
    segments, other = Segments.cut([3], 6, 6), torch.tensor([[7, 8, 10, BOS, 5, 6]])

    def tail(row: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return model.hidden(row, recurrent=True, segments=segments)[0, 3:]

    assert torch.equal(tail(ids), tail(other))
    monkeypatch.setattr("fairway.model.gates.BOS", -1)
    assert not torch.allclose(tail(ids), tail(other), atol=1e-3)


def test_windows_that_do_not_fit_are_refused():
    with pytest.raises(RecipeError, match=r"model\.gates\.window=12 exceeds model\.width=8"):
        replace(SMALL, width=8, rotary_channels=2)
    with pytest.raises(RecipeError, match=r"model\.gates\.window=0"):
        GateConfig(window=0)

"""A packed row is its documents run alone: attention, gates and all, to 1e-5 nats per token."""

from itertools import pairwise

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fairway.config import GateConfig, RecurrenceConfig, ResidualConfig
from fairway.data.tokenizer import BOS
from fairway.kernels.attention import Segments
from fairway.model import gates
from fairway.model.gpt import GPT
from toy_network import toy_network

VOCAB, CONTEXT = 64, 16
ENOUGH = 1e-5


@pytest.fixture(scope="module")
def network() -> GPT:
    return toy_network(
        VOCAB,
        layers=4,
        width=32,
        query_heads=4,
        kv_heads=2,
        exclusive_attention_layers=4,
        recurrence=RecurrenceConfig(first=0, last=1, extra_passes=1),
        residual=ResidualConfig(topology="routed_lanes", parallel_from=2, opening_skip="attention_lane"),
        gates=GateConfig(attention=True, smear=True),
        asymmetric_softcap="trained",
    )


@torch.no_grad()
def nats(network: GPT, row: torch.Tensor, segments: Segments | None) -> torch.Tensor:
    """Nats of each target of a row of ids and one more target."""
    hidden = network.hidden(row[None, :-1], recurrent=True, segments=segments)
    return torch.nn.functional.cross_entropy(network.logits(hidden)[0], row[1:], reduction="none")


def row_of(lengths: list[int], leading: int, seed: int) -> tuple[torch.Tensor, list[int]]:
    """A row that begins ``leading`` tokens before its first marker, and the positions at which documents begin."""
    generator = torch.Generator().manual_seed(seed)
    row = torch.randint(2, VOCAB, (leading + sum(lengths) + 1,), generator=generator)
    begins = [leading + sum(lengths[:index]) for index in range(len(lengths))]
    row[begins] = BOS
    return row, begins


def worst_difference(network: GPT, lengths: list[int], leading: int, seed: int) -> float:
    """Largest difference in nats between a packed row and its documents, each run in a row of its own."""
    row, begins = row_of(lengths, leading, seed)
    packed = nats(network, row, Segments.cut(begins, len(row) - 1, CONTEXT))
    edges = sorted({0, *begins, len(row) - 1})
    alone = []
    for begin, end in pairwise(edges):
        # What fits the context needs no segments at all; a longer document is cut on its own as it is in the row.
        segments = Segments.cut([0], end - begin, CONTEXT) if end - begin > CONTEXT else None
        alone.append(nats(network, row[begin : end + 1], segments))
        first = min(CONTEXT, end - begin)
        dense = nats(network, row[begin : begin + first + 1], None)
        torch.testing.assert_close(alone[-1][:first], dense, atol=ENOUGH, rtol=0)
    return float((packed - torch.cat(alone)).abs().max())


@settings(deadline=None, max_examples=12)
@given(lengths=st.lists(st.integers(1, 50), min_size=1, max_size=12), leading=st.integers(0, 20), seed=st.integers(0, 99))
@example(lengths=[1, 1, CONTEXT, 1, CONTEXT + 1, 2 * CONTEXT, 3 * CONTEXT + 1, 7, 1], leading=0, seed=0)
@example(lengths=[1], leading=0, seed=0)
@example(lengths=[1, 90, 2], leading=2 * CONTEXT + 3, seed=1)
def test_a_packed_row_is_its_documents_run_alone(network: GPT, lengths: list[int], leading: int, seed: int) -> None:
    assert worst_difference(network, lengths, leading, seed) < ENOUGH


def test_without_the_mask_of_markers_documents_leak(network: GPT, monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = [5, 9, 1, 12]
    assert worst_difference(network, lengths, 4, 0) < ENOUGH
    monkeypatch.setattr(gates, "BOS", -1)
    assert worst_difference(network, lengths, 4, 0) > 100 * ENOUGH


def test_without_segments_documents_leak(network: GPT) -> None:
    row, begins = row_of([5, 9, 1, 12], 4, 0)
    packed = nats(network, row, Segments.cut(begins, len(row) - 1, CONTEXT))
    difference = (packed - nats(network, row, None)).abs()
    assert difference[: begins[0]].max() < ENOUGH < 0.01 < difference[begins[0] :].max()

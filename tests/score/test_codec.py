"""Coding text with a predictor: it comes back exactly when the score is valid, and does not when it is not."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_scorers import CONTEXT, PLANS, TARGETS, VOCAB, ledger, stream

from fairway.base.errors import ArtifactError
from fairway.score.codec import decode, encode
from fairway.score.driver import score
from fairway.score.ledger import Ledger
from fairway.score.plan import Block, fixed_plan, plain_windows
from fairway.score.predictor import Predictor, Revealed, WindowBatch
from fairway.score.token_coder import TokenDecoder, TokenEncoder, group_size


@pytest.mark.parametrize("name", PLANS)
@pytest.mark.parametrize("seed", range(3))
def test_text_comes_back_exactly(name: str, seed: int) -> None:
    predictor, plan = PLANS[name]
    tokens, written = stream(seed), ledger()
    words = encode(predictor(), tokens, written, plan())
    back = decode(predictor(), words, int(tokens[0]), TARGETS, plan())
    assert torch.equal(back, tokens)
    assert 32 * len(words) <= written.total_nats / math.log(2) + 64 + TARGETS * 1e-3


@pytest.mark.parametrize("name", PLANS)
def test_the_coder_pays_what_the_scorer_says(name: str) -> None:
    predictor, plan = PLANS[name]
    written = ledger()
    encode(predictor(), stream(), written, plan())
    scored = score(predictor(), stream(), ledger(), plan(), windows_per_forward=4)
    np.testing.assert_allclose(written.nats, scored.nats, atol=1e-5)
    assert np.array_equal(written.order, scored.order)


class Peeking:
    """Puts most of the mass on the next input of the window, which a decoder does not have yet."""

    vocab_size = VOCAB

    def predict(self, batch: WindowBatch) -> torch.Tensor:
        ahead = torch.roll(batch.inputs, -1, dims=1)[:, batch.first_scored :]
        return (4.0 * torch.nn.functional.one_hot(ahead, VOCAB)).log_softmax(-1)

    def observe(self, block: Revealed) -> None:
        pass


class Learning:
    """Counts of the revealed text; ``early`` counts the coded text of the block too, which is causal as well."""

    vocab_size = VOCAB

    def __init__(self, early: bool) -> None:
        self.counts = torch.ones(VOCAB)
        self.early = early

    def predict(self, batch: WindowBatch) -> torch.Tensor:
        rows = batch.starts[:, None] + torch.arange(batch.first_scored, batch.inputs.shape[1])
        counts = self.counts.expand(*rows.shape, VOCAB).clone()
        if self.early:
            for row, inputs in enumerate(rows.tolist()):
                for column, position in enumerate(inputs):
                    known = batch.coded[: position + 1 - batch.coded_start]
                    counts[row, column] += torch.bincount(known, minlength=VOCAB)
        return (counts / counts.sum(-1, keepdim=True)).log()

    def observe(self, block: Revealed) -> None:
        self.counts += torch.bincount(block.tokens[:-1], minlength=VOCAB)


def plan_of_eight() -> list[Block]:
    return fixed_plan(plain_windows(TARGETS, CONTEXT), 2)


def test_a_predictor_that_peeks_cannot_be_decoded() -> None:
    words = encode(Peeking(), stream(), ledger(), plan_of_eight())
    try:
        back = decode(Peeking(), words, int(stream()[0]), TARGETS, plan_of_eight())
    except ArtifactError:
        return
    assert not torch.equal(back, stream())


@pytest.mark.parametrize("early", [False, True])
def test_text_since_the_last_reveal_may_be_used(early: bool) -> None:
    words = encode(Learning(early), stream(), ledger(), plan_of_eight())
    assert torch.equal(decode(Learning(early), words, int(stream()[0]), TARGETS, plan_of_eight()), stream())


def test_coded_text_never_reaches_beyond_the_last_input() -> None:
    seen: list[tuple[int, int, int]] = []

    class Watching(Learning):
        def predict(self, batch: WindowBatch) -> torch.Tensor:
            last = int(batch.starts[-1]) + batch.inputs.shape[1]
            seen.append((batch.coded_start, len(batch.coded), last))
            return super().predict(batch)

    predictor: Predictor = Watching(True)
    score(predictor, stream(), ledger(), plan_of_eight(), windows_per_forward=1)
    assert all(start + length == last for start, length, last in seen)
    assert sorted({start for start, _, _ in seen}) == [0, 16, 32, 48]


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 600), st.integers(0, 2**31), st.integers(1, 40))
def test_tokens_survive_the_coder_under_any_distribution(vocab: int, seed: int, count: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    rows = (torch.randn(count, vocab, generator=generator) * 10).log_softmax(-1)
    rows[0] = torch.full((vocab,), -torch.inf)
    rows[0, 0] = 0.0
    tokens = torch.randint(vocab, (count,), generator=generator).tolist()
    encoder = TokenEncoder()
    for token, row in zip(tokens, rows, strict=True):
        encoder.encode(token, row)
    decoder = TokenDecoder(encoder.words)
    assert [decoder.decode(row) for row in rows] == tokens


def test_the_floor_of_the_coder_costs_less_than_a_ten_thousandth() -> None:
    """At 8,192 tokens and 2.8 nats per token, as the published systems score."""
    vocab, count = 8192, 400
    generator = torch.Generator().manual_seed(0)
    rows = (torch.randn(count, vocab, generator=generator) * 3.4).log_softmax(-1)
    tokens = torch.multinomial(rows.exp(), 1, generator=generator).flatten()
    encoder = TokenEncoder()
    for token, row in zip(tokens.tolist(), rows, strict=True):
        encoder.encode(token, row)
    ideal = -rows.double().gather(1, tokens[:, None]).sum().item() / math.log(2)
    assert 32 * len(encoder.words) - 64 <= ideal * 1.0001
    assert group_size(vocab) == 91


def test_an_empty_ledger_is_an_empty_walk() -> None:
    words = encode(Learning(False), torch.tensor([3]), Ledger(np.zeros(0, dtype=np.uint16)), [])
    assert torch.equal(decode(Learning(False), words, 3, 0, []), torch.tensor([3]))

"""The driver's promises: nothing unnormalised, nothing scored twice, nothing revealed early, no future in any score."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_scorers import CONTEXT, PLANS, TARGETS, VOCAB, WINDOWS, adapted, ledger, small_model, stream

from fairway.base.errors import ValidityError
from fairway.score.adaptation import cosine_rate
from fairway.score.driver import score
from fairway.score.neural import NeuralPredictor
from fairway.score.plan import Block, chunked_plan, fixed_plan, plain_windows
from fairway.score.predictor import Revealed, WindowBatch
from fairway.train.distributed import Ranks


def nats(name: str, tokens: torch.Tensor) -> np.ndarray:
    predictor, plan = PLANS[name]
    return score(predictor(), tokens, ledger(), plan()).nats


@pytest.mark.parametrize("name", PLANS)
@settings(max_examples=12, deadline=None)
@given(cut=st.integers(1, TARGETS), seed=st.integers(1, 10**6))
def test_the_future_cannot_change_a_score(name: str, cut: int, seed: int) -> None:
    tokens = stream()
    changed = torch.cat([tokens[:cut], stream(seed)[cut:]])
    before, after = nats(name, tokens), nats(name, changed)
    # Entry i is the cost of token i + 1, so entries below cut - 1 know nothing of the change: equal to the last bit.
    np.testing.assert_array_equal(before[: cut - 1], after[: cut - 1])


@pytest.mark.parametrize("name", ["plain", "sliding"])
def test_windows_equal_one_prefix_at_a_time(name: str) -> None:
    tokens, model = stream(), small_model()
    windows = plain_windows(TARGETS, CONTEXT) if name == "plain" else WINDOWS
    slow = np.empty(TARGETS, dtype=np.float32)
    for start, length, first in zip(windows.starts, windows.lengths, windows.first_scored, strict=True):
        for i in range(int(start + first), int(start + length)):
            with torch.no_grad():
                hidden = model.hidden(tokens[None, int(start) : i + 1], recurrent=True)
                slow[i] = -model.logits(hidden)[0, -1].log_softmax(-1)[tokens[i + 1]]
    np.testing.assert_allclose(nats(name, tokens), slow, atol=1e-5)


def test_scores_are_a_code_over_the_vocabulary() -> None:
    tokens = stream()
    for position in (1, 9, 17, 40):
        total = 0.0
        for token in range(VOCAB):
            changed = tokens.clone()
            changed[position] = token
            total += float(np.exp(-nats("adapted", changed)[position - 1]))
        assert total == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("world", [2, 3])
def test_ranks_cover_each_block_once(world: int, monkeypatch: pytest.MonkeyPatch) -> None:
    parts: list[np.ndarray] = []
    for rank in range(world):
        taken = ledger()
        monkeypatch.setattr(Ranks, "sum_", lambda self, tensor: tensor)
        score(NeuralPredictor(small_model()), stream(), taken, fixed_plan(WINDOWS), ranks=Ranks(rank, world))
        parts.append(taken.nats)
    np.testing.assert_allclose(np.sum(parts, axis=0), nats("sliding", stream()), atol=1e-5)


class Uniform:
    """Every token is equally likely, times ``mass``."""

    vocab_size = VOCAB

    def __init__(self, mass: float = 1.0, entries: int = VOCAB) -> None:
        self.value, self.entries = float(np.log(mass / entries)), entries
        self.seen: list[Revealed] = []

    def predict(self, batch: WindowBatch) -> torch.Tensor:
        rows, length = batch.inputs.shape
        return torch.full((rows, length - batch.first_scored, self.entries), self.value)

    def observe(self, block: Revealed) -> None:
        self.seen.append(block)


def test_uniform_costs_the_logarithm_of_the_vocabulary() -> None:
    done = score(Uniform(), stream(), ledger(), fixed_plan(WINDOWS))
    assert done.total_nats == pytest.approx(TARGETS * np.log(VOCAB), rel=1e-6)
    assert done.bits_per_byte == pytest.approx(np.log2(VOCAB), rel=1e-6)


@pytest.mark.parametrize("mass", [0.9, 1.1, float("nan")])
def test_an_unnormalised_distribution_is_refused(mass: float) -> None:
    with pytest.raises(ValidityError, match="instead of 1"):
        score(Uniform(mass), stream(), ledger(), fixed_plan(WINDOWS))


def test_a_distribution_over_too_few_tokens_is_refused() -> None:
    with pytest.raises(ValidityError, match="12 entries; the vocabulary has 13"):
        score(Uniform(entries=12), stream(), ledger(), fixed_plan(WINDOWS))


def test_a_second_score_of_a_target_is_refused() -> None:
    twice = [*fixed_plan(plain_windows(TARGETS, CONTEXT)), *fixed_plan(plain_windows(TARGETS, CONTEXT))]
    with pytest.raises(ValidityError, match="target 1 is scored twice"):
        score(Uniform(), stream(), ledger(), twice)


def test_a_reveal_before_the_score_is_refused() -> None:
    early = [Block(plain_windows(TARGETS, CONTEXT).part(0, 1), (0, CONTEXT + 1))]
    with pytest.raises(ValidityError, match=f"target {CONTEXT + 1} would be revealed before it is scored"):
        score(Uniform(), stream(), ledger(), early)


def test_an_unscored_target_has_no_total() -> None:
    part = score(Uniform(), stream(), ledger(), [Block(plain_windows(TARGETS, CONTEXT).part(0, 2), (0, 16))])
    with pytest.raises(ValidityError, match="target 17 would be"):
        _ = part.total_nats


def test_blocks_are_revealed_once_in_order_with_their_last_target() -> None:
    predictor, tokens = Uniform(), stream()
    score(predictor, tokens, ledger(), chunked_plan(WINDOWS, TARGETS, 16))
    assert [block.start for block in predictor.seen] == [0, 16, 32, 48]
    for block in predictor.seen:
        assert torch.equal(block.tokens, tokens[block.start : block.start + 17])


def test_the_last_chunk_is_not_trained_on() -> None:
    predictor = adapted()
    score(predictor, stream(), ledger(), chunked_plan(WINDOWS, TARGETS, 16))
    assert (predictor.observed, predictor.steps) == (3, 12)


def test_published_rates() -> None:
    for chunk, rate in ((0, 5.0e-3), (309, 4.26889e-3), (618, 2.50317e-3), (1236, 8.06e-9)):
        assert cosine_rate(0.005, chunk, 1238) == pytest.approx(rate, rel=1e-3)
    assert cosine_rate(0.005, 0, 1) == 0.005


def test_predicting_changes_no_state() -> None:
    predictor = adapted()
    before = {name: tensor.clone() for name, tensor in predictor.inner.model.state_dict().items()}
    batch = WindowBatch(stream()[None, :CONTEXT], 0, torch.tensor([0]), stream()[:CONTEXT], 0)
    first, second = predictor.predict(batch), predictor.predict(batch)
    assert torch.equal(first, second)
    for name, tensor in predictor.inner.model.state_dict().items():
        assert torch.equal(tensor, before[name])
    predictor.observe(Revealed(stream()[:17], 0))
    assert not torch.equal(predictor.predict(batch), first)

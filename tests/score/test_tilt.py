"""The tilt: exact normalisation, the published nats, and a predictor that depends on the coded text alone."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hints_cases import EXACT, flags_of, stored, whole
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_scorers import CONTEXT, PLANS, TARGETS, VOCAB, ledger, stream

from fairway.base.errors import DataError, RecipeError, ValidityError
from fairway.config import TiltConfig
from fairway.recipes.tilts import PR1557
from fairway.score.driver import cut, score
from fairway.score.hints import build_hints
from fairway.score.ledger import Ledger
from fairway.score.plan import Block, chunked_plan, fixed_plan, plain_windows, sliding_windows
from fairway.score.predictor import Predictor, Revealed, WindowBatch
from fairway.score.tilt import TiltedPredictor, tilt

SHORT = TiltConfig(contexts=(1, 2), thresholds=(0.3, 0.5), minimum_counts=(1, 1), strength=2.0)
"""Contexts so short that a few dozen tokens give hints."""


def one_row(probability: float, hint_probability: float, strength: float, *, hit: bool) -> float:
    """Nats that the tilt adds to a target of a distribution over three tokens, of which token 0 is hinted."""
    rest = 1.0 - hint_probability
    probabilities = [hint_probability, probability if not hit else rest / 2, rest - probability if not hit else rest / 2]
    before = torch.tensor(probabilities, dtype=torch.float64).log()[None]
    after = tilt(before, torch.tensor([0]), torch.tensor([strength], dtype=torch.float64))
    assert after.logsumexp(-1).abs().item() < 1e-12
    target = 0 if hit else 1
    return float(before[0, target] - after[0, target])


@pytest.mark.parametrize(
    ("q", "log_z", "hit", "miss"),
    [
        (1 / 8192, 0.0015618, -2.6234, 0.0015618),
        (0.001, 0.0127233, -2.6122767, 0.0127233),
        (0.1, 0.8243760, -1.8006240, 0.8243760),
        (0.9, 2.5276561, -0.0973439, 2.5276561),
    ],
)
def test_worked_values(q: float, log_z: float, hit: float, miss: float) -> None:
    assert math.log1p(q * math.expm1(2.625)) == pytest.approx(log_z, abs=5e-8)
    assert one_row(0.05, q, 2.625, hit=True) == pytest.approx(hit, abs=5e-5)
    assert one_row(0.05, q, 2.625, hit=False) == pytest.approx(miss, abs=5e-8)


@given(seed=st.integers(0, 999), strength=st.floats(0.0, 16.0), double=st.booleans())
@settings(max_examples=60, deadline=None)
def test_tilting_is_adding_to_a_logit_and_normalising(seed: int, strength: float, double: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    dtype = torch.float64 if double else torch.float32
    before = (4 * torch.randn(3, 5, 50, generator=generator, dtype=dtype)).log_softmax(-1)
    hints = torch.randint(-1, 50, (3, 5), generator=generator)
    strengths = (hints >= 0).double() * strength
    after = tilt(before, hints, strengths)
    added = before.double().scatter_add(-1, hints.clamp_min(0)[..., None], strengths[..., None]).log_softmax(-1)
    tolerance = 1e-12 if double else 4e-6
    torch.testing.assert_close(after.double(), added, atol=tolerance, rtol=0)
    assert after.logsumexp(-1).abs().max() < (1e-12 if double else 1e-6)
    assert after.dtype == dtype
    change = (before - after).double()
    assert (change.abs() <= strength + tolerance).all()
    assert torch.equal(after[strengths == 0], before[strengths == 0])


def test_a_certain_hint_costs_nothing_when_it_is_right() -> None:
    before = torch.tensor([[0.0, -math.inf]])
    after = tilt(before, torch.tensor([0]), torch.tensor([2.625], dtype=torch.float64))
    assert after.tolist() == [[0.0, -math.inf]]


def rows(entries: list[tuple[np.ndarray, np.ndarray]], vocab: int) -> torch.Tensor:
    """Log-distributions in float64 with given log-probabilities of some tokens, the rest of the mass spread evenly."""
    count = len(entries[0][0])
    table = np.full((count, vocab), -1.0)
    for tokens, logs in entries:
        table[np.arange(count), tokens] = np.exp(logs.astype(np.float64))
    free = table < 0
    rest = 1.0 - np.where(free, 0.0, table).sum(1)
    return torch.from_numpy(np.log(np.where(free, (np.maximum(rest, 1e-300) / free.sum(1))[:, None], table)))


def tilted_nats(arrays: dict[str, np.ndarray], name: str, shift: int = 0) -> np.ndarray:
    """Nats of the stored targets under the stored hints, the hints shifted by some targets."""
    target, base = arrays["target_ids"].astype(np.int64), arrays["base_nll"].astype(np.float64)
    if name == "2140":
        hint, strength = arrays["hint_2140"].astype(np.int64), arrays["boost_2140"].astype(np.float64)
        log_hint = arrays["log_q_hint_2140"].astype(np.float64)
    else:
        hint, strength = arrays["hint_1557"].astype(np.int64), arrays["beta_1557"]
        log_hint = np.minimum(arrays["logit_hint_1557"].astype(np.float64) - (base + arrays["logit_target"]), 0.0)
    hint, strength, log_hint = (np.roll(array, shift) for array in (hint, strength, log_hint))
    known = [(target, -base), (np.where(strength > 0, hint, target), np.where(strength > 0, log_hint, -base))]
    known = [known[0], (known[1][0], np.where(known[1][0] == target, -base, known[1][1]))]
    after = tilt(rows(known, 512), torch.from_numpy(hint), torch.from_numpy(strength))
    return -after.gather(-1, torch.from_numpy(target)[:, None])[:, 0].numpy()


@pytest.mark.parametrize("name", ["2140", "1557"])
def test_published_nats(name: str) -> None:
    arrays = stored("nats_v512")
    np.testing.assert_allclose(tilted_nats(arrays, name), arrays[f"tilted_f64_{name}"], atol=1e-5, rtol=0)
    assert tilted_nats(arrays, name).sum() < arrays["base_nll"].sum() - 100
    assert abs(tilted_nats(arrays, name, shift=1).sum() - tilted_nats(arrays, name).sum()) > 100, "hints off by one must show"


def test_published_nats_of_the_whole_range() -> None:
    arrays, family_a, family_b = whole("nll_v512"), whole("tilt_2140_v512"), whole("tilt_1557_v512")
    first, stop = arrays["nll_range"]
    arrays |= {"hint_2140": family_a["hint_ids"][first:stop], "boost_2140": family_a["boost"][first:stop]}
    arrays |= {"hint_1557": family_b["hint"][first + 1 : stop + 1], "beta_1557": family_b["beta"][first + 1 : stop + 1]}
    for name, total in (("2140", 165129.5514), ("1557", 170336.5065)):
        nats = tilted_nats(arrays, name)
        np.testing.assert_allclose(nats, arrays[f"tilted_f64_{name}"], atol=1e-5, rtol=0)
        assert nats.sum() == pytest.approx(total, abs=0.05)


def test_published_dense_distributions() -> None:
    arrays = stored("nats_v512")
    before = torch.from_numpy(arrays["dense_logits"]).log_softmax(-1)
    hints = torch.from_numpy(arrays["dense_hint"].astype(np.int64))
    after = tilt(before, hints, torch.from_numpy(arrays["dense_boost"].astype(np.float64)))
    np.testing.assert_allclose(after.numpy(), arrays["dense_logp_tilted"], atol=1e-5, rtol=0)


class Table:
    """A fixed distribution for every input of a stream."""

    def __init__(self, log_probabilities: torch.Tensor) -> None:
        self.log_probabilities = log_probabilities
        self.vocab_size = log_probabilities.shape[1]

    def predict(self, batch: WindowBatch) -> torch.Tensor:
        columns = batch.starts[:, None] + torch.arange(batch.first_scored, batch.inputs.shape[1])
        return self.log_probabilities[columns]

    def observe(self, block: Revealed) -> None:
        pass


def test_the_published_pass_of_pr1557() -> None:
    arrays = stored("pass_1557")
    tokens = torch.from_numpy(arrays["tokens"].astype(np.int64))
    targets, vocab = len(tokens) - 1, int(arrays["vocab_size"])
    base, log_hint = -arrays["base_nll"], arrays["log_q_hint"]
    hint = np.maximum(arrays["hint"][1:], 0)
    inner = Table(rows([(hint, log_hint), (tokens[1:].numpy(), base)], vocab).float())
    predictor = TiltedPredictor(inner, PR1557, targets=targets, flags=flags_of(arrays, "is_boundary"))
    windows = sliding_windows(targets, int(arrays["context"]), int(arrays["stride"]))
    plan = chunked_plan(windows, targets, int(arrays["chunk"]))
    done = score(predictor, tokens, Ledger(np.ones(targets, np.uint16)), plan)
    np.testing.assert_allclose(done.nats, arrays["nll"], atol=1e-5, rtol=0)
    assert done.total_nats == pytest.approx(arrays["summary"][0], rel=1e-6)


def tilted(name: str, config: TiltConfig = SHORT) -> Predictor:
    return TiltedPredictor(PLANS[name][0](), config, targets=TARGETS)


def repetitive() -> torch.Tensor:
    """A stream with hints that are often right."""
    tokens = stream()
    tokens[20:35] = tokens[3:18]
    tokens[40:55] = tokens[5:20]
    return tokens


def nats(predictor: Predictor, name: str, tokens: torch.Tensor, **options: int) -> np.ndarray:
    return score(predictor, tokens, ledger(), PLANS[name][1](), **options).nats


@pytest.mark.parametrize("name", ["plain", "sliding"])
def test_tilted_scores_follow_the_formula(name: str) -> None:
    tokens = repetitive()
    hints, strengths = build_hints(tokens.numpy().astype(np.uint16), SHORT, vocab_size=VOCAB)
    assert 10 < (strengths > 0).sum() < TARGETS
    targets = tokens.clone()
    targets[1:] = torch.from_numpy(hints.clip(min=0).astype(np.int64))
    before = nats(PLANS[name][0](), name, tokens).astype(np.float64)
    hinted = np.empty(TARGETS)
    for block in PLANS[name][1]():
        for windows in block.windows.uniform_runs(1):
            batch = cut(tokens, windows, 0)
            first, stop = int(windows.starts[0] + windows.first_scored[0]), int(windows.starts[0] + windows.lengths[0])
            rows_of_window = PLANS[name][0]().predict(batch)[0]
            hinted[first:stop] = rows_of_window.gather(-1, targets[first + 1 : stop + 1, None])[:, 0]
    right = hints == tokens[1:].numpy()
    expected = before - strengths * right + np.log1p(np.exp(hinted) * np.expm1(strengths))
    np.testing.assert_allclose(nats(tilted(name), name, tokens), expected, atol=1e-5)


@pytest.mark.parametrize("name", list(PLANS))
@pytest.mark.parametrize("rows_at_once", [1, 3])
def test_rows_per_forward_change_no_score(name: str, rows_at_once: int) -> None:
    tokens = repetitive()
    whole_batches = nats(tilted(name), name, tokens)
    np.testing.assert_allclose(nats(tilted(name), name, tokens, windows_per_forward=rows_at_once), whole_batches, atol=1e-5)
    assert not np.allclose(whole_batches, nats(PLANS[name][0](), name, tokens), atol=1e-2)


@pytest.mark.parametrize("name", list(PLANS))
def test_the_future_changes_no_score(name: str) -> None:
    tokens = repetitive()
    for position in (5, 23, 24, 41, 50):
        changed = tokens.clone()
        changed[position + 1 :] = (changed[position + 1 :] + 5) % VOCAB
        ours, other = nats(tilted(name), name, tokens), nats(tilted(name), name, changed)
        np.testing.assert_array_equal(ours[:position], other[:position])


@pytest.mark.parametrize("name", list(PLANS))
def test_scores_are_a_code_over_the_vocabulary(name: str) -> None:
    tokens = repetitive()
    for position in (24, 43):
        total = 0.0
        for token in range(VOCAB):
            changed = tokens.clone()
            changed[position] = token
            total += float(np.exp(-nats(tilted(name), name, changed)[position - 1]))
        assert total == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("name", list(PLANS))
def test_token_by_token_gives_the_same_bits(name: str) -> None:
    tokens, known, decoding = repetitive(), tilted(name), tilted(name)
    frontier = 0
    for block in PLANS[name][1]():
        for windows in block.windows.uniform_runs(1):
            batch = cut(tokens, windows, frontier)
            whole_window = known.predict(batch)[0]
            start, length = int(windows.starts[0]), int(windows.lengths[0])
            for column in range(batch.first_scored, length):
                inputs = batch.inputs.clone()
                inputs[:, column + 1 :] = 0
                shorter = replace(batch, inputs=inputs, coded=tokens[frontier : start + column + 1])
                row = decoding.predict(shorter)[0, column - batch.first_scored]
                assert torch.equal(row, whole_window[column - batch.first_scored])
        begin, end = block.reveal
        for predictor in (known, decoding):
            predictor.observe(Revealed(tokens[begin : end + 1], begin))
        frontier = end


def test_text_that_only_other_ranks_saw_is_read_when_it_is_revealed() -> None:
    tokens = repetitive()
    alone, with_others = tilted("adapted"), tilted("adapted")
    blocks = PLANS["adapted"][1]()
    for windows in blocks[0].windows.uniform_runs(8):
        alone.predict(cut(tokens, windows, 0))
    for predictor in (alone, with_others):
        predictor.observe(Revealed(tokens[:17], 0))
    (first, *_) = blocks[1].windows.uniform_runs(8)
    assert torch.equal(alone.predict(cut(tokens, first, 16)), with_others.predict(cut(tokens, first, 16)))


def test_predicting_again_changes_nothing() -> None:
    tokens, predictor = repetitive(), tilted("plain")
    (windows,) = plain_windows(TARGETS, CONTEXT).part(0, 7).uniform_runs(7)
    batch = cut(tokens, windows, 0)
    assert torch.equal(predictor.predict(batch), predictor.predict(batch))
    shorter = replace(batch, coded=batch.coded[:30])
    again = predictor.predict(shorter)
    assert torch.equal(again[:3], predictor.predict(batch)[:3])
    assert torch.equal(again[4:], PLANS["plain"][0]().predict(batch)[4:]), "inputs that are not coded get no hint"


def first_batch(tokens: torch.Tensor, frontier: int = 0) -> WindowBatch:
    return cut(tokens, plain_windows(TARGETS, CONTEXT).part(0, 2), frontier)


def test_another_past_is_refused() -> None:
    tokens, predictor = repetitive(), tilted("plain")
    predictor.predict(first_batch(tokens))
    changed = tokens.clone()
    changed[5] = (changed[5] + 1) % VOCAB
    with pytest.raises(ValidityError, match=r"input 5 is \d+, but was \d+ when it was shown as coded"):
        predictor.predict(first_batch(changed))
    with pytest.raises(ValidityError, match="input 5 is"):
        predictor.observe(Revealed(changed[:17], 0))
    with pytest.raises(ValidityError, match="coded text begins at input 3, but the text up to input 0 was observed"):
        predictor.predict(first_batch(tokens, frontier=3))
    predictor.observe(Revealed(tokens[:17], 0))
    with pytest.raises(ValidityError, match="asked for at input 0, but the text up to input 16 was observed"):
        predictor.predict(first_batch(tokens, frontier=16))


def test_wrong_settings_and_tokens_are_refused() -> None:
    with pytest.raises(RecipeError, match="without token flags"):
        tilted("plain", PR1557)
    tokens = repetitive()
    tokens[3] = VOCAB
    table = Table(torch.zeros(TARGETS, VOCAB).log_softmax(-1))
    with pytest.raises(DataError, match=f"outside the vocabulary of {VOCAB}"):
        TiltedPredictor(table, EXACT, targets=TARGETS).predict(first_batch(tokens))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_gives_the_same_nats() -> None:
    tokens = repetitive()
    table = torch.randn(TARGETS, VOCAB, generator=torch.Generator().manual_seed(0)).log_softmax(-1)
    plan: list[Block] = fixed_plan(plain_windows(TARGETS, CONTEXT))
    on_cpu, on_gpu = (
        score(TiltedPredictor(Table(part), SHORT, targets=TARGETS), tokens, ledger(), plan).nats
        for part in (table, table.cuda())
    )
    np.testing.assert_allclose(on_gpu, on_cpu, atol=1e-6)

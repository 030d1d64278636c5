"""Nats per target of every pass equal the published systems', target by target, and so do the steps between them."""

from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import pytest
import torch
from hints_cases import flags_of, stored
from safetensors.torch import load_file
from scoring_cases import GOLDEN, PASSES, STEP_COLUMNS, SYSTEMS, WHOLE, ScoringCase, scoring_case
from torch import nn

from fairway.base.errors import RecipeError, ValidityError
from fairway.recipes.tilts import PR1557
from fairway.score.adaptation import AdaptedPredictor
from fairway.score.driver import score, scored_inputs
from fairway.score.ledger import Ledger
from fairway.score.passes import build_pass, run_pass
from fairway.score.plan import Block
from fairway.score.predictor import Predictor
from fairway.score.tilt import TiltedPredictor
from reference_names import to_fairway

TOLERANCE = 3e-5
STORED = [(pr, name) for pr in SYSTEMS for name in PASSES if name != "ttt_b" or pr in ("1413", "1776")]
ADAPTED = [(pr, name) for pr, name in STORED if PASSES[name] == "adapted"]


@dataclass
class Walked:
    """A pass that was run, and what was seen on the way."""

    ledger: Ledger
    plan: list[Block]
    steps_before: np.ndarray
    """Optimizer steps taken when each input was scored."""
    norms: list[float]
    """Norm of the gradient before clipping, per step."""
    rates: list[float]
    """Step size, per step."""


def walk(case: ScoringCase, adapted: AdaptedPredictor, outer: Predictor, plan: list[Block], *, strict: bool) -> Walked:
    ledger = Ledger(case.text.byte_costs)
    seen = Walked(ledger, plan, np.full(case.text.targets, -1), [], [])
    clip, done = nn.utils.clip_grad_norm_, 0

    def watched_clip(*arguments, **options):
        norm = clip(*arguments, **options)
        seen.norms.append(float(norm))
        seen.rates.append(adapted.optimizer.param_groups[0]["lr"])
        return norm

    def progress(committed: int) -> None:
        nonlocal done
        seen.steps_before[done:committed] = adapted.steps
        done = committed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nn.utils, "clip_grad_norm_", watched_clip)
        score(outer, case.text.tokens, ledger, plan, strict=strict, progress=progress)
    return seen


@cache
def walk_pass(pr: str, name: str, windows_per_forward: int = 32) -> tuple[Walked, AdaptedPredictor]:
    """An adapted pass, run once for all that is asked of it."""
    case = scoring_case(pr)
    config = case.config(name, windows_per_forward=windows_per_forward)
    predictor, plan = build_pass("adapted", case.network(), case.text.targets, config)
    assert isinstance(predictor, AdaptedPredictor)
    return walk(case, predictor, predictor, plan, strict=config.mode == "strict"), predictor


def check(case: ScoringCase, ledger: Ledger, name: str) -> None:
    np.testing.assert_allclose(ledger.nats, case.arrays[f"{name}_nll"], atol=TOLERANCE, rtol=0)
    nats, targets, byte_total, _, bits = case.arrays[f"{name}_summary"]
    assert ledger.total_nats == pytest.approx(nats, rel=1e-6)
    assert (len(ledger.nats), ledger.total_bytes) == (targets, byte_total)
    assert ledger.bits_per_byte == pytest.approx(bits, abs=1e-6)


@pytest.mark.parametrize("name", ["plain", "sliding"])
@pytest.mark.parametrize("pr", SYSTEMS)
def test_fixed_weights_give_the_published_nats(pr: str, name: str) -> None:
    case = scoring_case(pr)
    check(case, run_pass(PASSES[name], case.network(), case.text, case.config(name)), name)


@pytest.mark.parametrize(("pr", "name"), [pair for pair in STORED if pair[1] != "plain"])
def test_every_target_is_scored_by_the_published_window(pr: str, name: str) -> None:
    case = scoring_case(pr)
    _, plan = build_pass(PASSES[name], case.network(), case.text.targets, case.config(name))
    starts = np.full(case.text.targets, -1)
    for block in plan:
        windows = block.windows
        counts = windows.lengths - windows.first_scored
        starts[scored_inputs(windows)] = np.repeat(windows.starts, counts)
    np.testing.assert_array_equal(starts, case.arrays[f"{name}_window_start"])


@pytest.mark.parametrize(("pr", "name"), ADAPTED)
def test_nats_steps_and_weights_of_the_adapted_pass(pr: str, name: str) -> None:
    case = scoring_case(pr)
    seen, predictor = walk_pass(pr, name)
    check(case, seen.ledger, name)
    np.testing.assert_array_equal(seen.steps_before, case.arrays[f"{name}_steps_before"])
    table = case.arrays[f"{name}_step_table"]
    assert predictor.steps == len(table)
    np.testing.assert_allclose(seen.rates, table[:, STEP_COLUMNS["rate"]], rtol=1e-12)
    np.testing.assert_allclose(seen.norms, table[:, STEP_COLUMNS["norm"]], rtol=3e-5)
    before, after = case.network().state_dict(), predictor.inner.model.state_dict()
    for layer in range(case.setting("layers")):
        names = [key for key in before if key.startswith(f"blocks.{layer}.")]
        assert all(torch.equal(after[key], before[key]) == (layer < case.setting("frozen_blocks")) for key in names)
    if name == "ttt":
        for key, tensor in to_fairway(load_file(GOLDEN / f"adapted_{pr}.safetensors"), case.setting("layers")).items():
            torch.testing.assert_close(after[key], tensor, atol=2e-5, rtol=0)


@pytest.mark.skipif(not WHOLE.is_dir(), reason="the whole networks lie outside the repository; a part of each is tested above")
@pytest.mark.parametrize("pr", SYSTEMS)
def test_all_weights_after_the_adapted_pass(pr: str) -> None:
    case = scoring_case(pr)
    _, predictor = walk_pass(pr, "ttt")
    found = predictor.inner.model.state_dict()
    wanted = to_fairway(load_file(WHOLE / f"{pr}_after_ttt.safetensors"), case.setting("layers"))
    assert wanted.keys() == found.keys()
    for key, tensor in wanted.items():
        torch.testing.assert_close(found[key], tensor, atol=2e-5, rtol=0)


def test_strict_mode_refuses_to_train_on_48_targets_of_pr1776_early() -> None:
    case = scoring_case("1776")
    config = replace(case.config("ttt_b"), mode="strict")
    with pytest.raises(RecipeError, match=r"last_input would reveal 144 targets .* use first_input"):
        build_pass("adapted", case.network(), case.text.targets, config)
    predictor, plan = build_pass("adapted", case.network(), case.text.targets, case.config("ttt_b"))
    assert isinstance(predictor, AdaptedPredictor)
    with pytest.raises(ValidityError):
        score(predictor, case.text.tokens, Ledger(case.text.byte_costs), plan)
    # A target is trained on early if a step that took its row was counted before it was scored.
    seen, _ = walk_pass("1776", "ttt_b")
    chunk, context = config.adaptation.chunk_tokens, config.context
    inputs = np.arange(case.text.targets)
    chunks = case.arrays["ttt_b_step_table"][:, STEP_COLUMNS["chunk"]]
    taken = np.searchsorted(chunks, inputs // chunk, side="right")
    in_a_row = inputs % chunk < chunk // context * context
    last = inputs // chunk == inputs[-1] // chunk
    assert int(((seen.steps_before >= taken) & in_a_row & ~last).sum()) == 48


def test_the_tilted_pass_of_pr1557() -> None:
    case, arrays = scoring_case("1557"), stored("pass_1557")
    adapted, plan = build_pass("adapted", case.network(), case.text.targets, case.config("ttt"))
    assert isinstance(adapted, AdaptedPredictor)
    flags = flags_of(arrays, "is_boundary")
    kept = Keeping(TiltedPredictor(adapted, PR1557, targets=case.text.targets, flags=flags))
    seen = walk(case, adapted, kept, plan, strict=True)
    np.testing.assert_allclose(seen.ledger.nats, arrays["nll"], atol=1e-4, rtol=0)
    assert seen.ledger.total_nats == pytest.approx(arrays["summary"][0], rel=1e-6)
    hints, strengths = (np.concatenate(parts) for parts in (kept.hints, kept.strengths))
    used = arrays["beta"][1:] > 0
    assert int(used.sum()) == 1233
    np.testing.assert_array_equal(strengths > 0, used)
    np.testing.assert_array_equal(hints[used], arrays["hint"][1:][used])
    np.testing.assert_allclose(strengths, arrays["beta"][1:], rtol=1e-12)
    # The tilt never reaches the training: the network underneath took the same steps.
    assert adapted.steps == len(case.arrays["ttt_step_table"])
    for key, tensor in to_fairway(load_file(GOLDEN / "adapted_1557.safetensors"), case.setting("layers")).items():
        torch.testing.assert_close(adapted.inner.model.state_dict()[key], tensor, atol=2e-5, rtol=0)


class Keeping:
    """A tilted predictor whose hints are kept before it forgets them."""

    def __init__(self, inner: TiltedPredictor) -> None:
        self.inner, self.vocab_size = inner, inner.vocab_size
        self.hints: list[np.ndarray] = []
        self.strengths: list[np.ndarray] = []

    def predict(self, batch):
        return self.inner.predict(batch)

    def observe(self, block) -> None:
        count = len(block.tokens) - 1
        self.hints.append(self.inner.hints[:count])
        self.strengths.append(self.inner.strengths[:count])
        self.inner.observe(block)


def test_rows_per_forward_changes_no_score() -> None:
    whole, _ = walk_pass("1413", "ttt")
    split, _ = walk_pass("1413", "ttt", windows_per_forward=3)
    np.testing.assert_allclose(split.ledger.nats, whole.ledger.nats, atol=TOLERANCE, rtol=0)

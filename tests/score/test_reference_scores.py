"""Nats per target of the plain, sliding and adapted passes equal the published system's, target by target."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from scoring_cases import GOLDEN, scoring_case, scoring_model

from fairway.score.driver import score
from fairway.score.ledger import Ledger
from fairway.score.neural import NeuralPredictor
from fairway.score.plan import chunk_count, chunked_plan, fixed_plan, plain_windows, sliding_windows
from fairway.score.sgd import AdaptedPredictor
from reference_names import to_fairway

TOLERANCE = 3e-5


def check(ledger: Ledger, name: str) -> None:
    case = scoring_case()
    np.testing.assert_allclose(ledger.nats, case.arrays[f"{name}_nll"], atol=TOLERANCE, rtol=0)
    nats, targets, byte_total, _, bits = case.arrays[f"{name}_summary"]
    assert ledger.total_nats == pytest.approx(nats, rel=1e-6)
    assert (len(ledger.nats), ledger.total_bytes) == (targets, byte_total)
    assert ledger.bits_per_byte == pytest.approx(bits, abs=1e-6)


def adapted(stride: int, chunk: int, rows_per_forward: int = 32) -> tuple[Ledger, AdaptedPredictor]:
    case = scoring_case()
    targets, context = len(case.byte_costs), case.setting("context")
    windows = sliding_windows(targets, context, stride)
    predictor = AdaptedPredictor(
        scoring_model(),
        case.adaptation(chunk),
        context=context,
        chunks=chunk_count(targets, chunk),
        rows_per_forward=rows_per_forward,
    )
    return score(predictor, case.tokens, Ledger(case.byte_costs), chunked_plan(windows, targets, chunk)), predictor


def test_plain_pass() -> None:
    case = scoring_case()
    plan = fixed_plan(plain_windows(len(case.byte_costs), case.setting("context")))
    check(score(NeuralPredictor(scoring_model()), case.tokens, Ledger(case.byte_costs), plan), "plain")


def test_sliding_pass() -> None:
    case = scoring_case()
    windows = sliding_windows(len(case.byte_costs), case.setting("context"), case.setting("stride"))
    check(score(NeuralPredictor(scoring_model()), case.tokens, Ledger(case.byte_costs), fixed_plan(windows)), "sliding")
    starts = np.empty(len(case.byte_costs), dtype=np.int64)
    for start, length, first in zip(windows.starts, windows.lengths, windows.first_scored, strict=True):
        starts[start + first : start + length] = start
    np.testing.assert_array_equal(starts, case.arrays["sliding_window_start"])


def test_adapted_pass_and_the_weights_it_ends_with() -> None:
    case = scoring_case()
    ledger, predictor = adapted(case.setting("stride"), case.setting("chunk"))
    check(ledger, "ttt")
    assert predictor.steps == len(case.arrays["ttt_step_table"])
    wanted = load_file(GOLDEN / "adapted_1413.safetensors")
    found = predictor.inner.model.state_dict()
    for name, tensor in to_fairway(wanted, 6).items():
        torch.testing.assert_close(found[name], tensor, atol=2e-5, rtol=0)


def test_adapted_pass_where_stride_and_chunk_divide_nothing() -> None:
    case = scoring_case()
    ledger, predictor = adapted(case.setting("stride_b"), case.setting("chunk_b"))
    check(ledger, "ttt_b")
    assert predictor.steps == len(case.arrays["ttt_b_step_table"])


def test_rows_per_forward_changes_no_score() -> None:
    case = scoring_case()
    whole, _ = adapted(case.setting("stride"), case.setting("chunk"))
    split, _ = adapted(case.setting("stride"), case.setting("chunk"), rows_per_forward=3)
    np.testing.assert_allclose(split.nats, whole.nats, atol=TOLERANCE, rtol=0)

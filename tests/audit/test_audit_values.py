"""Worked numbers of the rules: sums of a gated tilt and of a blend, and Kraft sums of two documents."""

import numpy as np
import pytest
from audit_toys import BlackBox

from fairway.audit.finding import Finding
from fairway.audit.runner import Tolerances
from fairway.audit.scorer import Meta
from fairway.audit.streams import AuditStream, uniform
from fairway.audit.substitution import substitution_sum
from fairway.audit.witness import Case, replay, sum_over

BETA = 2.0
BASE = np.array([0.2, 0.15, 0.15, 0.1, 0.25, 0.15])
"""Model probabilities; token 0 is the hint, and the class of tokens 0..3 has mass 0.6."""
CLASS = (0, 1, 2, 3)


def tilted(token: int) -> float:
    z = 1 + BASE[0] * (np.exp(BETA) - 1)
    return float(BASE[token] * (np.exp(BETA) if token == 0 else 1.0) / z)


def gate_on_the_target(tokens: np.ndarray, entry: int, vocab: int) -> float:
    target = int(tokens[entry + 1])
    return tilted(target) if target in CLASS else float(BASE[target])


def ungated(tokens: np.ndarray, entry: int, vocab: int) -> float:
    return tilted(int(tokens[entry + 1]))


def blended(tokens: np.ndarray, entry: int, vocab: int) -> float:
    return 0.6 * 0.1 + 0.4 * 0.9


def sums(scorer: BlackBox) -> Finding:
    return substitution_sum(scorer, uniform(scorer.vocab_size, 20, 0))


def test_a_gate_on_the_class_of_the_target_claims_1_22439() -> None:
    finding = sums(BlackBox(gate_on_the_target, 6))
    assert finding.verdict == "fail"
    assert finding.statistic == pytest.approx(0.22439, abs=1e-5)
    assert finding.witness is not None
    assert finding.witness.found == pytest.approx(1.22439, abs=1e-5)
    z = 1 + BASE[0] * (np.exp(BETA) - 1)
    a = z - 1
    assert (z, a) == (pytest.approx(2.27781, abs=1e-5), pytest.approx(1.27781, abs=1e-5))
    assert finding.witness.found == pytest.approx(1 + a * (1 - 0.6) / (1 + a), abs=1e-9)


def test_the_same_tilt_without_a_gate_is_a_distribution() -> None:
    finding = sums(BlackBox(ungated, 6))
    assert finding.verdict == "pass"
    assert tilted(0) == pytest.approx(0.64879, abs=1e-5)
    assert sum(map(tilted, range(1, 6))) == pytest.approx(0.35121, abs=1e-5)


def test_a_blend_on_the_true_token_claims_4_2() -> None:
    finding = sums(BlackBox(blended, 10))
    assert finding.verdict == "fail"
    assert finding.witness is not None
    assert finding.witness.found == pytest.approx(4.2)
    assert replay(finding.witness, BlackBox(blended, 10))[1] == pytest.approx(4.2)
    case = Case(np.zeros(2, dtype=np.int64), Meta(1))
    assert sum_over(BlackBox(blended, 10), case, 0, list(range(10))) == pytest.approx(4.2)


def test_the_witness_names_the_two_likeliest_substitutions() -> None:
    witness = sums(BlackBox(gate_on_the_target, 6)).witness
    assert witness is not None
    assert witness.tokens["substituted"] == [0, 4]
    assert witness.tokens["nats"]["0"] == pytest.approx(-np.log(0.64879), abs=1e-5)


def test_equally_likely_substitutions_are_named_in_order() -> None:
    witness = sums(BlackBox(blended, 64)).witness
    assert witness is not None
    assert witness.tokens["substituted"] == [0, 1]


def test_a_tolerance_can_be_widened_for_bfloat16() -> None:
    def nearly(tokens: np.ndarray, entry: int, vocab: int) -> float:
        return (1 + 5e-4) / vocab

    stream = AuditStream("flat", np.zeros(30, dtype=np.int64), 5)
    assert substitution_sum(BlackBox(nearly, 5), stream).verdict == "fail"
    assert substitution_sum(BlackBox(nearly, 5), stream, tolerances=Tolerances(total=1e-3)).verdict == "pass"

"""Every mutant is caught, by the tests and for the condition that make it invalid; no valid scorer is flagged."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fairway.audit.finding import Finding
from fairway.audit.run import CORE, judge
from fairway.audit.scorer import Scorer
from fairway.audit.streams import generate
from fairway.audit.substitution import substitution_sum
from fairway.audit.witness import kraft_sum, replay
from mutants.base import VOCAB
from mutants.breaches import MUTANTS, Mutant, PaidPrefix, Races
from mutants.matrix import LETTERS, mutant_findings, placed, valid_findings
from mutants.ours import ours
from mutants.records import HONEST, RECORDS, Record
from mutants.valid import VALID, Chunked, DeclaredLength, GatedByPrefix
from mutants.worked import KRAFT, LENGTHS, WORKED, blended, gated

PAGE = Path(__file__).parents[2] / "docs" / "validity.md"

RULES: dict[str, tuple[str, str]] = {
    "GatedByPrefix": ("", "FNSGU"),
    "Chunked": ("", "FNSGU"),
    "WithinWord": ("S", "FNGU"),
    "UnnormalisedBlend": ("SU", "FNG"),
    "OracleSelection": ("SU", "FNG"),
    "TwoPass": ("FNSGU", ""),
    "TrainThenScore": ("FNSGU", ""),
    "Slot": ("FNSG", ""),
    "UndeclaredRate": ("N", "FSGU"),
    "UndeclaredOrder": ("FN", "SGU"),
    "DeclaredLength": ("", "FSGU"),
    "StreamHints": ("FG", "SU"),
}
"""The detection matrix of the rules, section 5.3: what fails and what passes. SLOT's U depends on the base, which matches here;
N of a stated order of coding is not applicable here."""

IN_KIND = 2.5
"""Factor within which the Kraft sums of toys agree that the rules do not describe in full."""


def named(mutant: Mutant) -> str:
    return mutant.build.__name__


@pytest.mark.parametrize("mutant", MUTANTS, ids=named)
def test_a_mutant_is_caught_for_its_reason(mutant: Mutant) -> None:
    findings = mutant_findings(mutant)
    passed = [letter for letter in mutant.caught_by if findings[letter].verdict != "fail"]
    assert not passed, f"{passed} should fail: {[findings[letter].reason for letter in passed]}"
    assert any(mutant.condition in findings[letter].conditions for letter in mutant.caught_by)
    verdicts = {verdict.condition: verdict.verdict for verdict in judge(list(findings.values()))}
    assert verdicts[mutant.condition] == "fail"


@pytest.mark.parametrize("mutant", [mutant for mutant in MUTANTS if mutant.build is not Races], ids=named)
def test_anybody_can_replay_the_witness(mutant: Mutant) -> None:
    witness = mutant_findings(mutant)[mutant.caught_by[0]].witness
    assert witness is not None
    assert witness.expected != witness.found
    assert replay(witness, mutant.make()) == pytest.approx((witness.expected, witness.found), rel=1e-12)


def test_every_breach_of_a_scorer_has_a_mutant() -> None:
    of_scorers = {f"V{number}" for number in (1, 2, 3, 4, 5, 7, 8, 9, 10, 12, 13, 14, 20, 21)}
    of_records = {f"V{number}" for number in (15, 16, 17, 18, 19, 26, 27, 28, 29, 30)}
    assert {mutant.breach for mutant in MUTANTS} - {""} == of_scorers
    assert {record.breach for record in RECORDS} == of_records


def flagged(findings: dict[str, Finding]) -> dict[str, str]:
    return {letter: finding.reason for letter, finding in findings.items() if finding.verdict not in ("pass", "not applicable")}


def assert_valid(make: Callable[[], Scorer], *, networks: bool) -> None:
    findings = valid_findings(make, networks)
    assert not flagged(findings)
    assert set(findings) == set(LETTERS)
    verdicts = {verdict.condition: verdict.verdict for verdict in judge(list(findings.values()))}
    assert {verdicts[condition] for condition in CORE} == {"pass"}


@pytest.mark.slow
@pytest.mark.parametrize("kind", VALID, ids=lambda kind: kind.__name__)
def test_no_valid_scorer_is_flagged(kind: type) -> None:
    assert_valid(kind, networks=False)


@pytest.mark.slow
@pytest.mark.parametrize("make", ours(), ids=lambda make: make().name)
def test_none_of_our_scorers_is_flagged(make: Callable[[], Scorer]) -> None:
    assert_valid(make, networks=True)


def test_text_inside_the_artifact_is_seen_by_no_test() -> None:
    stream = generate(VOCAB).logic
    nats = {kind: kind().score(stream.tokens, stream.meta()).sum() for kind in (PaidPrefix, Chunked)}
    assert nats[PaidPrefix] < 0.05 * nats[Chunked]
    assert not flagged(valid_findings(PaidPrefix, False))


@pytest.mark.parametrize("name", RULES)
def test_the_matrix_of_the_rules(name: str) -> None:
    kinds = {kind.__name__: kind for kind in (Chunked, GatedByPrefix, DeclaredLength)}
    mutants = {named(mutant): mutant for mutant in MUTANTS}
    findings = valid_findings(kinds[name], False) if name in kinds else mutant_findings(mutants[name])
    fails, passes = RULES[name]
    assert {letter: findings[letter].verdict for letter in fails + passes} == {
        **dict.fromkeys(fails, "fail"),
        **dict.fromkeys(passes, "pass"),
    }


@pytest.mark.parametrize(("name", "kind", "published"), KRAFT, ids=[name for name, _, _ in KRAFT])
def test_kraft_sums_of_the_rules_in_kind(name: str, kind: type, published: str) -> None:
    for (targets, starts), text in zip(LENGTHS, published.split(" / "), strict=True):
        found, expected = kraft_sum(kind().miniature(2), 2, targets, starts, {}), float(text)
        if expected == 1.0:
            assert found == pytest.approx(1.0, abs=1e-12)
        else:
            assert np.sign(found - 1.0) == np.sign(expected - 1.0)
            assert abs(np.log(found / expected)) < np.log(IN_KIND)
        if name == "length order, stream-order hints":
            assert found > 1.3


@pytest.mark.parametrize(("title", "excess", "expected"), WORKED, ids=[title for title, _, _ in WORKED])
def test_sums_of_the_rules_to_the_last_digit(title: str, excess: Callable[[], float], expected: float) -> None:
    assert 1.0 + excess() == pytest.approx(expected, abs=5e-6)


@pytest.mark.parametrize(
    ("make", "excess"),
    [(lambda: gated(True), 0.22439), (lambda: gated(False), 0.0), (blended, 3.2)],
    ids=["gate", "none", "blend"],
)
def test_the_substitution_test_measures_these_sums(make: Callable[[], Scorer], excess: float) -> None:
    scorer = make()
    finding = substitution_sum(scorer, generate(scorer.vocab_size).logic)
    assert finding.verdict == ("fail" if excess else "pass")
    assert finding.statistic == pytest.approx(excess, abs=5e-6)


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.title)
def test_a_wrong_record_is_caught(record: Record) -> None:
    finding = record.check()
    assert (finding.test, finding.verdict) == (record.letter, "fail"), finding.reason
    assert record.condition in finding.conditions


@pytest.mark.parametrize("record", HONEST, ids=lambda record: record.title)
def test_an_honest_record_is_not(record: Record) -> None:
    finding = record.check()
    assert (finding.test, finding.verdict) == (record.letter, "pass"), finding.reason


@pytest.mark.slow
def test_the_page_is_up_to_date() -> None:
    page = PAGE.read_text("utf-8")
    assert placed(page) == page, "run make matrix"

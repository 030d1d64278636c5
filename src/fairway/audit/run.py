"""The catalogue of tests, and an audit: what fits a time budget, cheapest first, with a verdict per validity condition."""

import dataclasses
import functools
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import numpy as np

import fairway
from fairway.audit import (
    coverage,
    decoding,
    determinism,
    future,
    hook,
    incompressible,
    independence,
    influence,
    kraft,
    online,
    prefix,
    substitution,
)
from fairway.audit.artifact import NetworkScorer
from fairway.audit.finding import Condition, Finding, Verdict
from fairway.audit.kraft import Miniature
from fairway.audit.runner import FLOAT32, Sheet, Tolerances
from fairway.audit.scorer import Distributional, Independent, Meta, Scheduled, Scorer, Stepwise
from fairway.audit.streams import Streams, generate
from fairway.base.errors import FairwayError
from fairway.base.files import write_json
from fairway.base.log import logger

MATCHED_VOCABULARY = 16
"""Tokens of the network whose predictions are uniform, on which an artifact's mechanisms meet the uniform source."""


@dataclass
class Subject:
    """What is audited, and what one run of it costs."""

    scorer: Scorer
    streams: Streams
    seed: int = 0
    tolerances: Tolerances = FLOAT32
    run_seconds: float = 0.0
    """One run over the logic stream."""
    deadline: float = math.inf
    """Moment of ``time.perf_counter`` after which long tests begin no further probe."""

    @functools.cached_property
    def tiny_seconds(self) -> float:
        """One run over eight targets of a tiny alphabet."""
        scorer = self.scorer
        if scorer.vocab_size > kraft.LARGEST_VOCABULARY and isinstance(scorer, Miniature):
            scorer = scorer.miniature(2)
        tokens = np.zeros(9, dtype=np.int64)
        scorer.score(tokens, Meta(8))
        began = time.perf_counter()
        scorer.score(tokens, Meta(8))
        return time.perf_counter() - began


@dataclass(frozen=True)
class AuditTest:
    """One line of the catalogue."""

    sheet: Sheet
    run: Callable[[Subject, int], Finding]
    """The test with so many probes."""
    seconds: Callable[[Subject, int], float]
    """What that will take."""
    probes: tuple[int, int] = (1, 1)
    """Fewest that can decide, and most that are useful."""
    applies: Callable[[Scorer], bool] = lambda scorer: True

    @property
    def letter(self) -> str:
        """Letter of the test."""
        return self.sheet.test


def _source_runs(subject: Subject) -> float:
    lengths = sum(stream.targets for stream in subject.streams.sources)
    return lengths / max(1, subject.streams.logic.targets)


def _each(subject: Subject) -> int:
    """Runs of a substitution sum at one target."""
    vocab = subject.streams.logic.vocab_size
    hooked = vocab > substitution.SMALL_VOCABULARY and isinstance(subject.scorer, Distributional)
    return substitution.TRIED + 1 if hooked else vocab


def _steps(scorer: Scorer) -> bool:
    return isinstance(scorer, Stepwise)


def _incompressible(subject: Subject, probes: int) -> Finding:
    """On the audit's sources; an artifact on those of a small vocabulary, where its base is the source."""
    if isinstance(subject.scorer, NetworkScorer):
        targets = subject.streams.sources[0].targets
        matched = generate(MATCHED_VOCABULARY, subject.seed, source_targets=targets)
        return incompressible.incompressible_stream(subject.scorer.matched(MATCHED_VOCABULARY), *matched.sources)
    return incompressible.incompressible_stream(subject.scorer, *subject.streams.sources)


def _options(subject: Subject, probes: int) -> dict[str, Any]:
    return {"seed": subject.seed, "probes": probes, "tolerances": subject.tolerances}


CATALOGUE: tuple[AuditTest, ...] = (
    AuditTest(
        coverage.SHEET,
        lambda s, p: coverage.coverage(s.scorer, s.streams.logic, seed=s.seed, tolerances=s.tolerances),
        lambda s, p: 3 * s.run_seconds,
    ),
    AuditTest(
        determinism.SHEET,
        lambda s, p: determinism.determinism(s.scorer, s.streams.logic, seed=s.seed, tolerances=s.tolerances),
        lambda s, p: 4 * s.run_seconds,
    ),
    AuditTest(incompressible.SHEET, _incompressible, lambda s, p: _source_runs(s) * s.run_seconds),
    AuditTest(
        prefix.SHEET,
        lambda s, p: prefix.replay_prefixes(s.scorer, s.streams.logic, **_options(s, p)),
        lambda s, p: (1 + p) * s.run_seconds,
        (3, 6),
        lambda scorer: not isinstance(scorer, Scheduled),
    ),
    AuditTest(
        independence.SHEET,
        lambda s, p: independence.document_independence(s.scorer, s.streams.logic, **_options(s, p)),
        lambda s, p: (2 + p) * s.run_seconds,
        (3, 6),
        lambda scorer: isinstance(scorer, Independent) and scorer.documents_independent,
    ),
    AuditTest(
        online.SHEET,
        lambda s, p: online.online_protocol(s.scorer, s.streams.logic, tolerances=s.tolerances),
        lambda s, p: 10 * s.run_seconds,
        applies=_steps,
    ),
    AuditTest(
        decoding.SHEET,
        lambda s, p: decoding.lossless_decoding(s.scorer, s.streams.logic, tolerances=s.tolerances),
        lambda s, p: (12 if _steps(s.scorer) else 2 * s.streams.logic.targets) * s.run_seconds,
        applies=lambda scorer: isinstance(scorer, Stepwise | Distributional | decoding.Codable),
    ),
    AuditTest(
        future.SHEET,
        lambda s, p: future.future_perturbation(s.scorer, s.streams.logic, **_options(s, p)),
        lambda s, p: (1 + p * len(future.KINDS)) * s.run_seconds,
        (future.FEWEST_CUTS, 8),
    ),
    AuditTest(
        influence.SHEET,
        lambda s, p: influence.influence_graph(s.scorer, s.streams.logic, **_options(s, p)),
        lambda s, p: (1 + 2 * p) * s.run_seconds,
        (4, 10),
    ),
    AuditTest(
        kraft.SHEET,
        lambda s, p: kraft.kraft_enumeration(s.scorer, tolerances=s.tolerances, most_streams=p),
        lambda s, p: p * s.tiny_seconds,
        (64, 256),
        lambda scorer: scorer.vocab_size <= kraft.LARGEST_VOCABULARY or isinstance(scorer, Miniature),
    ),
    AuditTest(
        hook.SHEET,
        lambda s, p: hook.hook_consistency(s.scorer, s.streams.logic, deadline=s.deadline, **_options(s, p)),
        lambda s, p: (2 + p * (hook.TRIES + 1)) * s.run_seconds,
        (hook.FEWEST_PROBES, 12),
        lambda scorer: isinstance(scorer, Distributional),
    ),
    AuditTest(
        substitution.SHEET,
        lambda s, p: substitution.substitution_sum(s.scorer, s.streams.logic, deadline=s.deadline, **_options(s, p)),
        lambda s, p: p * _each(s) * s.run_seconds,
        (substitution.FEWEST_PROBES + 1, 24),
    ),
)
"""Tests that need a scorer and a stream; those about files are in ``accounting``, ``caps`` and ``ledger``."""


def run_audit(
    scorer: Scorer,
    streams: Streams,
    budget_seconds: float,
    *,
    seed: int = 0,
    tolerances: Tolerances = FLOAT32,
    progress: Callable[[Finding], None] = lambda finding: None,
) -> list[Finding]:
    """Run the catalogue, cheapest first, within a time budget.

    A run over the stream is timed first. Every test gets what is left after the later ones' fewest probes are set aside, up
    to its most; one that does not fit is undecided and says so.

    Args:
        scorer: What is audited.
        streams: What it is fed.
        budget_seconds: Wall clock that may be spent.
        seed: Seed of everything drawn.
        tolerances: What arithmetic explains.
        progress: Called with every finding.

    Raises:
        FairwayError: the scorer fails on its very first text.
    """
    subject = Subject(scorer, streams, seed, tolerances)
    began = time.perf_counter()
    for _ in range(2):
        start = time.perf_counter()
        scorer.score(streams.logic.tokens.copy(), streams.logic.meta())
        subject.run_seconds = time.perf_counter() - start
    findings = [_absent(test) for test in CATALOGUE if not test.applies(scorer)]
    waiting = sorted(
        (test for test in CATALOGUE if test.applies(scorer)), key=lambda test: test.seconds(subject, test.probes[1])
    )
    while waiting:
        test = waiting.pop(0)
        left = budget_seconds - (time.perf_counter() - began)
        spare = left - sum(later.seconds(subject, later.probes[0]) for later in waiting)
        subject.deadline = time.perf_counter() + spare
        finding = _run(test, subject, left, spare)
        if finding.runs >= 4 and test.sheet is not kraft.SHEET and test.sheet is not incompressible.SHEET:
            subject.run_seconds = 0.5 * (subject.run_seconds + finding.seconds / finding.runs)
        findings.append(finding)
        progress(finding)
    return findings


def _absent(test: AuditTest) -> Finding:
    return test.sheet.not_applicable("the scorer lacks what this test examines, or does not claim it")


def _run(test: AuditTest, subject: Subject, left: float, spare: float) -> Finding:
    """The test with as many probes as fit, or the finding that none do."""
    fewest, most = test.probes
    least = test.seconds(subject, fewest)
    if least > left:
        return test.sheet.undecided(f"needs about {least:.0f} s and {max(left, 0.0):.0f} s of the time budget are left")
    probes = max((p for p in range(fewest, most + 1) if test.seconds(subject, p) <= spare), default=fewest)
    try:
        return test.run(subject, probes)
    except FairwayError as error:
        logger.info(f"{test.letter}: {error}")
        return test.sheet.undecided(f"the scorer failed: {' '.join(str(error).split())}")


REQUIRED: dict[Condition, tuple[str, ...]] = {
    "causal": ("F", "G"),
    "normalised": ("S",),
    "score before update": ("F", "S"),
    "single pass": ("X", "E"),
    "bytes": ("Y",),
    "budget": ("Z", "W"),
    "claim": ("Q",),
}
"""Tests that must all pass for a condition to pass; no single cheap one suffices."""
ARBITERS = ("D", "O")
"""Tests that settle the conditions they speak for alone, on the text that they walked."""


@dataclass(frozen=True)
class ConditionVerdict:
    """What the findings say about one validity condition."""

    condition: Condition
    verdict: Verdict
    tests: dict[str, Verdict] = field(default_factory=dict)
    """Letters of the tests that speak for it; a failure weighs more than a second finding of the same letter."""
    reason: str = ""


def judge(findings: Sequence[Finding]) -> list[ConditionVerdict]:
    """One verdict per validity condition.

    Fail where a test fails; pass where all required tests pass, or one that drives the scorer itself does; not applicable
    where nothing speaks; else undecided.
    """
    verdicts = []
    for condition in get_args(Condition):
        about = [finding for finding in findings if condition in finding.conditions]
        tests: dict[str, Verdict] = {}
        for finding in sorted(about, key=lambda finding: finding.verdict == "fail"):
            tests[finding.test] = finding.verdict
        failed = [finding for finding in about if finding.verdict == "fail"]
        spoken = {letter for letter, verdict in tests.items() if verdict == "pass"}
        if failed:
            verdicts.append(ConditionVerdict(condition, "fail", tests, f"{failed[0].test}: {failed[0].reason}"))
        elif set(REQUIRED[condition]) <= spoken or spoken & set(ARBITERS):
            verdicts.append(ConditionVerdict(condition, "pass", tests))
        elif all(verdict == "not applicable" for verdict in tests.values()):
            verdicts.append(ConditionVerdict(condition, "not applicable", tests))
        else:
            open_ = [finding for finding in about if finding.verdict == "undecided"]
            reason = f"{open_[0].test}: {open_[0].reason}" if open_ else "not all required tests were run"
            verdicts.append(ConditionVerdict(condition, "undecided", tests, reason))
    return verdicts


CORE: tuple[Condition, ...] = ("causal", "normalised", "score before update", "single pass")
"""The four conditions that make a score a code length."""


def _overall(verdicts: Sequence[ConditionVerdict]) -> Verdict:
    """Fail where a condition fails; pass where the four core conditions pass."""
    if any(verdict.verdict == "fail" for verdict in verdicts):
        return "fail"
    return "pass" if all(item.verdict == "pass" for item in verdicts if item.condition in CORE) else "undecided"


def failed(findings: Iterable[Finding]) -> bool:
    """Whether any test failed."""
    return any(finding.verdict == "fail" for finding in findings)


def audit_document(scorer: str, findings: Sequence[Finding], **about: Any) -> dict[str, Any]:
    """The content of ``audit.json``; numbers that JSON lacks are written as ``inf``, ``-inf`` and ``nan``."""
    verdicts = judge(findings)
    document = {
        "fairway": fairway.__version__,
        "scorer": scorer,
        "verdict": _overall(verdicts),
        **about,
        "conditions": [dataclasses.asdict(verdict) for verdict in verdicts],
        "findings": [dataclasses.asdict(finding) for finding in findings],
    }
    return _plain(document)


def write_audit(path: Path, document: dict[str, Any]) -> None:
    """Write ``audit.json`` atomically."""
    write_json(path, document)


def _plain(value: Any) -> Any:
    """Values that JSON can hold."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _plain(dataclasses.asdict(value))
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value

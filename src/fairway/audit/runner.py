"""Running a black box: calls are counted, outputs are checked, and a malformed output becomes evidence, not a traceback."""

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from fairway.audit.finding import Condition, Finding, Verdict, Witness
from fairway.audit.scorer import Distributional, Meta, Scorer
from fairway.audit.streams import AuditStream
from fairway.audit.witness import Case
from fairway.base.errors import ValidityError


@dataclass(frozen=True)
class Tolerances:
    """Largest differences that arithmetic alone explains."""

    same_shape: float = 0.0
    """Nats, where both runs feed arrays of the same shape: changed values that must not matter change nothing at all."""
    other_shape: float = 1e-5
    """Nats, where the second run feeds another shape and sums in another order."""
    total: float = 1e-5
    """Distance of a sum of probabilities from one."""
    hook: float = 1e-6
    """Nats between a score and the distribution that it is said to come from, relative above one nat."""


FLOAT32 = Tolerances()
"""Networks that compute in float32; ten times ``other_shape`` where optimiser steps lie between."""
ADAPTED = replace(FLOAT32, other_shape=1e-4)
"""float32 with optimiser steps between."""
BFLOAT16 = Tolerances(other_shape=0.05, total=1e-3, hook=0.05)
"""Networks that compute in bfloat16."""


NEGATIVE_ROUNDING = 1e-6
"""Nats below zero that a float32 probability of one may cost."""


FREE_NATS = 1e-9
"""Nats up to which a target counts as free."""


NO_SCORE = (
    "The scorer did not return one possible cost for each part of the text, or stated no proper order in which it takes them. "
    "So what it returned is no score, and the test found nothing that it could examine."
)
"""What a failure means whose output is malformed."""


class Malformed(ValidityError):
    """An output that is no score at all, with its witness."""

    def __init__(self, message: str, witness: Witness) -> None:
        super().__init__(message)
        self.witness = witness


@dataclass
class Runner:
    """One scorer under test."""

    scorer: Scorer
    runs: int = field(default=0, init=False)

    def nats(self, tokens: Int64[np.ndarray, " targets_plus_1"], meta: Meta) -> Float64[np.ndarray, " targets"]:
        """Nats of every target, on a copy of the tokens.

        Raises:
            Malformed: wrong length, not a number, or negative. Infinite is allowed: it is what probability zero costs.
        """
        self.runs += 1
        found = np.asarray(self.scorer.score(tokens.copy(), meta), dtype=np.float64)
        targets = len(tokens) - 1
        case = {"compare": "nats", "first": Case(tokens, meta).to_dict()}
        if found.shape != (targets,):
            text = f"{targets} targets got nats of shape {found.shape}"
            raise Malformed(text, Witness(-1, case, float(targets), float(found.size), "number of nats returned"))
        bad = np.flatnonzero(~(found >= -NEGATIVE_ROUNDING))
        if len(bad):
            entry, value = int(bad[0]), float(found[bad[0]])
            text = f"target {entry + 1} costs {value} nats, which no probability does"
            raise Malformed(text, Witness(entry, case, 0.0, value, "nats of the target, which must be at least 0"))
        return found

    def is_given(self, stream: AuditStream, entry: int) -> bool:
        """Whether the target is a declared document start that costs nothing: side information, not a prediction."""
        if "documents" not in self.scorer.declares or entry + 1 not in stream.document_starts:
            return False
        return bool(self.nats(stream.tokens, stream.meta())[entry] <= FREE_NATS)

    def distributions(
        self, tokens: Int64[np.ndarray, " targets_plus_1"], meta: Meta, entries: Int64[np.ndarray, " probes"]
    ) -> Float64[np.ndarray, "probes vocab"]:
        """Whole distributions at ``entries``; the scorer must be ``Distributional``.

        Raises:
            Malformed: wrong shape, or not numbers.
        """
        assert isinstance(self.scorer, Distributional)
        self.runs += 1
        found = np.asarray(self.scorer.distributions(tokens.copy(), meta, entries), dtype=np.float64)
        case = {"compare": "nats", "first": Case(tokens, meta).to_dict()}
        wanted = (len(entries), self.scorer.vocab_size)
        if found.shape != wanted or np.isnan(found).any():
            text = f"distributions have shape {found.shape} instead of {wanted}, or hold values that are not numbers"
            raise Malformed(text, Witness(int(entries[0]), case, float(np.prod(wanted)), float(found.size), text))
        return found


@dataclass(frozen=True)
class Outcome:
    """What a test measured, before its name and its costs are put on it."""

    verdict: Verdict
    statistic: float
    tolerance: float
    reason: str
    witness: Witness | None = None
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Sheet:
    """What stays the same about a test, whatever it is run on."""

    test: str
    name: str
    conditions: tuple[Condition, ...]
    measures: str
    blind_to: str
    failure: str
    """What a failure means, in at most two plain sentences."""

    def finding(self, outcome: Outcome, runs: int = 0, seconds: float = 0.0) -> Finding:
        """The outcome as a finding of this test."""
        return Finding(
            test=self.test,
            name=self.name,
            verdict=outcome.verdict,
            conditions=self.conditions,
            statistic=outcome.statistic,
            tolerance=outcome.tolerance,
            measures=self.measures,
            blind_to=self.blind_to,
            reason=outcome.reason,
            meaning=self.failure,
            witness=outcome.witness,
            runs=runs,
            seconds=seconds,
            details=outcome.details,
        )

    def not_applicable(self, reason: str) -> Finding:
        """The finding that this test has nothing to examine here."""
        return self.finding(Outcome("not applicable", 0.0, 0.0, reason))

    def undecided(self, reason: str) -> Finding:
        """The finding that the test was not run, or not far enough."""
        return self.finding(Outcome("undecided", 0.0, 0.0, reason))


def audit_test(sheet: Sheet) -> Callable[[Callable[..., Outcome]], Callable[..., Finding]]:
    """Turn ``f(runner, ...) -> Outcome`` into ``f(scorer, ...) -> Finding``: counts, times, and judges malformed output."""

    def wrap(function: Callable[..., Outcome]) -> Callable[..., Finding]:
        @functools.wraps(function)
        def run(scorer: Scorer, *arguments: Any, **options: Any) -> Finding:
            began, runner, told = time.perf_counter(), Runner(scorer), sheet
            try:
                outcome = function(runner, *arguments, **options)
            except Malformed as error:
                outcome = Outcome("fail", error.witness.found, error.witness.expected, f"no score: {error}", error.witness)
                told = replace(sheet, failure=NO_SCORE)
            return told.finding(outcome, runner.runs, time.perf_counter() - began)

        return run

    return wrap

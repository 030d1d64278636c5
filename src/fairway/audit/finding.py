"""The outcome of one test of the audit, with the evidence that lets anyone repeat it."""

from dataclasses import dataclass, field
from typing import Any, Literal

Verdict = Literal["pass", "fail", "not applicable", "undecided"]

Condition = Literal["causal", "normalised", "score before update", "single pass", "bytes", "budget", "claim"]
"""What a result must fulfil: the four conditions of docs/validity.md, honest bytes, the caps, and the statistics."""


@dataclass(frozen=True)
class Witness:
    """The smallest example of a breach: replay it and see the two numbers differ."""

    position: int
    """Entry of the target concerned; -1 where the breach is not at one target."""
    tokens: dict[str, Any]
    """What to feed: named token lists or substitutions."""
    expected: float
    found: float
    how: str
    """One sentence: what was done, and which two numbers are compared."""


@dataclass(frozen=True)
class Finding:
    """What one test says about one scorer."""

    test: str
    """Letter of the test."""
    name: str
    """Its name in words."""
    verdict: Verdict
    conditions: tuple[Condition, ...]
    """Conditions that a failure breaks."""
    statistic: float
    """The measured quantity; what it is stands in ``measures``."""
    tolerance: float
    """Largest accepted value of the statistic."""
    measures: str
    """What the statistic is, with its unit."""
    blind_to: str
    """What this test cannot see."""
    reason: str
    """One sentence for people: why this verdict."""
    meaning: str
    """What a failure of the test means, in one or two sentences for people who do not know the test."""
    witness: Witness | None = None
    runs: int = 0
    """Number of times the scorer was run."""
    seconds: float = 0.0
    details: dict[str, Any] = field(default_factory=dict)
    """Further numbers, for audit.json."""

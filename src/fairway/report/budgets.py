"""Budgets of a run: what was allowed, what was used, and the verdict. Bytes decide; times are reported beside them."""

import re
from dataclasses import dataclass

from fairway.report.load import PASS_NAMES
from fairway.report.look import duration, thousands
from fairway.report.records import Phase, RunData

EVALUATION_SECONDS = 600.0
"""Evaluation time that the challenge allows on its own hardware (rules.md); shown as a reference, no recipe sets it."""
EVALUATION_PHASES = frozenset({"load", "hints", "score", "adapt", *PASS_NAMES})
"""First words of the clock's phases that belong to scoring; every other counted phase is charged to training."""


@dataclass(frozen=True)
class Budget:
    """One limit and its use."""

    name: str
    used: float | int
    limit: float | int
    unit: str
    """``bytes``, ``seconds``, ``steps`` or ``tokens``."""
    binding: bool
    """Whether the recipe sets the limit; otherwise it is a reference."""
    slack: float | int = 0.0
    """Excess that is no breach: training ends with the first step that passes its limit."""
    detail: str = ""

    @property
    def share(self) -> float:
        """``used / limit``."""
        return self.used / self.limit

    @property
    def over(self) -> bool:
        """Whether a binding limit is exceeded by more than the slack."""
        return self.binding and self.used > self.limit + self.slack

    def amount(self, value: float | int) -> str:
        """``value`` with its unit."""
        return duration(value) if self.unit == "seconds" else f"{thousands(value)} {self.unit}"

    @property
    def headline(self) -> str:
        """Name, verdict and use in a few words."""
        over = f"over budget by {self.amount(self.used - self.limit)}" if self.over else "within budget"
        used = self.amount(self.used).removesuffix(f" {self.unit}").removesuffix(" s")
        return f"{self.name} {over}: {used} of {self.amount(self.limit)}"

    @property
    def verdict(self) -> str:
        """How far the use is from the limit, in words."""
        if not self.binding:
            return f"{self.share:.1%} of a reference that no setting of this run enforces"
        if self.over:
            return f"over by {self.amount(self.used - self.limit)}"
        return f"within, {self.amount(self.limit - self.used)} to spare" if self.used <= self.limit else "within, to the step"


def is_evaluation(phase: Phase) -> bool:
    """Whether a phase of the clock belongs to scoring rather than to training."""
    return re.split(r"[^a-z0-9]+", phase.name.lower())[0] in EVALUATION_PHASES


def budgets(data: RunData) -> tuple[Budget, ...]:
    """The budgets that the run folder can answer for: bytes, training, evaluation."""
    found = []
    if data.score is not None:
        score = data.score
        detail = f"artifact {thousands(score.artifact_bytes)} + code {thousands(score.code_bytes)}"
        found.append(Budget("Size", score.total_bytes, score.byte_cap, "bytes", True, detail=detail))
    training = _training(data)
    if training is not None:
        found.append(training)
    if data.score is not None:
        last = data.score.passes[-1]
        detail = f"the {last.name} pass; the reference is the challenge's limit on its own hardware"
        found.append(Budget("Evaluation", last.seconds, EVALUATION_SECONDS, "seconds", False, detail=detail))
    return tuple(found)


def training_seconds(data: RunData) -> float | None:
    """Seconds charged to training: counted phases before scoring, or the last time that the training log names."""
    charged = [phase.seconds for phase in data.clock if phase.counted and not is_evaluation(phase)]
    if charged:
        return sum(charged)
    if data.metrics is not None and data.metrics.stop is not None:
        return data.metrics.stop.seconds
    if data.metrics is not None and len(data.metrics.train):
        return float(data.metrics.train.seconds[-1])
    return None


def _training(data: RunData) -> Budget | None:
    limit, unit = data.recipe.train.budget, data.recipe.train.budget_unit
    curve = data.metrics.train if data.metrics is not None else None
    if unit == "seconds":
        used = training_seconds(data)
        if used is None:
            return None
        step = float(curve.seconds[-1] / max(1, curve.step[-1])) if curve is not None and len(curve) else 0.0
        counted = [phase.name for phase in data.clock if phase.counted and not is_evaluation(phase)]
        # Steps grow longer where depth recurrence begins; twice the mean step covers the last one.
        return Budget("Training", used, limit, unit, True, slack=2 * step, detail=" + ".join(counted))
    if curve is None or not len(curve):
        return None
    steps, tokens = int(curve.step[-1]), int(curve.tokens[-1])
    stop = data.metrics.stop if data.metrics is not None else None
    if stop is not None and stop.step > steps:
        tokens, steps = tokens + (stop.step - steps) * data.recipe.train.batch_tokens, stop.step
    if unit == "steps":
        return Budget("Training", steps, limit, unit, True)
    return Budget("Training", tokens, limit, unit, True, slack=data.recipe.train.batch_tokens)

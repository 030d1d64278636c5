"""Statistics of a claim: is the mean of a few runs lower than that of others, by a margin, beyond their spread?

All tests are one-sided and ask whether the *new* runs are better, so a positive gap is an improvement. Deviations are sample
deviations (ddof 1): the population deviation (ddof 0) is too small by ``sqrt((n - 1) / n)``, 18 % for three seeds, and has
nearly halved published p-values.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from fairway.base.errors import DataError, MachineError
from fairway.record.units import Margin, TextSize, Unit, convert, require_same_text

NO_MARGIN = Margin(0.0, Unit.BPB)
MOST_SEEDS = 1_000_000


@dataclass(frozen=True)
class Summary:
    """Mean and spread of runs that differ in their seed alone."""

    mean: float
    deviation: float | None
    """Sample deviation with ddof 1; None for a single run."""
    count: int
    unit: Unit
    text: TextSize | None = None
    """The text that every run scored; None where unknown."""

    def __post_init__(self) -> None:
        if self.count < 1 or not math.isfinite(self.mean):
            raise DataError(f"{self.count} runs with mean {self.mean} are no sample; give at least one finite value")
        if (self.deviation is None) != (self.count == 1):
            raise DataError(f"{self.count} runs with deviation {self.deviation}: only one run has none; give the values")
        if self.deviation is not None and not (math.isfinite(self.deviation) and self.deviation >= 0):
            raise DataError(f"the deviation {self.deviation} is not a number of at least 0; recompute it from the values")

    @classmethod
    def of(cls, values: Sequence[float], unit: Unit, text: TextSize | None = None) -> "Summary":
        """Mean ``m = sum(x) / n`` and deviation ``sqrt(sum((x - m)**2) / (n - 1))`` of ``values``."""
        if not values:
            raise DataError("a mean of no values does not exist; give at least one run")
        deviation = statistics.stdev(values) if len(values) > 1 else None
        return cls(statistics.fmean(values), deviation, len(values), unit, text)

    @property
    def variance_of_mean(self) -> float:
        """``deviation**2 / count``; NaN for a single run."""
        return math.nan if self.deviation is None else self.deviation**2 / self.count

    def in_unit(self, unit: Unit) -> "Summary":
        """The same runs in another unit."""
        mean = convert(self.mean, self.unit, unit, self.text)
        deviation = None if self.deviation is None else convert(self.deviation, self.unit, unit, self.text)
        return replace(self, mean=mean, deviation=deviation, unit=unit)


@dataclass(frozen=True)
class Significance:
    """Outcome of a one-sided test of "the new runs are better by more than the margin"."""

    gap: float
    """Reference mean minus new mean, in ``unit``; positive when the new runs are better."""
    margin: float
    """In ``unit``."""
    unit: Unit
    t: float
    degrees: float
    """Degrees of freedom."""
    p: float
    """Chance of a ``t`` at least this large if the true gap were exactly the margin."""
    error: float
    """Standard error of the gap, in ``unit``."""

    def least(self, level: float) -> float:
        """Lower bound of the true gap at one-sided confidence ``1 - level``: ``gap - t_level * error``.

        It is above the margin exactly where ``p < level``.
        """
        return self.gap - critical_value(level, self.degrees) * self.error


def one_sample_test(new: Summary, reference: float, margin: Margin = NO_MARGIN) -> Significance:
    """Test the new runs against a number taken as exact: ``t = (reference - margin - m) / (s / sqrt(n))``, ``n - 1`` degrees.

    It answers whether the new method's mean lies below that number, which is not whether it beats the method that the number
    came from: a number from runs has a spread of its own, and ``welch_test`` accounts for it.

    Args:
        new: At least two runs.
        reference: In the unit of ``new``, of the same text.
        margin: Needed improvement.

    Raises:
        DataError: a single run, or runs without any spread.
        MachineError: scipy is missing.
    """
    delta = margin.in_unit(new.unit, new.text, new.text)
    gap = reference - new.mean
    error = _standard_error(new)
    t = (gap - delta) / error
    return Significance(gap, delta, new.unit, t, new.count - 1.0, upper_tail(t, new.count - 1.0), error)


def welch_test(new: Summary, reference: Summary, margin: Margin = NO_MARGIN) -> Significance:
    """Welch's one-sided test for two samples of unequal variance.

    With ``a = s1**2 / n1`` of the new runs and ``b = s2**2 / n2`` of the reference::

        t = (m2 - m1 - margin) / sqrt(a + b)      degrees = (a + b)**2 / (a**2 / (n1 - 1) + b**2 / (n2 - 1))

    Args:
        new: At least two runs.
        reference: At least two runs, in the same unit.
        margin: Needed improvement, in any unit that the two sides can share.

    Raises:
        DataError: different units, nats per token of different texts, a single run on one side, or no spread on either.
        MachineError: scipy is missing.
    """
    if new.unit is not reference.unit:
        raise DataError(f"{new.unit.label} and {reference.unit.label} cannot be compared; convert one with in_unit")
    if new.unit is Unit.NATS_PER_TOKEN:
        require_same_text(new.text, reference.text, "a comparison in nats per token")
    delta = margin.in_unit(new.unit, new.text, reference.text)
    gap = reference.mean - new.mean
    error = _standard_error(new, reference)
    # The ratios a / (a + b) and b / (a + b) stay finite where the squares of tiny variances would vanish.
    shares = [(summary.variance_of_mean / error / error, summary.count - 1) for summary in (new, reference)]
    degrees = 1.0 / sum(share * share / free for share, free in shares)
    t = (gap - delta) / error
    return Significance(gap, delta, new.unit, t, degrees, upper_tail(t, degrees), error)


def _standard_error(*samples: Summary) -> float:
    """Standard error of a difference of means."""
    single = [sample for sample in samples if sample.deviation is None]
    if single:
        raise DataError("a single run has no spread, so no test exists; run at least one more seed, better two")
    error = math.hypot(*(math.sqrt(sample.variance_of_mean) for sample in samples))
    if error == 0:
        raise DataError("on both sides all runs gave the same value, so no spread is known; check that their seeds differ")
    return error


def upper_tail(t: float, degrees: float) -> float:
    """``P(T >= t)`` of Student's distribution: ``I_x(degrees / 2, 1 / 2) / 2`` with ``x = degrees / (degrees + t**2)``."""
    return float(_special().stdtr(degrees, -t))


def critical_value(level: float, degrees: float) -> float:
    """The ``t`` whose upper tail is ``level``."""
    return -float(_special().stdtrit(degrees, level))


def gap_needed(deviation: float, seeds: int, margin: float = 0.0, level: float = 0.01) -> float:
    """Smallest gap of means that shows an improvement above ``margin`` at ``level`` with ``seeds`` runs on each side.

    ``margin + t_level(2 n - 2) * deviation * sqrt(2 / n)``: both sides with the same deviation. All in one unit.
    """
    if seeds < 2:
        raise DataError(f"{seeds} seed on each side has no spread; at least 2 are needed")
    return margin + critical_value(level, 2.0 * seeds - 2.0) * deviation * math.sqrt(2.0 / seeds)


def seeds_needed(gap: float, deviation: float, margin: float = 0.0, level: float = 0.01) -> int | None:
    """Fewest runs on each side with which ``gap`` would show an improvement above ``margin`` at ``level``.

    None where no number would do: the gap is not above the margin, or a million seeds would not suffice.
    """
    if gap <= margin or gap_needed(deviation, MOST_SEEDS, margin, level) > gap:
        return None
    too_few, enough = 1, MOST_SEEDS
    while enough - too_few > 1:
        middle = (too_few + enough) // 2
        if gap_needed(deviation, middle, margin, level) <= gap:
            enough = middle
        else:
            too_few = middle
    return enough


def _special() -> Any:
    try:
        from scipy import special
    except ImportError:
        raise MachineError("p-values need scipy, which is missing; install it with: pip install 'fairway[audit]'") from None
    return special

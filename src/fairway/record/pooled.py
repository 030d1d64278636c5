"""Noise of an ablation: one deviation for all groups of runs, and the intervals that follow from it.

Every group is run with the same seeds, and a seed moves all groups in part alike (the initial weights are drawn from it). What
separates two groups at equal seeds is only the rest of its effect, so that is what the deviation here measures. Three seeds
tell little about it for one pair of groups; pooled over nine groups it has 16 degrees of freedom instead of 2.
"""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fairway.record.statistics import critical_value

LEVEL = 0.95
"""Share of intervals that hold the true difference, if their assumptions are true."""


@dataclass(frozen=True)
class Spread:
    """A deviation over seeds, and how well it is known."""

    deviation: float
    degrees: int


@dataclass(frozen=True)
class Interval:
    """Bounds of a difference at ``LEVEL``."""

    low: float
    high: float

    @property
    def half(self) -> float:
        """Half of its width."""
        return (self.high - self.low) / 2

    @property
    def verdict(self) -> str:
        """What the interval says about a gain: ``better``, ``worse`` or ``within noise``; ``unchanged`` for exactly zero."""
        if self.low == self.high == 0:
            return "unchanged"
        return "better" if self.low > 0 else "worse" if self.high < 0 else "within noise"


def pooled_spread(families: Iterable[Sequence[Mapping[int, float]]]) -> Spread | None:
    """What is left of the spread once every group's mean and every seed's mean are taken out: two-way analysis of variance.

    With ``x_gk`` the value of group ``g`` at seed ``k``, ``G`` groups and ``K`` seeds (randomised blocks; seeds are blocks)::

        s**2 = sum((x_gk - mean_g - mean_k + mean)**2) / degrees        degrees = (G - 1) (K - 1)

    Groups that score the same trained weights in different ways are not independent draws, so they form a family, which
    counts as one group: the mean of those of its groups that have most seeds. Families with a single seed are left out, then
    seeds that a family lacks.

    Args:
        families: For each family, its groups, each with its value by seed.

    Returns:
        None where fewer than two families have two seeds in common, or nothing is left of the spread.
    """
    blocks = [blocked for family in families if len(blocked := _one_group(family)) > 1]
    seeds = sorted(set.intersection(*map(set, blocks))) if blocks else []
    if len(blocks) < 2 or len(seeds) < 2:
        return None
    values = np.array([[block[seed] for seed in seeds] for block in blocks], dtype=np.float64)
    rest = values - values.mean(axis=1, keepdims=True) - values.mean(axis=0, keepdims=True) + values.mean()
    degrees = (len(blocks) - 1) * (len(seeds) - 1)
    deviation = math.sqrt(float(np.square(rest).sum()) / degrees)
    return Spread(deviation, degrees) if deviation > 0 else None


def _one_group(family: Sequence[Mapping[int, float]]) -> dict[int, float]:
    """Mean at every seed over the groups of a family that have most seeds."""
    most = max(len(group) for group in family)
    whole = [group for group in family if len(group) == most]
    return {seed: statistics.fmean(group[seed] for group in whole) for seed in set.intersection(*map(set, whole))}


def student_interval(value: float, error: float, degrees: float) -> Interval:
    """``value -+ t error``, with ``t`` the two-sided critical value of Student's distribution at ``LEVEL``.

    Raises:
        MachineError: scipy is missing.
    """
    half = critical_value((1 - LEVEL) / 2, degrees) * error
    return Interval(value - half, value + half)


def difference_interval(gain: float, spread: Spread, count: int) -> Interval:
    """Interval of a difference of two groups' means over ``count`` equal seeds: standard error ``s sqrt(2 / count)``."""
    return student_interval(gain, spread.deviation * math.sqrt(2 / count), float(spread.degrees))

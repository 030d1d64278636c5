"""Fill a size: find the one factor on all steps that makes the packed network as large as it may be."""

from collections.abc import Callable
from typing import TypeVar

import numpy as np

from fairway.base.errors import BudgetError
from fairway.base.log import logger

State = TypeVar("State")

TOLERANCE = 0.001
"""Largest share of the target that may stay empty."""

ATTEMPTS = 8
"""Quantizations at most; 3 or 4 are usual."""

OCTAVES = 8.0
"""Largest logarithm of the factor, and of its inverse."""

BITS_PER_CODE = 3.5
"""Guess for the first move: the size falls by one bit per code with each octave of the step."""

CURVE_POINTS = 3
"""Sizes that the curve for the next move goes through."""


def fit_bytes(quantize: Callable[[float], State], size: Callable[[State], int], target: int) -> State:
    """The result of ``quantize`` whose size is closest below ``target``, within 0.1 % where the steps allow it.

    The size falls with the factor, at high rate by one bit per code for each octave. So the logarithm of the factor is found by
    inverse quadratic interpolation, inside an interval whose ends are known to be too large and too small.

    Args:
        quantize: From the factor on all steps to the quantized network.
        size: Its bytes in the artifact.
        target: Bytes that may be used.

    Raises:
        BudgetError: even steps 256 times as large do not fit.
    """
    best: tuple[int, State] | None = None
    low, high = -OCTAVES, OCTAVES
    known: list[tuple[float, int]] = []
    octaves = 0.0
    for _ in range(ATTEMPTS):
        state = quantize(2.0**octaves)
        found = size(state)
        logger.info(f"quant factor={2.0**octaves:.5f} bytes={found} target={target}")
        known.append((octaves, found))
        if found <= target:
            high = min(high, octaves)
            if best is None or found > best[0]:
                best = found, state
            if found >= target * (1 - TOLERANCE):
                break
        else:
            low = max(low, octaves)
        if high - low < 1e-6:
            break
        octaves = _next(known, target, low, high)
    if best is None:
        least = min(found for _, found in known)
        raise BudgetError(
            f"the artifact takes {least:,} bytes with steps {2.0 ** max(x for x, _ in known):.3g} times as large, "
            f"{least - target:,} above the target of {target:,}; raise quant.target_bytes or make the model smaller"
        )
    if best[0] < target * (1 - TOLERANCE):
        logger.warning(f"quant bytes={best[0]} stay {target - best[0]} below the target: no factor on the steps comes closer")
    return best[1]


def _next(known: list[tuple[float, int]], target: int, low: float, high: float) -> float:
    """Next logarithm of the factor: on the curve through the sizes nearest to the target, aimed a little below it."""
    aim = target * (1 - TOLERANCE / 2)
    points = {size / aim - 1: octaves for octaves, size in known}
    nearest = sorted(points, key=abs)[:CURVE_POINTS]
    if len(nearest) == 1:
        octaves = known[-1][0] + BITS_PER_CODE * nearest[0] / (1 + nearest[0])
    else:
        # The logarithm as a polynomial in the size, at the size that is wanted.
        octaves = float(np.polyfit(nearest, [points[size] for size in nearest], len(nearest) - 1)[-1])
    return octaves if low < octaves < high else (low + high) / 2

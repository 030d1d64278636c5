"""Row scales on a logarithmic grid: the float16 nearest to ``2**(k / n)``, found with integers alone.

With ``k = e n + f`` the mantissa of 11 binary digits is the largest integer m with ``(2 m - 1)**n <= 2**f * 2048**n``, so that
no machine's power function can round it otherwise.
"""

from functools import cache

import numpy as np
from jaxtyping import Float16, Int16

from fairway.base.errors import ArtifactError

MAX_STEPS = 256
"""Finest grid, in steps per octave: neighbours still differ by two float16."""
LOWEST_OCTAVE, OCTAVES = -14, 30
"""The normal float16 numbers: from 2**-14 up to the last grid point below 65520."""


@cache
def grid_scales(steps: int) -> Float16[np.ndarray, "points"]:
    """Scales of the grid in rising order; the first one belongs to ``k = -14 * steps``.

    Args:
        steps: ``n``, grid points per octave, 1 to 256.
    """
    mantissas = np.array([_mantissa(step, steps) for step in range(steps)])
    # A mantissa of 2048 carries into the exponent, as the addition of bits does by itself.
    bits = (np.arange(1, OCTAVES + 1)[:, None] << 10) + (mantissas - 1024)[None]
    bits = bits.ravel()
    return bits[bits < 0x7C00].astype(np.uint16).view(np.float16)


def _mantissa(step: int, steps: int) -> int:
    limit = (1 << step) * 2048**steps
    low, high = 1024, 2048
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if (2 * middle - 1) ** steps <= limit else (low, middle - 1)
    return low


def exponents_of(scales: Float16[np.ndarray, "rows"], steps: int) -> Int16[np.ndarray, "rows"]:
    """The ``k`` of every scale.

    Raises:
        ArtifactError: a scale that is no point of the grid.
    """
    points = grid_scales(steps)
    places = np.minimum(np.searchsorted(points, scales), len(points) - 1)
    wrong = np.flatnonzero(points[places] != scales)
    if wrong.size:
        row = int(wrong[0])
        raise ArtifactError(
            f"scale {float(scales[row])} of row {row} is not the float16 nearest to 2**(k/{steps}); "
            "snap the scales to the grid before quantizing"
        )
    return (places + LOWEST_OCTAVE * steps).astype(np.int16)


def scales_of(exponents: Int16[np.ndarray, "rows"], steps: int) -> Float16[np.ndarray, "rows"]:
    """Inverse of ``exponents_of`` for exponents of the grid."""
    return grid_scales(steps)[exponents.astype(np.int64) - LOWEST_OCTAVE * steps]


def exponent_range(steps: int) -> tuple[int, int]:
    """Smallest and largest ``k`` of the grid."""
    return LOWEST_OCTAVE * steps, LOWEST_OCTAVE * steps + len(grid_scales(steps)) - 1

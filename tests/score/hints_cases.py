"""Settings of the published tilts and stored hints, for the tests of the n-gram scan."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fairway.config import TiltConfig
from fairway.kernels.native import COMPILERS
from fairway.recipes.tilts import PR1557
from fairway.score.hints_flags import TokenFlags

STORED = Path(__file__).parents[1] / "golden" / "tilt"
WHOLE = Path(__file__).parents[3] / "shared" / "golden" / "tilt"

HAS_COMPILER = any(shutil.which(name) for name in COMPILERS)
needs_compiler = pytest.mark.skipif(not HAS_COMPILER, reason="no C compiler: the plain scan would be compared with itself")

EXACT = TiltConfig()
PR1557_ALONE = replace(PR1557, agreement=0.0)
PR1420 = TiltConfig(
    counting="pr1557",
    contexts=tuple(range(8, 17)),
    thresholds=tuple(0.75 * threshold for threshold in (0.7, 0.7, 0.7, 0.6, 0.6, 0.6, 0.5, 0.5, 0.5)),
    minimum_counts=(3, 3, 3, 2, 2, 2, 2, 2, 2),
    strength=1.5,
    confidence_scaled=True,
)


def stored(name: str) -> dict[str, np.ndarray]:
    with np.load(STORED / f"{name}.npz") as file:
        return dict(file)


def whole(name: str) -> dict[str, np.ndarray]:
    if not WHOLE.is_dir():
        pytest.skip("the whole golden streams lie outside the repository; their first tenth is tested from tests/golden/tilt")
    with np.load(WHOLE / f"{name}.npz") as file:
        return dict(file)


def flags_of(arrays: dict[str, np.ndarray], boundary: str = "boundary_1557") -> TokenFlags:
    return TokenFlags(arrays["has_leading_space"].astype(bool), arrays[boundary].astype(bool))

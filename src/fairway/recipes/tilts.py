"""The n-gram tilts of the published systems."""

from fairway.config import TiltConfig

PR2140 = TiltConfig(counting="pr2140", contexts=(15,), thresholds=(0.8,), minimum_counts=(1,), strength=2.625)
"""Token-only tilt of PR #2140, in its corrected form."""

PR1557 = TiltConfig(
    counting="pr1557",
    contexts=(8, 10, 12, 14, 16),
    thresholds=(0.7, 0.7, 0.6, 0.5, 0.5),
    minimum_counts=(3, 3, 2, 2, 2),
    strength=2.0,
    confidence_scaled=True,
    agreement=0.1,
)
"""Tilt of PR #1557: word experts add to the strength where they agree, and propose nothing of their own."""

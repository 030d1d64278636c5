"""How long CPU threads spin for each other before they sleep."""

import os

SPINS = "10000"
"""Turns of the waiting loop, some tens of microseconds; GNU OpenMP's own choice is 300,000, a few milliseconds."""


def wait_briefly() -> None:
    """Let OpenMP threads spin only briefly while they wait, unless the user has chosen; call before torch is imported.

    By default they spin for milliseconds at every parallel region. That is best on an idle machine, but when another
    process holds a core, each region spins until the scheduler lets the late thread run. LOG.md has the figures: on two
    cores with one busy neighbour, training was about six times slower than with brief spinning, which costs some 15 % on
    an idle machine.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)

"""Runs that a record can be made of; do not write into them."""

from pathlib import Path

import pytest

from record.finished_runs import SEEDS, make_finished_run


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three seeds of one recipe, of which the first is proved, and three of another that costs 0.03 bits per byte more."""
    folder = tmp_path_factory.mktemp("finished")
    for seed in SEEDS:
        make_finished_run(folder / f"new-{seed}", seed=seed, changes={"optim.ema_decay": 0.9}, proved=seed == 1)
        make_finished_run(folder / f"old-{seed}", seed=seed, shift=0.03)
    return folder

"""A finished run that tests of the commands look at."""

from pathlib import Path

import pytest
from commands import command, flags

from fairway.config import Recipe


@pytest.fixture(scope="session")
def done(quick: Recipe, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    out = tmp_path_factory.mktemp("runs") / "done"
    code, text, error = command("run", "tiny", "--data", corpus, "--out", out, *flags(quick))
    assert code == 0, error
    assert "adapted" in text
    return out

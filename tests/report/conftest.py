import shutil

import pytest

from fairway.report import write_report
from report.fake_run import make_run


@pytest.fixture(scope="session")
def full_source(tmp_path_factory):
    """A complete run folder with its report; do not write into it."""
    run = make_run(tmp_path_factory.mktemp("report") / "full")
    write_report(run)
    return run


@pytest.fixture
def full_run(full_source, tmp_path):
    """A copy of the complete run folder that a test may damage."""
    return shutil.copytree(full_source, tmp_path / "run")

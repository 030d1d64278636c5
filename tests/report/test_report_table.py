import subprocess
import sys

import pytest

from fairway.base.errors import DataError
from fairway.report import final_table, load_run
from report.fake_run import make_run


def test_one_row_per_stage_and_pass(full_source):
    data = load_run(full_source)
    lines = final_table(full_source).splitlines()
    assert [line.split()[0] for line in lines[2:9]] == ["train", "pack", "code", "float", "plain", "sliding", "adapted"]
    for line, item in zip(lines[5:9], data.score.passes, strict=True):
        assert f"{item.bits_per_byte:.5f} bits per byte" in line
        assert f"{item.seconds:,.1f}" in line
        assert f"{item.bytes:,}" in line
    assert lines[2].endswith("; 3.0 GiB at most")
    assert f"{data.score.artifact_bytes:,}" in lines[3]
    assert lines[-2].endswith("503,442 of 1,000,000 bytes: fits with 496,558 to spare")
    assert lines[-1].startswith("proof: 4,096 targets (adapted, 9,770 bytes of text, revealed in 4 blocks) came back exactly")
    assert all(line.isascii() and line == line.rstrip() for line in lines)


def test_over_budget_says_by_how_much(tmp_path):
    run = make_run(tmp_path / "run", byte_cap=500_000, steps=40, targets=2048)
    excess = load_run(run).score.total_bytes - 500_000
    assert excess > 0
    assert f"OVER the budget by {excess:,}" in final_table(run)


def test_before_the_score(tmp_path):
    run = make_run(tmp_path / "run", files=("metrics.jsonl",), steps=40)
    table = final_table(run)
    assert "40 steps" in table
    assert table.endswith("no score yet; run: fairway score RUN\n")


def test_no_run_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"recipe\.json"):
        final_table(tmp_path)


def test_the_table_needs_no_plotting_library_and_no_torch(full_source):
    program = (
        "import sys; sys.modules.update(matplotlib=None, jinja2=None)\n"
        "from pathlib import Path\nfrom fairway.report import final_table\n"
        f"assert 'bits per byte' in final_table(Path({str(full_source)!r}))\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True)

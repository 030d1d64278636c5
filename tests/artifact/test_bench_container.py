"""The comparison with other containers runs: its small mode, with the pipelines that need no other program."""

import json
import subprocess
import sys
from pathlib import Path


def test_the_small_comparison_runs_and_we_are_the_smallest():
    script = Path(__file__).parents[2] / "benchmarks" / "bench_container.py"
    command = [sys.executable, str(script), "--small", "--json", "--only", "pr1413", "lzma", "zstd"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    result = json.loads(run.stdout)
    own = result["pipelines"].pop("fairway")
    assert set(result["pipelines"]) == {"pr1413", "lzma", "zstd"}
    assert all(own["bytes"] < 0.97 * row["bytes"] for row in result["pipelines"].values())
    assert own["above_ideal"] < 0.003
    assert result["weights"] > 500_000

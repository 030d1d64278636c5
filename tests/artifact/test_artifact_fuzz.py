"""Twenty thousand damaged files: no crash, no hang, no excess memory, no silently wrong tensor."""

import json
import subprocess
import sys
from pathlib import Path

KINDS = {"blind", "splice", "prefix", "payload", "manifest", "document", "stream"}


def test_damaged_files_are_refused_or_decode_to_the_truth():
    # A process of its own: the type checks of the test run would cost five times the decoding.
    script = Path(__file__).with_name("artifact_fuzz.py")
    run = subprocess.run([sys.executable, "-W", "error", script, "20000", "20261"], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    result = json.loads(run.stdout)
    outcomes = result["outcomes"]
    assert sum(outcomes.values()) == 20_000
    assert not [name for name in outcomes if name.endswith(("WRONG", "UNCLEAR"))]
    assert {name.split()[0] for name in outcomes} == KINDS
    assert outcomes["stream refused"] > 1000
    assert result["slowest_seconds"] < 5.0
    assert result["grown_kib"] < 128 * 1024

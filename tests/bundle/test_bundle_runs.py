"""A bundle alone, in an empty folder, gives the package's weights, artifact and ledger bit for bit."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from bundle_cases import PACKAGE, bundle_of, environment, run_alone, same_results, small_system

from fairway.base.files import write_json
from fairway.base.values import to_dict, with_fields
from fairway.config import Recipe

SYSTEMS = ("pr1413", "pr1533", "pr1557", "pr1776", "pr2140", "frontier")


def package_run(made: Recipe, corpus: Path, folder: Path, ranks: int = 1) -> Path:
    """The same recipe by the package, in a process of its own."""
    write_json(folder / "recipe.json", to_dict(made))
    (folder / "package.py").write_text(PACKAGE)
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"] if ranks > 1 else []
    source = str(Path(__file__).parents[2] / "src")
    subprocess.run(
        [sys.executable, *launcher, folder / "package.py", folder / "recipe.json", corpus, folder / "package"],
        env={**environment(folder), "PYTHONPATH": source}, check=True, capture_output=True,
    )  # fmt: skip
    return folder / "package"


def test_a_bundle_alone_gives_the_result_of_the_package(quick, corpus, tmp_path):
    content = bundle_of(quick, tmp_path / "made").read_bytes()
    done = run_alone(content, tmp_path / "alone", "--data", str(corpus))
    assert done.returncode == 0, done.stderr
    run = tmp_path / "alone" / "run"
    same_results(run, package_run(quick, corpus, tmp_path))
    document = json.loads((run / "score.json").read_text())
    assert document["code_bytes"] == len(content)
    # Scored anew from the artifact alone: the weights before quantization are not at hand, all else is the same.
    again = run_alone(content, tmp_path / "scored", "--data", str(corpus), "--score-only", str(run / "model.fwz"))
    assert again.returncode == 0, again.stderr
    scored = json.loads((tmp_path / "scored" / "run" / "score.json").read_text())
    assert scored["nats"] == document["nats"]


@pytest.mark.long
@pytest.mark.parametrize("name", SYSTEMS)
def test_every_system_runs_alone_bit_for_bit(name, corpus, tmp_path):
    made = small_system(name, 384)
    done = run_alone(bundle_of(made, tmp_path / "made").read_bytes(), tmp_path / "alone", "--data", str(corpus))
    assert done.returncode == 0, done.stderr
    same_results(tmp_path / "alone" / "run", package_run(made, corpus, tmp_path))


@pytest.mark.long
@pytest.mark.parametrize("name", ["quick", "pr2140"])
def test_two_ranks_run_alone_bit_for_bit(name, quick, corpus, tmp_path):
    made = quick if name == "quick" else small_system(name, 384)
    done = run_alone(bundle_of(made, tmp_path / "made").read_bytes(), tmp_path / "alone", "--data", str(corpus), ranks=2)
    assert done.returncode == 0, done.stderr
    same_results(tmp_path / "alone" / "run", package_run(made, corpus, tmp_path, ranks=2))


@pytest.mark.long
def test_an_artifact_with_other_settings_is_refused(quick, corpus, tmp_path):
    run = package_run(quick, corpus, tmp_path)
    other = bundle_of(with_fields(quick, {"score.stride": 16}), tmp_path / "made").read_bytes()
    done = run_alone(other, tmp_path / "alone", "--data", str(corpus), "--score-only", str(run / "model.fwz"))
    assert done.returncode == 1
    assert not (tmp_path / "alone" / "run" / "score.json").exists()

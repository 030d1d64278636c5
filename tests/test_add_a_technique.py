"""docs/how-to/add-a-technique.md works: its blocks, applied to a copy of the package, add a topology that tests and trains."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from fairway.artifact.container import read_artifact

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "how-to" / "add-a-technique.md"
FILES = ["src/fairway/model/residual.py", "src/fairway/config/network.py", "tests/model/test_gated_stream.py"]
SETTINGS = {
    "model.vocab-size": 384,
    "model.width": 32,
    "model.mlp-hidden": 64,
    "model.rotary-channels": 4,
    "model.residual.topology": "gated_stream",
    "model.residual.parallel-from": 1,
    "train.budget": 3,
    "train.batch-tokens": 1024,
    "train.context": 32,
    "quant.calibration-batches": 8,
    "machine.threads": 1,
}


def blocks() -> list[tuple[str, str, str]]:
    """Language, file and text of every fenced block that names a file in its first line."""
    return re.findall(r"^```(diff|python)\n# (\S+)\n(.*?)^```$", PAGE.read_text(), flags=re.M | re.S)


def side(diff: str, sign: str) -> str:
    """The lines of a diff without those of the other side: ``-`` is what stands there, ``+`` what shall stand there."""
    return "".join(line[1:] for line in diff.splitlines(keepends=True) if line[0] in (" ", sign))


def apply(folder: Path, language: str, file: str, text: str) -> None:
    """Do what a block says: write a new file, or replace one passage, which must occur exactly once."""
    path = folder / file
    if language == "python":
        assert not path.exists()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return
    before, old = path.read_text(), side(text, "-")
    assert before.count(old) == 1, f"{file} has changed: the passage of the how-to occurs {before.count(old)} times"
    path.write_text(before.replace(old, side(text, "+")))


def contents(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*.py")}


def python(folder: Path, *words: object) -> str:
    """Output of a Python process that imports the copy."""
    environment = os.environ | {"PYTHONPATH": str(folder / "src"), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, cwd=folder, env=environment)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package with the technique in it, under the options of the house."""
    folder = tmp_path_factory.mktemp("technique")
    shutil.copy(ROOT / "pyproject.toml", folder)
    shutil.copytree(ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__"))
    before = contents(folder)
    for block in blocks():
        apply(folder, *block)
    after = contents(folder)
    changed = {name for name in after if after[name] != before.get(name)}
    assert changed == set(FILES)
    assert Path(python(folder, "-c", "import fairway; print(fairway.__file__)").strip()).is_relative_to(folder)
    return folder


def test_the_blocks_are_formatted_as_the_house_is(copy: Path) -> None:
    for verb in (["format", "--check"], ["check"]):
        command = [sys.executable, "-m", "ruff", *verb, "--no-cache", *FILES]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=copy)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_the_test_of_the_how_to_passes(copy: Path) -> None:
    assert "5 passed" in python(copy, "-m", "pytest", "-q", "-p", "no:cacheprovider", FILES[2])


@pytest.mark.slow
def test_the_technique_trains_and_packs(copy: Path, corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    settings = [word for name, value in SETTINGS.items() for word in (f"--{name}", value)]
    python(copy, "-m", "fairway", "train", "tiny", "--data", corpus, "--out", out, *settings)
    gate = load_file(out / "weights.safetensors")["residual.gate"]
    # Layer 0 is sequential: its row has no gradient and only decays.
    assert (gate[1:] - 0.5).abs().min() > 10 * (gate[0] - 0.5).abs(), gate
    python(copy, "-m", "fairway", "pack", out)
    stored = read_artifact(out / "model.fwz").tensors["residual.gate"]
    assert stored.values.dtype == np.float16
    np.testing.assert_array_equal(stored.values, gate.half().numpy())

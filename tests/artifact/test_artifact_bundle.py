"""The code bundle: complete, deterministic, restored byte for byte, and refused when damaged."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fairway
from fairway.artifact.bundle import bundle, package_files, run_files, unbundle, unpack_bundle, write_bundle
from fairway.base.errors import ArtifactError
from fairway.base.files import write_json
from fairway.base.runs import RunFolder
from fairway.base.values import to_dict
from fairway.stages import load_stage, pack_stage, score_packed, train_stage
from fairway.walk import open_walk

PACKAGE = Path(fairway.__file__).parent


RUN = """
import sys
from pathlib import Path
import fairway
from fairway.base.files import read_json
from fairway.base.values import from_dict
from fairway.config import Recipe
from fairway.stages import load_stage, pack_stage, score_packed, train_stage
from fairway.walk import open_walk

assert Path(fairway.__file__).is_relative_to(Path.cwd()), fairway.__file__
recipe = from_dict(Recipe, read_json(Path(sys.argv[1])))
with open_walk(recipe, data=Path(sys.argv[2]), out=Path(sys.argv[3]), resume=False) as walk:
    train_stage(walk, resume=False)
    pack_stage(walk)
    score_packed(load_stage(walk), walk, recipe.score)
"""


def test_every_source_of_a_room_that_runs_is_in_the_bundle(tmp_path):
    size = write_bundle(tmp_path / "code.bundle")
    content = (tmp_path / "code.bundle").read_bytes()
    assert len(content) == size
    files = unpack_bundle(content)
    native = {f"fairway/kernels/{path.name}" for path in (PACKAGE / "kernels").glob("*.[ch]")}
    assert native
    assert native | {"fairway/__init__.py", "fairway/stages.py", "fairway/model/gpt.py", "fairway/score/tilt.py"} <= set(files)
    assert not any("__pycache__" in name or name.endswith(".pyc") for name in files)
    assert not any(name.startswith(("fairway/audit/", "fairway/report/", "fairway/cli/")) for name in files)
    assert size < sum(map(len, files.values())) / 3


def test_what_a_run_needs_is_part_of_the_package():
    needed, everything = run_files(), package_files()
    assert needed.items() < everything.items()
    python = {f"fairway/{path.relative_to(PACKAGE).as_posix()}" for path in PACKAGE.rglob("*.py")}
    assert python <= set(everything)


def test_the_bundle_alone_gives_the_same_artifact_and_score(tmp_path, quick, corpus):
    """The code that is counted is enough: it trains, packs and scores to the same bits as the package."""
    restored = tmp_path / "restored"
    paths = unbundle(bundle(), restored)
    assert {path.relative_to(restored).as_posix(): path.read_bytes() for path in paths} == run_files()
    write_json(tmp_path / "recipe.json", to_dict(quick))
    environment = {"PYTHONPATH": ".", "PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1", "HOME": str(tmp_path)}
    subprocess.run(
        [sys.executable, "-c", RUN, tmp_path / "recipe.json", corpus, tmp_path / "alone"],
        cwd=restored, env=environment, check=True, capture_output=True,
    )  # fmt: skip
    with open_walk(quick, data=corpus, out=tmp_path / "package", resume=False) as walk:
        train_stage(walk, resume=False)
        pack_stage(walk)
        score_packed(load_stage(walk), walk, quick.score)
    alone, package = RunFolder(tmp_path / "alone"), RunFolder(tmp_path / "package")
    assert alone.artifact.read_bytes() == package.artifact.read_bytes()
    assert alone.code.read_bytes() == package.code.read_bytes()
    with np.load(alone.ledger) as ours, np.load(package.ledger) as theirs:
        assert all(np.array_equal(ours[name], theirs[name]) for name in theirs.files)


def test_clocks_and_order_leave_no_trace(tmp_path):
    files = {"p/b.py": b"b = 1\n", "p/a.py": b"a = 1\n" * 100, "p/empty.py": b""}
    first = bundle(files)
    assert bundle(dict(reversed(files.items()))) == first
    for path in unbundle(first, tmp_path):
        os.utime(path, (1, 1))
    assert bundle(package_files(tmp_path / "p")) == first
    assert unpack_bundle(first) == files


def test_both_methods_come_back():
    small, large = {"p/a.py": b"x = 1\n"}, {"p/a.py": bytes(range(256)) * 3000}
    assert {bundle(files)[9] for files in (small, large)} <= {0, 1}
    assert all(unpack_bundle(bundle(files)) == files for files in (small, large))


@pytest.mark.parametrize("name", ["/etc/x.py", "../x.py", "p/../../x.py", "p//x.py", "", "C:/x.py", "p\\x.py", "p/\n.py"])
def test_names_that_leave_the_folder_are_refused(name):
    with pytest.raises(ArtifactError, match="would leave its folder"):
        bundle({name: b""})


def test_damage_is_refused_and_nothing_written(tmp_path):
    content = bundle({"p/a.py": b"a = 1\n" * 50, "p/b.py": bytes(range(256))})
    for length in range(len(content)):
        with pytest.raises(ArtifactError):
            unbundle(content[:length], tmp_path / "out")
    for changed in (b"X" + content[1:], content[:8] + b"\x09" + content[9:], content[:10] + b"\xff" * 4 + content[14:]):
        with pytest.raises(ArtifactError):
            unbundle(changed, tmp_path / "out")
    with pytest.raises(ArtifactError):
        unpack_bundle(content + b"x")
    assert not (tmp_path / "out").exists()


def test_a_folder_without_python_is_no_package(tmp_path):
    with pytest.raises(ArtifactError, match="holds no Python file"):
        package_files(tmp_path)

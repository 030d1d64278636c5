"""The code bundle: complete, deterministic, restored byte for byte, and refused when damaged."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import fairway
from fairway.artifact.bundle import bundle, package_files, unbundle, unpack_bundle, write_bundle
from fairway.base.errors import ArtifactError

PACKAGE = Path(fairway.__file__).parent


def test_every_source_file_of_the_package_is_in_the_bundle(tmp_path):
    size = write_bundle(tmp_path / "code.bundle")
    content = (tmp_path / "code.bundle").read_bytes()
    assert len(content) == size
    files = unpack_bundle(content)
    python = {f"fairway/{path.relative_to(PACKAGE).as_posix()}" for path in PACKAGE.rglob("*.py")}
    assert python <= set(files)
    assert not any("__pycache__" in name or name.endswith(".pyc") for name in files)
    assert size < sum(map(len, files.values())) / 3


def test_the_restored_package_runs(tmp_path):
    paths = unbundle(bundle(), tmp_path)
    assert {path.relative_to(tmp_path).as_posix(): path.read_bytes() for path in paths} == package_files()
    code = "import fairway, fairway.artifact.container as c; print(fairway.__file__, len(c.encode({}, {})))"
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True, env={"PYTHONPATH": "."}
    )
    assert str(tmp_path) in run.stdout or run.stdout.startswith("./")


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

"""Output files are whole or absent."""

import errno
import json
from pathlib import Path

import pytest

from fairway.base.errors import DataError, MachineError
from fairway.base.files import atomic_path, read_json, write_json, write_text


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "out.txt"
    write_text(path, "old")

    def fail_half_way() -> None:
        with atomic_path(path) as partial:
            partial.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_half_way()
    assert path.read_text() == "old"
    assert [item.name for item in tmp_path.iterdir()] == ["out.txt"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_said_plainly(tmp_path: Path, number: int) -> None:
    path = tmp_path / "out.txt"
    with pytest.raises(MachineError, match=r"no space left.*out\.txt"), atomic_path(path):
        raise OSError(number, "No space left on device")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_made_is_said_plainly(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(MachineError, match="cannot write"):
        write_text(tmp_path / "file" / "out.txt", "x")


def test_json_round_trip_and_damage(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"é": [1, 2.5, None]})
    assert read_json(tmp_path / "a.json") == {"é": [1, 2.5, None]}
    with pytest.raises(ValueError, match="Out of range"):
        write_json(tmp_path / "a.json", float("nan"))
    assert json.loads((tmp_path / "a.json").read_text()) == {"é": [1, 2.5, None]}
    (tmp_path / "b.json").write_bytes(b"\xff{")
    with pytest.raises(DataError, match=r"b\.json is not valid JSON"):
        read_json(tmp_path / "b.json")
    with pytest.raises(DataError, match=r"c\.json does not exist"):
        read_json(tmp_path / "c.json")

"""A folder is whole or absent, whatever happens on the way, and takes the place of nothing but one of its kind."""

import os
from pathlib import Path

import pytest

from fairway.base.errors import DataError, MachineError
from fairway.record.folder import atomic_folder


def fill(path: Path, content: str, *, overwrite: bool = False) -> None:
    with atomic_folder(path, overwrite=overwrite, mark="mark") as folder:
        (folder / "mark").write_text(content)
        (folder / "other").write_text("more")


def test_a_new_folder_an_empty_one_and_one_replaced(tmp_path: Path) -> None:
    fill(tmp_path / "deep" / "new", "first")
    assert sorted(item.name for item in (tmp_path / "deep").iterdir()) == ["new"]
    assert (tmp_path / "deep" / "new" / "mark").read_text() == "first"
    (tmp_path / "empty").mkdir()
    fill(tmp_path / "empty", "second")
    with pytest.raises(DataError, match="already holds a record; use --overwrite"):
        fill(tmp_path / "empty", "third")
    (tmp_path / "empty" / "old").write_text("of the first")
    fill(tmp_path / "empty", "third", overwrite=True)
    assert sorted(item.name for item in (tmp_path / "empty").iterdir()) == ["mark", "other"]
    assert (tmp_path / "empty" / "mark").read_text() == "third"
    assert sorted(item.name for item in tmp_path.iterdir()) == ["deep", "empty"]


def test_a_failure_in_the_middle_leaves_what_was_there(tmp_path: Path) -> None:
    def fail() -> None:
        with atomic_folder(tmp_path / "out", overwrite=True, mark="mark") as folder:
            (folder / "mark").write_text("half")
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        fail()
    assert not list(tmp_path.iterdir())
    fill(tmp_path / "out", "whole")
    with pytest.raises(RuntimeError, match="power cut"):
        fail()
    assert [item.name for item in tmp_path.iterdir()] == ["out"]
    assert (tmp_path / "out" / "mark").read_text() == "whole"


def test_an_earlier_folder_comes_back_when_the_last_rename_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path / "out", "whole")
    replace = os.replace

    def refuse(source: Path, target: Path) -> None:
        if str(source).endswith(".part") and Path(target) == tmp_path / "out":
            raise OSError(30, "read-only")
        replace(source, target)

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(MachineError, match="choose another --out"):
        fill(tmp_path / "out", "new", overwrite=True)
    assert (tmp_path / "out" / "mark").read_text() == "whole"
    assert [item.name for item in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_other_folders_files_and_links_are_left_alone(tmp_path: Path, overwrite: bool) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letter").write_text("dear")
    (tmp_path / "file").write_text("text")
    fill(tmp_path / "record", "whole")
    (tmp_path / "link").symlink_to(tmp_path / "record")
    for name in ("home", "file", "link"):
        with pytest.raises(DataError, match="left alone"):
            fill(tmp_path / name, "new", overwrite=overwrite)
    assert (tmp_path / "home" / "letter").read_text() == "dear"
    assert (tmp_path / "link" / "mark").read_text() == "whole"

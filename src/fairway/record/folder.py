"""A folder that is either whole or absent, as ``base.files`` does it for one file."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from fairway.base.errors import DataError
from fairway.base.files import storage_error


@contextlib.contextmanager
def atomic_folder(path: Path, *, overwrite: bool, mark: str) -> Iterator[Path]:
    """Yield an empty folder beside ``path``; rename it to ``path`` on success, remove it on failure.

    Args:
        path: The folder to make.
        overwrite: Replace an earlier one; it disappears only when the new one is whole.
        mark: Name of a file that every such folder holds; a folder without it is never replaced.

    Raises:
        DataError: ``path`` holds something and ``overwrite`` is off, or something that is no such folder.
        MachineError: the disk is full or the folder cannot be written.
    """
    refuse_taken(path, overwrite=overwrite, mark=mark)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent))
    except OSError as error:
        raise storage_error(path, error) from error
    try:
        yield partial
        for file in partial.iterdir():
            with file.open("rb") as opened:
                os.fsync(opened.fileno())
        partial.chmod(0o755)
        _put_in_place(partial, path)
    except OSError as error:
        raise storage_error(path, error) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def refuse_taken(path: Path, *, overwrite: bool, mark: str) -> None:
    """Refuse a place that holds something else, or anything at all unless it may be replaced.

    Raises:
        DataError: see ``atomic_folder``.
    """
    if path.is_dir() and not any(path.iterdir()):
        return
    if path.is_symlink() or (path.exists() and not (path / mark).is_file()):
        raise DataError(f"{path} exists and holds no {mark}, so it is left alone; choose another --out")
    if path.exists() and not overwrite:
        raise DataError(f"{path} already holds a record; use --overwrite to replace it, or choose another --out")


def _put_in_place(partial: Path, path: Path) -> None:
    """Rename onto ``path``; an earlier folder is set aside first and comes back if the rename fails."""
    if not path.exists() or not any(path.iterdir()):
        os.replace(partial, path)
        return
    aside = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".old", dir=path.parent))
    os.replace(path, aside)
    try:
        os.replace(partial, path)
    except BaseException:
        os.replace(aside, path)
        raise
    shutil.rmtree(aside, ignore_errors=True)

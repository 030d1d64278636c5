"""One writer per folder: a lock that the system lets go of when its process ends, however it ends."""

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from fairway.base.errors import BusyError
from fairway.base.log import logger

LOCK = ".lock"
"""Name of the empty file that is locked; it stays, and means nothing by itself."""


@contextlib.contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Hold ``folder`` against other processes; it is created if missing, and removed if nothing was written to it.

    Where the file system knows no locks, one log line says so and nothing is held.

    Raises:
        BusyError: another process, or another place of this one, holds it.
    """
    fresh = [place for place in (folder, *folder.parents) if not place.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / LOCK, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                raise BusyError(
                    f"another process is writing {folder}; let it finish, stop it, or choose another folder"
                ) from None
            logger.warning("%s cannot be locked (%s): start no second process on it", folder, os.strerror(error.errno or 0))
        try:
            yield
        finally:
            # A command that was refused leaves no folder behind.
            if [path.name for path in folder.iterdir()] == [LOCK]:
                (folder / LOCK).unlink()
                with contextlib.suppress(OSError):
                    for place in fresh:
                        place.rmdir()

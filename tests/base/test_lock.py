"""One writer per folder."""

import subprocess
import sys
from pathlib import Path

import pytest

from fairway.base.errors import BusyError
from fairway.base.lock import LOCK, only_writer

HOLDER = """
import sys
from pathlib import Path
from fairway.base.lock import only_writer
with only_writer(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_another_process_is_refused_until_the_first_ends_however_it_ends(tmp_path: Path) -> None:
    out = tmp_path / "run"
    with subprocess.Popen([sys.executable, "-c", HOLDER, out], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(BusyError, match=r"another process is writing .*run; let it finish"), only_writer(out):
            pass
        assert (out / LOCK).exists()
        holder.kill()
        holder.wait()
    with only_writer(out):
        (out / "file").touch()
    assert sorted(path.name for path in out.iterdir()) == [LOCK, "file"]


def test_a_folder_without_a_file_is_not_left_behind(tmp_path: Path) -> None:
    with only_writer(tmp_path / "a" / "b"):
        assert (tmp_path / "a" / "b" / LOCK).exists()
    assert not (tmp_path / "a").exists()
    with pytest.raises(KeyError), only_writer(tmp_path / "c"):
        raise KeyError
    assert not (tmp_path / "c").exists()

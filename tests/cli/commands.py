"""Running commands of Fairway, in this process and in others."""

import contextlib
import io
import os
import subprocess
import sys

from fairway.base.values import difference
from fairway.cli import main
from fairway.config import Recipe
from fairway.recipes import recipe


def flags(changed: Recipe) -> list[str]:
    """Command-line overrides that turn ``tiny`` into ``changed``."""
    words: list[str] = []
    for _, new in difference(recipe("tiny"), changed):
        if not isinstance(new.value, tuple):
            words += [f"--{new.path.replace('_', '-')}", str(new.value)]
    return words


def command(*words: object) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command run in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([str(word) for word in words])
    return code, out.getvalue(), err.getvalue()


def process(*words: object, ranks: int = 1, largest_file_kb: int = 0) -> subprocess.Popen[bytes]:
    """A command in a process of its own, or in one per rank."""
    start = [sys.executable, "-m", "fairway"]
    if ranks > 1:
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
        start = [*torchrun, "-m", "fairway"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    if largest_file_kb:
        start = ["bash", "-c", f'ulimit -f {largest_file_kb}; exec "$@"', "bash", *start]
    return subprocess.Popen([*start, *map(str, words)], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def finish(running: subprocess.Popen[bytes], expected: int = 0) -> bytes:
    """Wait for a process and return its output."""
    out, err = running.communicate(timeout=240)
    assert running.returncode == expected, err.decode()[-3000:]
    return out

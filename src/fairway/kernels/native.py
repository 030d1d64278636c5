"""Native code of the package: C files compiled once by the machine's own compiler, kept per user, called through ctypes.

Nothing native is shipped: the sources travel with the package and its code bundle. A library's name holds a hash of its
sources, the flags and the compiler's version, so a changed source is never run from an old file, and processes that compile
at the same time put equal files in the same place, each whole.
"""

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from fairway.base.errors import MachineError
from fairway.base.files import atomic_path
from fairway.base.log import logger

COMPILERS = ("cc", "gcc", "clang")
FLAGS = ("-O3", "-std=c11", "-ffp-contract=off", "-fPIC", "-shared")
"""Generic code for the architecture, since a home folder may serve several machines; products and sums are rounded
separately, as they are in Python."""

_COMPILE_SECONDS = 300


def native_source(name: str) -> Path:
    """Path of one of the C files that lie beside this module."""
    return Path(__file__).parent / name


def load_native(sources: Sequence[Path], *, cache: Path | None = None) -> ctypes.CDLL:
    """The shared library of some C files, compiled now unless this user has it already.

    Args:
        sources: C files, compiled together, and the headers they include; the first gives the library its name.
        cache: Folder of compiled libraries; by default one that only this user can write.

    Raises:
        MachineError: there is no C compiler, it fails, or the library cannot be stored or loaded.
    """
    path = compiled(sources, cache or user_cache())
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise MachineError(f"{path} cannot be loaded ({error}); delete it, or allow programs to run from its folder") from None


@functools.cache
def native_or_none(sources: tuple[Path, ...], fallback: str) -> ctypes.CDLL | None:
    """`load_native`, or None with one log line that says why, what happens instead, and what to do.

    Args:
        sources: As for `load_native`.
        fallback: What is used instead, as in "plain Python counts the n-grams, about 100 times slower".
    """
    try:
        return load_native(sources)
    except MachineError as error:
        logger.warning("no native code: %s; until then %s", error, fallback)
        return None


def compiled(sources: Sequence[Path], cache: Path) -> Path:
    """Path of the library of ``sources`` in the folder ``cache``, where it is put if missing.

    Raises:
        MachineError: there is no C compiler, it fails, or the folder cannot be written.
    """
    compiler = find_compiler()
    digest = hashlib.sha256("\n".join([*FLAGS, platform.machine(), _version(compiler)]).encode())
    for source in sources:
        digest.update(f"\n{source.name} {source.stat().st_size}\n".encode() + source.read_bytes())
    path = cache / f"{sources[0].stem}-{digest.hexdigest()[:20]}.so"
    if not path.exists():
        inputs = [str(source) for source in sources if source.suffix == ".c"]
        with atomic_path(path) as partial:
            _run([compiler, *FLAGS, "-o", str(partial), *inputs])
    return path


def find_compiler() -> str:
    """Path of the machine's C compiler.

    Raises:
        MachineError: none is installed.
    """
    for name in COMPILERS:
        if path := shutil.which(name):
            return path
    raise MachineError(f"no C compiler is installed (looked for {', '.join(COMPILERS)}); install one: apt-get install gcc")


def user_cache() -> Path:
    """``~/.cache/fairway/native``, or a folder under the temporary directory where the home cannot be written.

    Raises:
        MachineError: neither can be written, or somebody else can write there, who could plant code.
    """
    try:
        return _private(Path.home() / ".cache" / "fairway" / "native")
    except (OSError, RuntimeError, MachineError):
        owner = os.getuid() if hasattr(os, "getuid") else "user"
        try:
            return _private(Path(tempfile.gettempdir()) / f"fairway-native-{owner}")
        except OSError as error:
            raise MachineError(
                f"no folder for compiled code: {error.filename} is not writable ({error.strerror}); make ~/.cache writable"
            ) from None


def _private(folder: Path) -> Path:
    folder.mkdir(parents=True, mode=0o700, exist_ok=True)
    facts = folder.stat()
    foreign = hasattr(os, "getuid") and facts.st_uid != os.getuid()
    if foreign or facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise MachineError(f"{folder} belongs to or can be written by somebody else; make it yours alone: chmod 700 {folder}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(13, "permission denied", str(folder))
    return folder


def _version(compiler: str) -> str:
    return _run([compiler, "--version"])


def _run(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=_COMPILE_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MachineError(
            f"{command[0]} does not run ({error}); repair the C compiler: apt-get install --reinstall gcc"
        ) from None
    if done.returncode:
        first = next((line for line in done.stderr.splitlines() if "error" in line), done.stderr.strip()[:200])
        raise MachineError(f"{command[0]} failed ({first}); install the C library's headers: apt-get install libc6-dev")
    return done.stdout

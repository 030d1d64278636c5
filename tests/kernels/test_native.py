"""Compiling native code: once, whole, by several processes at a time, and with a clear word when it cannot be."""

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fairway.artifact.bundle import run_files
from fairway.base.errors import MachineError
from fairway.kernels import native
from fairway.kernels.native import COMPILERS, compiled, load_native, native_or_none, native_source, user_cache
from fairway.score.hints_native import LIBRARIES

pytestmark = pytest.mark.skipif(
    not any(native.shutil.which(name) for name in COMPILERS), reason="no C compiler on this machine"
)

ADD = '#include "add.h"\nint add(int a, int b) { return a + b + EXTRA; }\n'


@pytest.fixture
def sources(tmp_path: Path) -> list[Path]:
    """A library of one C file and its header."""
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "add.c").write_text(ADD)
    (folder / "add.h").write_text("#define EXTRA 0\n")
    return [folder / "add.c", folder / "add.h"]


def test_a_library_is_compiled_once_and_called(sources: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "cache"
    assert load_native(sources, cache=cache).add(2, 3) == 5
    (library,) = cache.iterdir()
    before = library.stat().st_mtime_ns
    commands = []
    run = native._run
    monkeypatch.setattr(native, "_run", lambda command: commands.append(command) or run(command))
    assert load_native(sources, cache=cache).add(4, 5) == 9
    assert [command[1:] for command in commands] == [["--version"]]
    assert library.stat().st_mtime_ns == before


@pytest.mark.parametrize("change", ["source", "header", "flags", "compiler"])
def test_any_change_makes_a_new_library(
    sources: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    first = compiled(sources, tmp_path)
    if change == "source":
        sources[0].write_text(ADD + "\n")
    elif change == "header":
        sources[1].write_text("#define EXTRA 1\n")
    elif change == "flags":
        monkeypatch.setattr(native, "FLAGS", (*native.FLAGS, "-DOTHER"))
    else:
        monkeypatch.setattr(native, "_version", lambda compiler: "another release")
    assert compiled(sources, tmp_path) != first
    if change == "header":
        assert ctypes.CDLL(str(compiled(sources, tmp_path))).add(1, 1) == 3


def test_processes_that_compile_at_once_all_get_a_whole_library(sources: list[Path], tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from fairway.kernels.native import load_native;"
        "library = load_native([Path(p) for p in sys.argv[2:]], cache=Path(sys.argv[1]));"
        "sys.exit(library.add(20, 22) - 42)"
    )
    cache = tmp_path / "cache"
    command = [sys.executable, "-c", code, str(cache), *map(str, sources)]
    running = [subprocess.Popen(command) for _ in range(4)]
    assert [process.wait() for process in running] == [0, 0, 0, 0]
    assert len(list(cache.iterdir())) == 1


def test_no_compiler_is_said_once_with_the_remedy(
    sources: list[Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(native.shutil, "which", lambda name: None)
    with caplog.at_level("WARNING", logger="fairway"):
        assert native_or_none(tuple(sources), "a slow loop adds") is None
        assert native_or_none(tuple(sources), "a slow loop adds") is None
    assert len(caplog.records) == 1
    assert "install one: apt-get install gcc" in caplog.text
    assert "a slow loop adds" in caplog.text
    with pytest.raises(MachineError, match="no C compiler"):
        load_native(sources)


def test_a_source_that_does_not_compile_leaves_nothing_behind(sources: list[Path], tmp_path: Path) -> None:
    sources[0].write_text("int add(int a, int b) { return missing; }\n")
    with pytest.raises(MachineError, match=r"failed .*missing"):
        load_native(sources, cache=tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_damaged_library_is_refused(sources: list[Path], tmp_path: Path) -> None:
    compiled(sources, tmp_path / "cache").write_bytes(b"not a library")
    with pytest.raises(MachineError, match=r"cannot be loaded .* delete it"):
        load_native(sources, cache=tmp_path / "cache")


def test_the_cache_is_the_users_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native.Path, "home", lambda: tmp_path / "home")
    monkeypatch.setattr(native.tempfile, "gettempdir", lambda: str(tmp_path))
    folder = user_cache()
    assert folder == tmp_path / "home" / ".cache" / "fairway" / "native"
    assert folder.stat().st_mode & 0o077 == 0
    folder.chmod(0o777)
    assert user_cache() == tmp_path / f"fairway-native-{os.getuid()}", "others could plant code in the first"
    user_cache().chmod(0o777)
    with pytest.raises(MachineError, match="make it yours alone: chmod 700"):
        user_cache()


@pytest.mark.parametrize("counting", LIBRARIES)
def test_the_sources_compile_without_warnings(counting: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "FLAGS", (*native.FLAGS, "-Wall", "-Wextra", "-Werror"))
    names, functions = LIBRARIES[counting]
    library = ctypes.CDLL(str(compiled([native_source(name) for name in names], tmp_path)))
    assert all(hasattr(library, name) for name in functions)


def test_the_sources_travel_with_the_package() -> None:
    packed = run_files()
    for name in {name for names, _ in LIBRARIES.values() for name in names}:
        assert packed[f"fairway/kernels/{name}"] == native_source(name).read_bytes()

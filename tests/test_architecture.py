"""The house keeps its plan: imports go one way, files stay readable, and importing has no effects."""

import ast
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "fairway"
ORDER = [
    "base", "config", "recipes", "kernels", "data", "model", "optim", "train", "quant", "artifact", "score", "audit", "record",
    "report", "doctor", "walk", "stages", "bundle", "pipeline", "ablation", "cli", "__main__",
]  # fmt: skip
LIGHT = ("base", "config", "recipes")
FILES = sorted(SOURCE.rglob("*.py"))


def room(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """Dotted names that a file imports, wherever in the file."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_go_one_way(path: Path) -> None:
    here = room(path)
    if here == "__init__":
        assert not [name for name in imported(path) if name.startswith("fairway.")]
        return
    rooms = {name.split(".")[1] for name in imported(path) if name.startswith("fairway.")} - {"__version__"}
    limit = 0 if here == "kernels" else ORDER.index(here)
    backwards = {name for name in rooms if name != here and name in ORDER and ORDER.index(name) > limit}
    assert not backwards, f"{here} may not import {sorted(backwards)}: they come later in the walk"


@pytest.mark.parametrize("path", [path for path in FILES if room(path) in LIGHT], ids=lambda path: path.stem)
def test_settings_import_no_torch(path: Path) -> None:
    assert not {name.split(".")[0] for name in imported(path)} & {"torch", "numpy"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_files_and_functions_stay_readable(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= 500
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            length = (node.end_lineno or 0) - node.lineno + 1
            docstring = ast.get_docstring(node, clean=False) or ""
            assert length - len(docstring.splitlines()) <= 60, f"{node.name} is {length} lines long"


@pytest.mark.parametrize(
    "path", [path for path in FILES if room(path) != "cli"], ids=lambda path: str(path.relative_to(SOURCE))
)
def test_only_the_command_line_prints(path: Path) -> None:
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    assert not [call.lineno for call in calls if isinstance(call.func, ast.Name) and call.func.id == "print"]


def test_environment_variables_are_read_only_where_torchrun_speaks() -> None:
    readers = {str(path.relative_to(SOURCE)) for path in FILES if "os.environ" in path.read_text()}
    assert readers <= {"base/log.py", "base/threads.py", "train/distributed.py", "train/machine.py", "doctor.py"}


def test_help_is_quick_and_loads_nothing_heavy() -> None:
    code = (
        "import sys; from fairway.cli import main; code = main(['--help']);"
        "heavy = {'torch', 'numpy', 'tyro', 'matplotlib', 'sentencepiece'} & set(sys.modules); sys.exit(code or len(heavy))"
    )
    best = 9.0
    for _ in range(3):
        began = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
        best = min(best, time.perf_counter() - began)
        assert done.returncode == 0
        assert b"fairway COMMAND --help" in done.stdout
    assert best < 0.5


def test_importing_the_package_touches_no_device() -> None:
    modules = [
        ".".join(("fairway", *path.relative_to(SOURCE).with_suffix("").parts)).removesuffix(".__init__")
        for path in FILES
        if path.name != "__main__.py" and (find_spec("triton") or not path.stem.startswith("triton_"))
    ]
    code = (
        f"import importlib, logging; [importlib.import_module(name) for name in {modules!r}];"
        "import torch; assert not torch.cuda.is_initialized(); assert not logging.getLogger('fairway').handlers;"
        "assert torch.get_default_dtype() == torch.float32"
    )
    subprocess.run([sys.executable, "-c", code], check=True)

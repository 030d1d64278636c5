"""The parts of bundling: printing, folding and where it must not, packing, C sources, restoring, refusals."""

import ast
import contextlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
from bundle_cases import bundle_of
from hypothesis import given, settings
from hypothesis import strategies as st

from fairway.base.errors import ArtifactError, DataError
from fairway.bundle.csource import read_c, shorten
from fairway.bundle.facts import Facts
from fairway.bundle.fold import fold
from fairway.bundle.index import build
from fairway.bundle.layout import Layout
from fairway.bundle.names import rename
from fairway.bundle.pack import pack, quoted, unpack
from fairway.bundle.program import Program, Section
from fairway.bundle.restore import check, restore
from fairway.bundle.scopes import bind
from fairway.bundle.simplify import simplify
from fairway.recipes import RECIPES, recipe

SOURCE = Path(__file__).parents[2] / "src" / "fairway"
CAPS = {"pr1413": 34_000, "pr1533": 35_000, "pr1557": 39_800, "pr1776": 34_000, "pr2140": 40_445, "frontier": 41_800}


def program(text: str) -> Program:
    """A program of one module, beside the settings classes."""
    made = Program([], {})
    for module, source in (
        ("fairway.base.values", "def to_dict(value): return {}"),
        (
            "fairway.config.network",
            "class ModelConfig:\n width: int\n layers: int\n gates: GateConfig\nclass GateConfig:\n smear: bool",
        ),
        ("test", "from dataclasses import replace\n" + text),
    ):
        tree = ast.parse(source)
        made.scopes[module] = bind(tree, module)
        made.sections.append(Section(module, tree.body))
    names, config = made.scopes["test"].names, made.scopes["fairway.config.network"].names
    for name in ("ModelConfig", "GateConfig"):
        made.scopes["test"].lookup(name).alias = config[name]
    names["replace"].imported = ("dataclasses", "replace")
    return made


def folded(text: str) -> str:
    """The last section after folding and simplifying twice, with the settings of pr1413's network."""
    made = program(text)
    for _ in range(3):
        fold(made, Facts(build(made), recipe("pr1413").model))
        simplify(made, Facts(build(made), recipe("pr1413").model))
    return Layout().source(made.sections[-1].body)


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py"))[::12], ids=lambda path: path.stem)
def test_printing_keeps_the_meaning(path):
    tree = ast.parse(path.read_text())
    bind(tree, "module")
    assert ast.dump(ast.parse(Layout().source(tree.body))) == ast.dump(ast.parse(path.read_text()))


def test_fields_on_which_all_settings_agree_are_constants():
    found = folded("def f(config: ModelConfig, x):\n if config.width > 500 and x: return config.layers\n return 0\nprint(f)")
    assert found.split("\n")[2:4] == [" if x:return 11", " return 0"]


def test_branches_that_cannot_be_taken_go():
    found = folded("def f(config: ModelConfig):\n if config.gates.smear:\n  return 1\n else:\n  return 2\nprint(f)")
    assert "return 2" in found
    assert "return 1" not in found


def test_settings_that_living_code_changes_are_no_constants():
    text = "def g(config: ModelConfig):\n return config.width\ndef f(config: ModelConfig, x):\n"
    text += " return g(replace(config, width=x))\nprint(f, g)"
    assert "return config.width" in folded(text)


def test_a_parameter_that_all_calls_agree_on_goes_and_one_that_differs_stays():
    text = "def f(x, *, resume):\n if resume: return 1\n return x\ndef g(x): return f(x, resume=False)\nprint(g)"
    assert "def f(x):return x" in folded(text)
    text = text.replace("print(g)", "print(g, f(2, resume=True))")
    assert "if resume" in folded(text)
    text = "def f(x, *, resume):\n if resume: return 1\n return x\ndef g(x): return f(x, resume=False)\nprint(g, f)"
    assert "if resume" in folded(text), "somebody else may call f"


def test_values_that_look_equal_are_told_apart():
    assert "is True" in folded("def f(x): return x is True\nprint(f(1), f(True))")
    assert "x==2" in folded("def f(x):\n if x == 2: return 5\n return x\nprint(f(1), f(2))")


def test_after_an_exit_a_value_is_gone():
    text = "def f(name):\n if name == 'a': return 1\n if name == 'b': return 2\n return 3\nprint(f('a'), f('b'))"
    assert "return 3" not in folded(text)
    assert "return 3" in folded(text.replace("f('b')", "f('b'), f('c')"))


def test_names_that_meet_stay_apart():
    made = program(
        "a = 1\ndef f(first, second):\n third = lambda fourth: first + fourth + a\n"
        " return [third(i) for i in second]\nprint(f(1, [2]))"
    )
    rename(made)
    output: list[object] = []
    exec(Layout().source(made.sections[-1].body).replace("print", "output.append"), {"output": output})
    assert output == [[4]]


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200) | st.text("\\'\r\0\n07'", max_size=40).map(str.encode))
def test_any_bytes_survive_as_a_literal(content):
    source = b"#coding:l1\nx=" + quoted(content) + b"\n"
    assert ast.parse(source).body[0].value.value.encode("latin-1") == content  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "text", ["print('x')\n", "x = 1\n" * 3000, "".join(f"y{i} = {i * 7919 % 1009}\n" for i in range(3000))]
)
def test_a_file_runs_what_was_packed(text, tmp_path):
    path = tmp_path / "train_gpt.py"
    path.write_bytes(pack(text))
    assert unpack(path.read_bytes()) == text
    subprocess.run([sys.executable, str(path)], check=True, capture_output=True)


def test_what_is_no_bundle_or_damaged_is_refused(tmp_path):
    good = pack("x = 1\n" * 50)
    for bad in (
        b"",
        b"print(1)\n",
        b"\0",
        good[:-30],
        good + b"import os\n",
        good.replace(b"exec", b"eval"),
        good[: len(good) // 2],
    ):
        with pytest.raises(ArtifactError):
            unpack(bad)
    place = good.index(b"'''") + 8
    for flip in range(1, 255, 17):
        changed = good[:place] + bytes([good[place] ^ flip]) + good[place + 1 :]
        with contextlib.suppress(ArtifactError):
            # Brotli has no checksum: what still unpacks is for the check against the package to find.
            ast.parse(unpack(changed))
    (tmp_path / "train_gpt.py").write_bytes(good)
    with pytest.raises(DataError, match="has no map"):
        check(tmp_path / "train_gpt.py")
    with pytest.raises(ArtifactError, match="cannot be read"):
        restore(tmp_path / "missing.py", tmp_path / "out")


def test_c_sources_keep_their_tokens():
    assert shorten('int a = 1; // one\n/* two */ int  b = - -a;\n#define X(y) y\nchar *s = "a // b";') == (
        'int a=1;int b= - -a;\n#define X(y) y\nchar*s="a // b";\n'
    )
    assert len(shorten(read_c("ngram_hashed.c"))) < 0.8 * len(read_c("ngram_hashed.c"))


@pytest.mark.long
def test_a_bundle_comes_back_readable_and_is_the_package(quick, tmp_path):
    path = bundle_of(quick, tmp_path / "first")
    files = restore(path, tmp_path / "source")
    names = {file.relative_to(tmp_path / "source").as_posix() for file in files}
    assert {"fairway/model/gpt.py", "fairway/score/driver.py", "imports.py", "begin.py", "ngram_exact.c"} <= names
    text = (tmp_path / "source" / "fairway" / "score" / "driver.py").read_text()
    assert "def walk(predictor, tokens, ledger" in text
    for file in files:
        if file.suffix == ".py":
            ast.parse(file.read_text())
    (tmp_path / "first" / "train_gpt.map.json").rename(tmp_path / "map.json")
    alone = restore(path, tmp_path / "alone")
    assert alone[0].name == "train_gpt.py"
    # Made in another process with other hashes, the bytes are the same.
    assert bundle_of(quick, tmp_path / "second", seed="7").read_bytes() == path.read_bytes()
    assert json.loads((tmp_path / "map.json").read_text())["bundle_bytes"] == path.stat().st_size


@pytest.mark.long
@pytest.mark.parametrize("name", RECIPES)
def test_every_bundle_compiles_and_fits(name, tmp_path):
    content = bundle_of(recipe(name), tmp_path).read_bytes()
    compile(unpack(content), name, "exec")
    assert len(content) <= CAPS.get(name, 42_000)

"""From a recipe to its bundle: link, strip, shake, fold until nothing changes, name, print, pack."""

import ast
import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from fairway.base.files import write_bytes
from fairway.base.values import from_dict, to_dict
from fairway.bundle.csource import read_c, shorten
from fairway.bundle.facts import Facts
from fairway.bundle.fold import fold
from fairway.bundle.index import build
from fairway.bundle.layout import Layout
from fairway.bundle.map import name_map
from fairway.bundle.members import closed_members, member_names, pass_by_place
from fairway.bundle.names import rename
from fairway.bundle.pack import pack
from fairway.bundle.program import Program, Section, link
from fairway.bundle.replaced import ABSENT, STAND_INS
from fairway.bundle.scopes import Variable
from fairway.bundle.settings import Constants, literal, shrink, trust_settings
from fairway.bundle.shake import bound_by, shake
from fairway.bundle.simplify import simplify
from fairway.bundle.strip import mark_annotations, strip_annotations, strip_texts, trust
from fairway.config import Recipe

ROOT = "fairway.bundle.run"
MOST_ROUNDS = 40


def program_of(recipe: Recipe) -> Program:
    """The linked program of a recipe, before anything is left out."""
    program = link(ROOT, STAND_INS, ABSENT)
    give(program, "RECIPE", literal(recipe, program))
    trust_settings(program)
    mark_annotations(program)
    strip_texts(program)
    trust(program)
    shake(program, [main_of(program)])
    return program


def main_of(program: Program) -> Variable:
    """The function that a bundle runs."""
    return program.variable(f"{ROOT}.main")


def give(program: Program, name: str, value: ast.expr) -> None:
    """Fill in a variable of ``given.py``."""
    for node in program.statements():
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == name:
            node.value = value


def fold_all(program: Program, recipe: Recipe) -> int:
    """Fold, simplify and shake until nothing changes; returns the number of rounds."""
    constants = Constants(program)
    for rounds in range(1, MOST_ROUNDS):
        changes = fold(program, Facts(build(program), recipe))
        facts = Facts(build(program), recipe)
        shake(program, [main_of(program)], facts)
        changes += constants.place(program, facts) if rounds > 1 else 1
        changes += simplify(program, facts)
        if not changes:
            return rounds
    return MOST_ROUNDS


def add_c_sources(program: Program) -> None:
    """Fill in the C files whose names are left in the program."""
    texts = {
        part.value for node in program.statements() for part in ast.walk(node)
        if isinstance(part, ast.Constant) and isinstance(part.value, str)
    }  # fmt: skip
    files = sorted(text for text in texts if text.startswith("ngram_") and text.endswith((".c", ".h")))
    give(program, "C_SOURCES", ast.Dict([*map(ast.Constant, files)], [ast.Constant(shorten(read_c(name))) for name in files]))


def body_of(program: Program) -> list[Any]:
    """All statements in the order in which they run, imports first."""
    body: list[Any] = []
    groups: dict[str, list[Any]] = {}
    for (module, name, _), variable in program.imports.items():
        alias: Any = ast.alias(name or module)
        alias.variable = variable
        groups.setdefault(module if name else "", []).append(alias)
    for module, aliases in groups.items():
        body.append(ast.ImportFrom(module, aliases, 0) if module else ast.Import(aliases))
    for section in program.sections:
        body += section.body if section.loader is None else [_loader(section)]
    name_: Any = ast.Name("main", ast.Load())
    name_.variable = main_of(program)
    return [*body, ast.Expr(ast.Call(name_, [], []))]


def _loader(section: Section) -> ast.stmt:
    """The function that runs a module at its first use, on the globals of the program."""
    shared: Any = ast.Global([])
    shared.variables = list(dict.fromkeys(variable for node in section.body for variable in bound_by(node)))
    assert section.loader is not None, "only modules with a loader have one"
    empty = ast.arguments([], [], None, [], [], None, [])
    function: Any = ast.FunctionDef(section.loader.name, empty, [shared, *section.body], [])
    function.variable = section.loader
    return function


@dataclass(frozen=True)
class Bundle:
    """A bundle and the map that says what its names mean."""

    content: bytes
    """The file ``train_gpt.py``."""
    source: str
    """What it runs."""
    names: dict[str, Any]
    """The map, as JSON values."""


def finished(recipe: Recipe) -> tuple[Program, dict[str, str]]:
    """The program of a recipe in its last form but with the package's names, and new names of attributes."""
    program = program_of(recipe)
    fold_all(program, recipe)
    shrink(program, Facts(build(program), recipe))
    shake(program, [main_of(program)])
    add_c_sources(program)
    pass_by_place(program, Facts(build(program), recipe))
    members = dict(member_names(closed_members(program, Facts(build(program), recipe)), set()))
    strip_annotations(program)
    shake(program, [main_of(program)])
    return program, members


def make_bundle(recipe: Recipe) -> Bundle:
    """The bundle of a recipe; made once per process and recipe.

    The same package and recipe give the same bytes on every machine and version of Python.

    Raises:
        ArtifactError: the list of stand-ins does not fit the package.
    """
    return _made(json.dumps(to_dict(recipe), sort_keys=True))


@lru_cache(maxsize=16)
def _made(document: str) -> Bundle:
    recipe = from_dict(Recipe, json.loads(document))
    program, members = finished(recipe)
    rename(program)
    source = Layout(members).source(body_of(program))
    content = pack(source)
    return Bundle(content, source, name_map(program, members, recipe, content))


def write_bundle(path: Path, recipe: Recipe) -> int:
    """Write the bundle of a recipe, as ``code.bundle`` of a run, and return its size in bytes.

    Raises:
        MachineError: the disk is full or the folder cannot be written.
    """
    content = make_bundle(recipe).content
    write_bytes(Path(path), content)
    return len(content)

"""The map beside a bundle: what its short names mean, where its parts come from, and which sources it was made of."""

import ast
import hashlib
from typing import Any

import fairway
from fairway.base.values import to_dict
from fairway.bundle.program import Program, source_of
from fairway.bundle.scopes import Variable
from fairway.bundle.shake import bound_by
from fairway.config import Recipe

FORMAT = "fairway-bundle-map"
VERSION = 1


def digest(content: bytes) -> str:
    """SHA-256 in hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def module_digests(modules: list[str]) -> dict[str, str]:
    """Module -> digest of its source in this version of the package; empty where there is none."""
    found = {module: source_of(module) for module in modules}
    return {module: digest(source[0].encode()) if source else "" for module, source in found.items()}


def name_map(program: Program, members: dict[str, str], recipe: Recipe, content: bytes) -> dict[str, Any]:
    """The map of a program whose variables have their short names, as JSON values."""
    owners: dict[str, str] = {}
    variables: dict[str, str] = {}
    locals_: dict[str, dict[str, str]] = {}
    for section in program.sections:
        for node in section.body:
            for variable in bound_by(node):
                owners[variable.name] = section.module
            name = next((variable.name for variable in bound_by(node)), "")
            found = _names_inside(node)
            variables |= found.pop("")
            if found and name:
                locals_[name] = {short: next(iter(long)) for short, long in found.items() if len(long) == 1}
    outside = {variable.name: variable.original for variable in program.imports.values()}
    return {
        "format": FORMAT,
        "version": VERSION,
        "fairway": fairway.__version__,
        "bundle_sha256": digest(content),
        "bundle_bytes": len(content),
        "recipe": to_dict(recipe),
        "sources": module_digests(sorted(program.scopes)),
        "modules": owners,
        "globals": outside | variables,
        "locals": locals_,
        "members": {short: long for long, short in members.items()},
    }


def _names_inside(node: ast.AST) -> dict[str, Any]:
    """Short name of a local variable -> its names in the package; under the empty name those of globals."""
    found: dict[str, Any] = {"": {}}
    part: Any
    for part in ast.walk(node):
        for variable in [part.variable] if hasattr(part, "variable") else getattr(part, "variables", []):
            _note(variable, found)
    return found


def _note(variable: Variable, found: dict[str, Any]) -> None:
    while variable.alias is not None:
        variable = variable.alias
    if variable.kind == "global":
        found[""][variable.name] = variable.original
    elif variable.kind == "local" and variable.name != variable.original:
        found.setdefault(variable.name, set()).add(variable.original)

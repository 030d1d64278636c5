"""Shorter calls and attributes: keyword arguments by place where all calls are known, and short names for members.

An attribute gets another name only if every object that is asked for it is known to be of a class of the program that
defines it, if no class from outside has a part in that class, and if its name occurs in no text.
"""

import ast
from collections.abc import Iterator
from typing import Any

from fairway.bundle.classes import OUTSIDE
from fairway.bundle.facts import Facts
from fairway.bundle.fold import is_pure
from fairway.bundle.index import ClassInfo
from fairway.bundle.program import Program
from fairway.bundle.shake import decorator_name, is_record, walk_code
from fairway.bundle.simplify import Simplifier


def pass_by_place(program: Program, facts: Facts) -> None:
    """Turn keyword arguments into positional ones, and keyword-only parameters into ordinary ones."""
    simplifier = Simplifier(facts, look_only=True)
    for function in facts.index.functions.values():
        arguments = function.args
        if arguments.vararg or arguments.kwarg or arguments.posonlyargs:
            continue
        calls = simplifier.droppable(function)
        if calls is None or any(_is_open(call) for call in calls):
            continue
        shift = 1 if id(function) in facts.index.owners and not _is_static(function) else 0
        # Parameters without a default come first, so that none has to be passed by name for the sake of another.
        only = sorted(zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True), key=lambda pair: pair[1] is not None)
        plain = len(arguments.args) - len(arguments.defaults)
        if arguments.defaults and any(default is None for _, default in only):
            late = [pair for pair in only if pair[1] is None]
            only = [pair for pair in only if pair[1] is not None]
            arguments.args[plain:plain] = [part for part, _ in late]
            for call in calls:
                _name_from(call, plain - shift, [part.arg for part in arguments.args[plain + len(late) :]])
        arguments.args += [part for part, _ in only]
        arguments.defaults += [default for _, default in only if default is not None]
        arguments.kwonlyargs, arguments.kw_defaults = [], []
        names = [part.arg for part in arguments.args][shift:]
        for call in calls:
            _by_place(call, names)
        function.by_place = not any(call.keywords for call in calls)  # type: ignore[attr-defined]
    for info in facts.index.classes.values():
        _record_by_place(info, facts)


def _name_from(call: ast.Call, place: int, names: list[str]) -> None:
    """Pass the arguments from a place on by name."""
    moved = call.args[place:]
    call.args = call.args[:place]
    call.keywords = [ast.keyword(name, value) for name, value in zip(names, moved, strict=False)] + call.keywords


def _record_by_place(info: ClassInfo, facts: Facts) -> None:
    plain = is_record(info.node) and not info.bases and not info.children and "__init__" not in info.methods
    calls = facts.constructions(info) if plain else None
    if (
        not calls
        or any(_is_open(call) for call in calls)
        or any("field" in ast.dump(one) for one in info.fields.values() if one.value)
    ):
        return
    names = list(info.fields)
    if any(info.fields[name].value is None for name in names[_first_default(info) :]):
        return
    for call in calls:
        _by_place(call, names)
    for decorator in info.node.decorator_list:
        if isinstance(decorator, ast.Call) and all(not call.keywords for call in calls):
            decorator.keywords = [part for part in decorator.keywords if part.arg != "kw_only"]


def _first_default(info: ClassInfo) -> int:
    return next((place for place, one in enumerate(info.fields.values()) if one.value is not None), len(info.fields))


def _by_place(call: ast.Call, names: list[str]) -> None:
    """Turn as many keyword arguments of a call as possible into positional ones, without changing the order of effects."""
    given = {part.arg: part for part in call.keywords}
    moved = []
    for name in names[len(call.args) :]:
        if name not in given:
            break
        moved.append(given[name])
    kept = [part for part in call.keywords if part not in moved]
    order = [part for part in (*moved, *kept) if not is_pure(part.value)]
    if order != [part for part in call.keywords if not is_pure(part.value)]:
        return
    call.args += [part.value for part in moved]
    call.keywords = kept


def _is_open(call: ast.Call) -> bool:
    return any(isinstance(part, ast.Starred) for part in call.args) or any(part.arg is None for part in call.keywords)


def _is_static(function: Any) -> bool:
    return any(decorator_name(part) == "staticmethod" for part in function.decorator_list)


def closed_members(program: Program, facts: Facts) -> list[str]:
    """Attributes that can have any other name, the most frequent first."""
    index = facts.index
    uses: dict[str, int] = {}
    spoiled: set[str] = set(index.texts)
    for section in program.sections:
        for node in section.body:
            for part in walk_code(node):
                if isinstance(part, ast.Attribute):
                    owner = facts.class_of(part.value)[0]
                    uses[part.attr] = uses.get(part.attr, 0) + 1
                    if owner is None or owner is OUTSIDE or not _defines(owner, part.attr):
                        spoiled.add(part.attr)
                elif isinstance(part, ast.keyword) and part.arg:
                    spoiled.add(part.arg)
                elif isinstance(part, ast.MatchClass):
                    spoiled.update(part.kwd_attrs)
    for info in index.classes.values():
        names = {*info.methods, *info.fields, *info.stores}
        if info.foreign or any(one.foreign for one in info.lineage()) or _is_read_as_a_whole(info, facts):
            spoiled |= names
    defined = {name for info in index.classes.values() for name in (*info.methods, *info.fields, *info.stores)}
    good = [name for name in uses if name in defined and name not in spoiled and not name.startswith("__")]
    return sorted(good, key=lambda name: (-uses[name], name))


def _defines(owner: ClassInfo, name: str) -> bool:
    relatives = [*owner.lineage(), *owner.family()]
    return any(name in one.methods or name in one.fields or name in one.stores for one in relatives)


def _is_read_as_a_whole(info: ClassInfo, facts: Facts) -> bool:
    """Whether the fields of a class are read by their names somewhere, or it is built from named values."""
    calls = facts.index.calls.get(info.variable, [])
    return any(part.arg is None for call in calls for part in call.keywords)


def member_names(names: list[str], taken: set[str]) -> Iterator[tuple[str, str]]:
    """Pairs of an attribute and its short name."""
    fresh = (first + second for first in "abcdefghijklmnopqrstuvwxyz" for second in "_0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ")
    for name in names:
        if len(name) <= 2:
            continue
        yield name, next(short for short in fresh if short not in taken)

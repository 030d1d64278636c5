"""Frozen dataclass trees as values: strict types, JSON both ways, differences, and the docstrings under their fields."""

import ast
import dataclasses
import difflib
import functools
import inspect
import itertools
import math
import textwrap
import types
import typing
from collections.abc import Iterable, Iterator
from typing import Any, Literal, TypeVar, Union

from fairway.base.errors import RecipeError

V = TypeVar("V", bound="Value")


def require(condition: bool, message: str) -> None:
    """Raise a ``RecipeError`` with ``message`` unless ``condition`` holds."""
    if not condition:
        raise RecipeError(message)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Value:
    """Base of every settings class: checks the type of each field when the value is built."""

    def __post_init__(self) -> None:
        for name, kind in field_types(type(self)).items():
            object.__setattr__(self, name, checked(getattr(self, name), kind, f"{type(self).__name__}.{name}"))
        self.validate()

    def validate(self) -> None:
        """Refuse impossible combinations with a ``RecipeError``; subclasses override."""


@functools.cache
def field_types(cls: type) -> dict[str, Any]:
    """Resolved type of every dataclass field of ``cls``."""
    hints = typing.get_type_hints(cls)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls)}


def checked(value: Any, kind: Any, where: str) -> Any:
    """Return ``value`` as ``kind``; an int is accepted for a float, a list for a tuple, nothing else is converted."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        if value not in arguments:
            raise RecipeError(f"{where}={value!r} is not one of {', '.join(map(repr, arguments))}{suggest(value, arguments)}")
        return value
    if origin in (Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        (inner,) = [argument for argument in arguments if argument is not type(None)]
        return checked(value, inner, where)
    if origin is tuple:
        if not isinstance(value, tuple | list):
            raise RecipeError(f"{where}={value!r} is not a list of {arguments[0].__name__}")
        return tuple(checked(item, arguments[0], f"{where}[{index}]") for index, item in enumerate(value))
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise RecipeError(f"{where}={value!r} is a {type(value).__name__}; it must be {kind.__name__}")
    if kind is float and not math.isfinite(value):
        raise RecipeError(f"{where}={value!r} is not a finite number")
    return value


def suggest(name: Any, known: Iterable[Any]) -> str:
    """``"; did you mean 'x'?"`` when a known name is close to ``name``, else an empty string."""
    close = difflib.get_close_matches(str(name), [str(item) for item in known], n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def to_dict(value: Value) -> dict[str, Any]:
    """The value as nested dictionaries that JSON can hold."""
    return dataclasses.asdict(value)


def from_dict(cls: type[V], content: Any, where: str = "") -> V:
    """Build ``cls`` from nested dictionaries; unknown and missing names are refused with a suggestion."""
    where = where or cls.__name__
    if not isinstance(content, dict):
        raise RecipeError(f"{where} must be an object with named fields, not {type(content).__name__}")
    kinds = field_types(cls)
    for name in content:
        if name not in kinds:
            raise RecipeError(f"{where} has no field {name!r}{suggest(name, kinds)}")
    arguments = {}
    for name, item in content.items():
        kind = kinds[name]
        nested = isinstance(kind, type) and issubclass(kind, Value)
        arguments[name] = from_dict(kind, item, f"{where}.{name}") if nested else checked(item, kind, f"{where}.{name}")
    missing = [
        field.name
        for field in dataclasses.fields(cls)
        if field.name not in content and field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise RecipeError(f"{where} lacks {', '.join(missing)}")
    return cls(**arguments)


@dataclasses.dataclass(frozen=True)
class Leaf:
    """One setting of a value tree: dotted path, value, and the first sentence and source of its docstring."""

    path: str
    value: Any
    doc: str


def leaves(value: Value, prefix: str = "") -> Iterator[Leaf]:
    """All settings of a value tree in the order of definition."""
    docs = field_docs(type(value))
    for field in dataclasses.fields(value):
        item = getattr(value, field.name)
        path = f"{prefix}{field.name}"
        if isinstance(item, Value):
            yield from leaves(item, f"{path}.")
        else:
            yield Leaf(path, item, docs.get(field.name, ""))


def difference(old: Value, new: Value) -> list[tuple[Leaf, Leaf]]:
    """Pairs of settings that differ between two values of the same class."""
    pairs = zip(leaves(old), leaves(new), strict=True)
    return [(before, after) for before, after in pairs if before.value != after.value]


def with_fields(value: V, changes: dict[str, Any]) -> V:
    """A copy with dotted paths replaced, such as ``{"model.width": 64}``, all at once, so only the end result is checked."""
    nested: dict[str, dict[str, Any]] = {}
    direct: dict[str, Any] = {}
    kinds = field_types(type(value))
    for path, item in changes.items():
        head, _, rest = path.partition(".")
        if head not in kinds:
            raise RecipeError(f"{type(value).__name__} has no field {head!r}{suggest(head, kinds)}")
        if rest:
            nested.setdefault(head, {})[rest] = item
        else:
            direct[head] = checked(item, kinds[head], f"{type(value).__name__}.{head}")
    for head, inner in nested.items():
        child = getattr(value, head)
        if not isinstance(child, Value):
            raise RecipeError(f"{type(value).__name__}.{head} is a single setting and has no field {next(iter(inner))!r}")
        direct[head] = with_fields(child, inner)
    return dataclasses.replace(value, **direct)


@functools.cache
def field_docs(cls: type) -> dict[str, str]:
    """Docstring under each field of ``cls``, on one line, read from the class's source."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(cls)))
    body = typing.cast("ast.ClassDef", tree.body[0]).body
    docs = {}
    for statement, following in itertools.pairwise(body):
        if isinstance(statement, ast.AnnAssign) and isinstance(following, ast.Expr):
            text = ast.literal_eval(following.value) if isinstance(following.value, ast.Constant) else ""
            docs[ast.unparse(statement.target)] = " ".join(str(text).split())
    return docs

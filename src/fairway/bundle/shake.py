"""What of a program can be reached from its beginning: statements, methods and attributes, by name.

A definition lives if a living statement names it. A method or field of a living class lives if a living statement names an
attribute so, on any object, or holds its name as text (``getattr``). Methods that Python or a class from outside calls
(``__enter__``, ``forward``) live with their class. So nothing that runs is left out, and some things are kept that do not.
"""

import ast
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any

from fairway.bundle.program import Program, Section
from fairway.bundle.scopes import FUNCTIONS, Variable, variable_of

CALLED_FROM_OUTSIDE = frozenset({"forward", "backward", "step", "zero_grad", "state_dict", "load_state_dict"})
"""Methods of classes of torch that torch calls."""

QUIET = frozenset(
    {"dataclass", "property", "classmethod", "staticmethod", "contextmanager", "cache", "lru_cache", "no_grad", "enable_grad",
     "inference_mode", "once_differentiable", "no_type_check", "jit", "autotune", "assume_constant_result", "runtime_checkable",
     "disable", "cached_property", "custom_op", "final", "overload", "total_ordering", "unique"}
)  # fmt: skip
"""Decorators that give back what they are put on and tell nobody else of it."""

BINDERS = (*FUNCTIONS, ast.ClassDef, ast.Assign, ast.AnnAssign, ast.AugAssign, ast.Import, ast.ImportFrom)


def bound_by(node: ast.stmt) -> list[Variable]:
    """Variables that a statement of the top level binds."""
    if isinstance(node, (*FUNCTIONS, ast.ClassDef)):
        return [variable_of(node)]
    if isinstance(node, ast.Import | ast.ImportFrom):
        return [variable_of(alias) for alias in node.names]
    return [variable_of(part) for part in ast.walk(node) if isinstance(part, ast.Name) and not isinstance(part.ctx, ast.Load)]


@cache
def _parts(kind: type[ast.AST]) -> tuple[str, ...]:
    """Fields of a kind of node that may hold nodes, annotations left out."""
    leaves = {"annotation", "returns", "ctx", "op", "ops", "id", "attr", "arg", "kind", "type_comment", "lineno", "value_"}
    return tuple(name for name in kind._fields if name not in leaves)


def walk_code(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes that run: annotations that nobody reads are left out, those of dataclass fields too."""
    waiting = [node]
    while waiting:
        part = waiting.pop()
        yield part
        kept = part.__dict__
        for name in _parts(type(part)):
            value = kept.get(name)
            if isinstance(value, list):
                waiting.extend(child for child in value if isinstance(child, ast.AST))
            elif isinstance(value, ast.AST):
                waiting.append(value)
        if kept.get("annotated"):
            waiting.extend(filter(None, (kept.get("annotation"), kept.get("returns"))))


def decorator_name(node: ast.expr) -> str:
    """Last part of a decorator's name."""
    if isinstance(node, ast.Call):
        return decorator_name(node.func)
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def root_name(node: ast.expr) -> ast.Name | None:
    """The name that a chain of attributes, calls and subscripts begins with."""
    while not isinstance(node, ast.Name):
        if isinstance(node, ast.Call):
            node = node.func
        elif isinstance(node, ast.Attribute | ast.Subscript):
            node = node.value
        else:
            return None
    return node


class Shaker:
    """Marks what lives, from a variable on."""

    def __init__(self, program: Program, facts: Any = None) -> None:
        self.program, self.facts = program, facts
        self.live: set[int] = set()
        self.names: set[str] = set()
        self.variables: set[Variable] = set()
        self.definitions: dict[Variable, list[tuple[ast.stmt, Section]]] = {}
        self.waiting: list[ast.AST] = []
        self.dormant: dict[str, list[tuple[ast.ClassDef, ast.AST]]] = {}
        self.typed: set[tuple[str, int]] = set()
        """Attributes that are read on an object of a known class, by the identity of the class."""
        self.listeners: dict[Variable, list[tuple[ast.stmt, Section]]] = {}
        self.sections: set[int] = set()
        self.by_text = facts is None or any(facts.class_of(call.args[0])[0] is None for call in facts.index.dynamic)
        for section in program.sections:
            for node in section.body:
                for variable in bound_by(node):
                    self.definitions.setdefault(variable, []).append((node, section))
                for variable in _tells(node):
                    self.listeners.setdefault(variable, []).append((node, section))

    def run(self, roots: Iterable[Variable]) -> None:
        """Mark everything that the variables need."""
        for variable in roots:
            self._variable(variable)
        while self.waiting:
            self._scan(self.waiting.pop())

    def alive(self, node: ast.AST) -> bool:
        """Whether a statement of the top level or of a class body lives."""
        return id(node) in self.live

    def _variable(self, variable: Variable) -> None:
        if variable in self.variables:
            return
        self.variables.add(variable)
        for node, section in (*self.definitions.get(variable, ()), *self.listeners.get(variable, ())):
            self._keep(node)
            if id(section) not in self.sections:
                self.sections.add(id(section))
                for statement in section.body:
                    if not isinstance(statement, BINDERS) and not _is_text(statement):
                        self._keep(statement)

    def _keep(self, node: ast.AST) -> None:
        if id(node) not in self.live:
            self.live.add(id(node))
            self.waiting.append(node)

    def _name(self, name: str) -> None:
        if name not in self.names:
            self.names.add(name)
            for _, node in self.dormant.pop(name, ()):
                self._keep(node)

    def _attribute(self, node: ast.Attribute) -> None:
        """Wake the members that a read attribute may be: of its object's class where that is known, else of all classes."""
        owner = self.facts.class_of(node.value)[0] if self.facts else None
        if owner is None:
            self._name(node.attr)
            return
        for info in (*owner.lineage(), *owner.family()):
            key = node.attr, id(info.node)
            if key not in self.typed:
                self.typed.add(key)
                for home, member in self.dormant.get(node.attr, ()):
                    if home is info.node:
                        self._keep(member)

    def _scan(self, node: Any) -> None:
        if isinstance(node, ast.ClassDef):
            for part in (*node.decorator_list, *node.bases, *node.keywords):
                self._read(part)
            foreign = has_foreign_base(node)
            for member in node.body:
                name = member_name(member)
                known = name in self.names or (name, id(node)) in self.typed
                if name and not _always(node, name, foreign) and not known:
                    self.dormant.setdefault(name, []).append((node, member))
                elif not _is_text(member):
                    self._keep(member)
            return
        self._read(node)

    def _read(self, node: ast.AST) -> None:
        for part in walk_code(node):
            if isinstance(part, ast.Name):
                self._variable(variable_of(part))
            elif isinstance(part, ast.Attribute):
                self._attribute(part)
            elif isinstance(part, ast.Constant) and isinstance(part.value, str) and self.by_text:
                self._name(part.value)


def member_name(node: ast.stmt) -> str:
    """Name of a method or field in a class body; empty for other statements."""
    if isinstance(node, FUNCTIONS):
        return node.name
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        return node.target.id
    return ""


def is_enum(node: ast.ClassDef) -> bool:
    """Whether a class lists named values."""
    return any(decorator_name(base) in ("Enum", "IntEnum", "StrEnum", "Flag") for base in node.bases)


def has_foreign_base(node: ast.ClassDef) -> bool:
    """Whether a class inherits from one outside of the package."""
    return any(
        (name := root_name(base)) is not None and not (variable_of(name).home and not variable_of(name).imported)
        for base in node.bases
    )


def is_record(node: ast.ClassDef) -> bool:
    """Whether the fields in a class body make its constructor."""
    return any(decorator_name(part) == "dataclass" for part in node.decorator_list) or any(
        decorator_name(base) == "NamedTuple" for base in node.bases
    )


def _always(owner: ast.ClassDef, name: str, foreign: bool) -> bool:
    if name.startswith("__") and name.endswith("__"):
        return True
    if any(isinstance(member, ast.AnnAssign) and member_name(member) == name for member in owner.body):
        return True
    return foreign and name in CALLED_FROM_OUTSIDE


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _tells(node: ast.stmt) -> Iterator[Variable]:
    """Variables whose objects a decorated definition registers itself with."""
    if isinstance(node, (*FUNCTIONS, ast.ClassDef)):
        for decorator in node.decorator_list:
            name = root_name(decorator)
            if name is not None and decorator_name(decorator) not in QUIET and variable_of(name).home:
                yield variable_of(name)


def shake(program: Program, roots: Iterable[Variable], facts: Any = None) -> Shaker:
    """Drop every statement, method and import that cannot be reached from ``roots``.

    Args:
        program: The program; it is changed.
        roots: What must live.
        facts: The `Facts` of the program as it is, where objects' classes shall count.
    """
    shaker = Shaker(program, facts)
    shaker.run(roots)
    for section in program.sections:
        section.body = [node for node in section.body if shaker.alive(node)]
        for node in section.body:
            if isinstance(node, ast.ClassDef):
                node.body = [member for member in node.body if shaker.alive(member)] or [ast.Pass()]
    program.sections = [section for section in program.sections if section.body]
    program.imports = {key: variable for key, variable in program.imports.items() if variable in shaker.variables}
    return shaker

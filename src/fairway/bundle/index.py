"""Where the parts of a program are defined and used: bindings of variables, classes, calls, stores of attributes."""

import ast
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from fairway.bundle.program import Program
from fairway.bundle.scopes import Variable, variable_of
from fairway.bundle.shake import CALLED_FROM_OUTSIDE, QUIET, decorator_name, has_foreign_base, walk_code

Function = ast.FunctionDef
REPLACERS = ("replace", "_replace")


@dataclass(eq=False)
class ClassInfo:
    """A class of the program."""

    node: ast.ClassDef
    variable: Variable
    foreign: bool
    bases: list["ClassInfo"] = field(default_factory=list)
    children: list["ClassInfo"] = field(default_factory=list)
    fields: dict[str, ast.AnnAssign] = field(default_factory=dict)
    methods: dict[str, Function] = field(default_factory=dict)
    stores: dict[str, list[ast.expr | None]] = field(default_factory=dict)
    """Attribute -> what methods assign to it; None for what is not a plain expression."""

    def lineage(self) -> Iterator["ClassInfo"]:
        """The class and its ancestors."""
        yield self
        for base in self.bases:
            yield from base.lineage()

    def family(self) -> Iterator["ClassInfo"]:
        """The class and its descendants."""
        yield self
        for child in self.children:
            yield from child.family()

    def find(self, table: str, name: str) -> Any:
        """The entry of a name in the nearest table of fields, methods or stores."""
        return next((getattr(one, table)[name] for one in self.lineage() if name in getattr(one, table)), None)


@dataclass
class Binding:
    """One place where a variable gets a value."""

    kind: str
    """assign, parameter, with, each (an element of a collection), or other."""
    value: ast.expr | None = None
    function: Any = None
    parameter: Any = None


@dataclass
class Index:
    """What is where."""

    program: Program
    classes: dict[Variable, ClassInfo] = field(default_factory=dict)
    functions: dict[Variable, Function] = field(default_factory=dict)
    owners: dict[int, ClassInfo] = field(default_factory=dict)
    """Function (by identity) -> the class that it is a method of."""
    bindings: dict[Variable, list[Binding]] = field(default_factory=dict)
    calls: dict[Variable, list[ast.Call]] = field(default_factory=dict)
    loads: Counter[Variable] = field(default_factory=Counter)
    """Uses of a variable; those as the function of a call are in ``calls`` too."""
    tests: Counter[Variable] = field(default_factory=Counter)
    """Uses of a class in ``isinstance``."""
    member_calls: dict[str, list[ast.Call]] = field(default_factory=dict)
    member_loads: dict[str, list[ast.Attribute]] = field(default_factory=dict)
    foreign_stores: set[str] = field(default_factory=set)
    """Attributes that are assigned from outside of their class."""
    replaced: set[str] = field(default_factory=set)
    """Fields that ``replace`` gives another value somewhere."""
    texts: set[str] = field(default_factory=set)
    dynamic: list[ast.Call] = field(default_factory=list)
    """Calls of ``getattr`` with a name that is computed."""
    lookups: dict[Variable, list[ast.Subscript]] = field(default_factory=dict)
    """Subscripts of a variable that are read."""

    open_bases: set[str] = field(default_factory=set)
    """Names of classes from outside that classes of the program inherit from."""

    def bind(self, variable: Variable, binding: Binding) -> None:
        """Note a binding."""
        self.bindings.setdefault(variable, []).append(binding)


def build(program: Program) -> Index:
    """The index of a program as it is now."""
    index = Index(program)
    for node in program.statements():
        if isinstance(node, ast.ClassDef):
            variable = variable_of(node)
            index.classes[variable] = ClassInfo(node, variable, has_foreign_base(node))
    for info in index.classes.values():
        _describe(info, index)
    for section in program.sections:
        for node in section.body:
            for part in walk_code(node):
                _note(part, index)
    return index


def _describe(info: ClassInfo, index: Index) -> None:
    for base in info.node.bases:
        for part in ast.walk(base):
            if isinstance(part, ast.Attribute):
                index.open_bases.add(part.attr)
            elif isinstance(part, ast.Name) and variable_of(part) not in index.classes:
                imported = variable_of(part).imported
                index.open_bases.add(imported[1] if imported else part.id)
        parent = index.classes.get(variable_of(base)) if isinstance(base, ast.Name) else None
        if parent is not None:
            info.bases.append(parent)
            parent.children.append(info)
    for member in info.node.body:
        if isinstance(member, ast.FunctionDef):
            info.methods[member.name] = member
            index.owners[id(member)] = info
        elif isinstance(member, ast.AnnAssign) and isinstance(member.target, ast.Name):
            info.fields[member.target.id] = member
        elif isinstance(member, ast.Assign):
            for target in member.targets:
                for part in ast.walk(target):
                    if isinstance(part, ast.Name):
                        info.stores.setdefault(part.id, []).append(member.value if part is target else None)


def _note(node: Any, index: Index) -> None:
    match node:
        case ast.FunctionDef():
            index.functions[variable_of(node)] = node
            _note_parameters(node, index)
        case ast.Lambda():
            _note_parameters(node, index)
        case ast.Assign():
            for target in node.targets:
                _store(target, node.value, index)
        case ast.AnnAssign() if node.value is not None:
            _store(node.target, node.value, index)
        case ast.AugAssign():
            _store(node.target, None, index)
            if isinstance(node.target, ast.Name):
                index.loads[variable_of(node.target)] += 1
        case ast.NamedExpr():
            _store(node.target, node.value, index)
        case ast.For() | ast.comprehension():
            _store(node.target, node.iter, index, kind="each")
        case ast.withitem() if node.optional_vars is not None:
            _store(node.optional_vars, node.context_expr, index, kind="with")
        case ast.ExceptHandler() | ast.MatchAs() | ast.MatchStar() if node.name:
            index.bind(variable_of(node), Binding("other"))
        case ast.Delete():
            for target in node.targets:
                _store(target, None, index)
        case ast.alias():
            index.bind(variable_of(node), Binding("other"))
        case ast.Name() if isinstance(node.ctx, ast.Load):
            index.loads[variable_of(node)] += 1
        case ast.Attribute():
            if isinstance(node.ctx, ast.Load):
                index.member_loads.setdefault(node.attr, []).append(node)
        case ast.Subscript() if isinstance(node.value, ast.Name) and isinstance(node.ctx, ast.Load):
            index.lookups.setdefault(variable_of(node.value), []).append(node)
        case ast.Call():
            _note_call(node, index)
        case ast.Constant() if isinstance(node.value, str):
            index.texts.add(node.value)
        case ast.MatchClass():
            index.texts.update(node.kwd_attrs)
        case _:
            pass


def _note_parameters(node: Any, index: Index) -> None:
    arguments = node.args
    for part in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs):
        index.bind(variable_of(part), Binding("parameter", function=node, parameter=part))
    for part in filter(None, (arguments.vararg, arguments.kwarg)):
        index.bind(variable_of(part), Binding("other"))


def _note_call(node: ast.Call, index: Index) -> None:
    function = node.func
    if isinstance(function, ast.Name):
        index.calls.setdefault(variable_of(function), []).append(node)
        if function.id == "isinstance":
            index.tests.update(variable_of(part) for part in ast.walk(node.args[1]) if isinstance(part, ast.Name))
        if function.id == "getattr" and not isinstance(node.args[1], ast.Constant):
            index.dynamic.append(node)
    elif isinstance(function, ast.Attribute):
        index.member_calls.setdefault(function.attr, []).append(node)
    imported = variable_of(function).imported if isinstance(function, ast.Name) else None
    name = imported[1] if imported else getattr(function, "attr", "")
    if name in REPLACERS:
        index.replaced |= {part.arg for part in node.keywords if part.arg}


def _store(target: ast.expr, value: ast.expr | None, index: Index, kind: str = "assign") -> None:
    kind = kind if value is not None else "other"
    if isinstance(target, ast.Name):
        index.bind(variable_of(target), Binding(kind, value))
    elif isinstance(target, ast.Attribute):
        owner = _owner_of_self(target.value, index)
        if owner is None:
            index.foreign_stores.add(target.attr)
        else:
            owner.stores.setdefault(target.attr, []).append(value if kind == "assign" else None)
    elif isinstance(target, ast.Tuple | ast.List):
        same = kind == "assign" and isinstance(value, ast.Tuple) and len(value.elts) == len(target.elts)
        plain = same and not any(isinstance(part, ast.Starred) for part in (*target.elts, *value.elts))  # type: ignore[union-attr]
        for place, part in enumerate(target.elts):
            _store(part, value.elts[place] if plain else None, index)  # type: ignore[union-attr]
    elif isinstance(target, ast.Starred):
        _store(target.value, None, index)


def _owner_of_self(node: ast.expr, index: Index) -> ClassInfo | None:
    """The class whose method has this name as its first parameter."""
    if isinstance(node, ast.Name):
        for binding in index.bindings.get(variable_of(node), ()):
            if binding.kind == "parameter" and is_self(binding, index):
                return index.owners.get(id(binding.function))
    return None


def is_self(binding: Binding, index: Index) -> bool:
    """Whether a parameter is the object of its method."""
    function = binding.function
    if id(function) not in index.owners:
        return False
    kinds = {decorator_name(part) for part in function.decorator_list}
    plain = [*function.args.posonlyargs, *function.args.args]
    return bool(plain) and plain[0] is binding.parameter and not kinds & {"staticmethod", "classmethod"}


def is_quiet(function: Function) -> bool:
    """Whether a function's decorators leave its calls alone."""
    allowed = QUIET - {"custom_op", "jit", "autotune", "property", "cached_property", "classmethod", "staticmethod"}
    return {decorator_name(part) for part in function.decorator_list} <= allowed and not getattr(function, "annotated", False)


def methods_called(name: str, index: Index) -> tuple[ClassInfo, Function] | None:
    """The one method of this name in the program, if all its uses are calls and nobody outside may call it."""
    found = [(info, info.methods[name]) for info in index.classes.values() if name in info.methods]
    if len(found) != 1 or name.startswith("__") or name in CALLED_FROM_OUTSIDE:
        return None
    info, function = found[0]
    calls = index.member_calls.get(name, [])
    if len(calls) != len(index.member_loads.get(name, [])) or not is_quiet(function) or name in index.texts:
        return None
    return info, function

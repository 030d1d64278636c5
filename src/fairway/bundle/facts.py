"""What can be said of an expression before a program runs: its class, the constants it may be, whether it may be None.

Annotations are believed, for the tests of the package check them at every call. A parameter annotated with a settings class
may be any instance of that class in the recipe; a field on which all those instances agree is a constant, unless some
living code builds further instances in which it may differ.
"""

import ast
import itertools
import operator
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from fairway.base.values import Value
from fairway.bundle.classes import Classes
from fairway.bundle.index import Binding, ClassInfo, Function, Index, is_quiet, is_self, methods_called
from fairway.bundle.scopes import variable_of
from fairway.bundle.shake import decorator_name, is_record

Known = dict[str, Any]
"""The values that an expression may have, by their type and text, so that 1, 1.0 and True are told apart."""

MOST_VALUES = 64
COMPARE = {
    ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt,
    ast.GtE: operator.ge, ast.Is: operator.is_, ast.IsNot: operator.is_not,
    ast.In: lambda left, right: left in right, ast.NotIn: lambda left, right: left not in right,
}  # fmt: skip
BINARY = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod, ast.LShift: operator.lshift, ast.RShift: operator.rshift,
    ast.BitAnd: operator.and_, ast.BitOr: operator.or_, ast.BitXor: operator.xor,
}  # fmt: skip
PURE_BUILTINS = {"len": len, "max": max, "min": min, "bool": bool, "int": int, "float": float, "tuple": tuple, "abs": abs}


def known(values: Iterable[Any]) -> Known:
    """The values by type and text."""
    return {f"{type(value).__name__} {value!r}": value for value in values}


class Facts(Classes):
    """Answers about the expressions of an indexed program, for one recipe."""

    def __init__(self, index: Index, recipe: Value) -> None:
        super().__init__(index)
        self.recipe = recipe
        self.instances: dict[ClassInfo, Known] = {}
        self.memo: dict[int, Known | None] = {}
        self.active: set[int] = set()
        self.cuts = 0
        self.tainted: set[tuple[ClassInfo, str]] = set()
        self._collect(recipe)
        self._collect_variants()
        self.tainted = self._taints()

    def _collect(self, value: Value) -> None:
        info = self.class_named(type(value).__module__, type(value).__name__)
        if info is not None:
            self.instances.setdefault(info, {}).update(known([value]))
        for name in value.__dataclass_fields__:
            item = getattr(value, name)
            if isinstance(item, Value):
                self._collect(item)

    def _collect_variants(self) -> None:
        """Add the instances that living code makes by ``replace`` from known ones, with known changes."""
        size = -1
        while size != (size := sum(map(len, self.instances.values()))):
            for call in self._replacements():
                found = self.values(call)
                for value in (found or {}).values():
                    if isinstance(value, Value):
                        self._collect(value)
            self.memo.clear()

    def _replacements(self) -> Iterable[ast.Call]:
        for variable, calls in self.index.calls.items():
            if variable.imported == ("dataclasses", "replace"):
                yield from calls

    def class_named(self, module: str, name: str) -> ClassInfo | None:
        """The class of this name, if it lives."""
        scope = self.index.program.scopes.get(module)
        return self.index.classes.get(scope.names[name]) if scope and name in scope.names else None

    def _taints(self) -> set[tuple[ClassInfo, str]]:
        """Fields in which living code may build settings unlike those of the recipe."""
        found: set[tuple[ClassInfo, str]] = set()
        for info in self.instances:
            for call in self.index.calls.get(info.variable, ()):
                given = {part.arg for part in call.keywords}
                found |= {(info, name) for name in info.fields if not hasattr(call, "settings") and name not in given}
                found |= {(info, name) for name in given if name and not hasattr(call, "settings")}
        for call in self._replacements():
            exact = self._replaced(call)
            owner = self.class_of(call.args[0])[0]
            for info in self.instances if exact is None else ():
                if owner is None or owner is info:
                    found |= {(info, part.arg) for part in call.keywords if part.arg in info.fields and self._fits(info, part)}
        self.memo.clear()
        return found

    def _fits(self, info: ClassInfo, given: ast.keyword) -> bool:
        """Whether a value may be that of a field, by their classes."""
        wanted, found = self.annotated(info.fields[given.arg or ""].annotation)[0], self.class_of(given.value)[0]
        return wanted is None or found is None or wanted is found

    def _replaced(self, call: ast.Call) -> Known | None:
        """What ``replace`` makes of known settings."""
        names = [part.arg for part in call.keywords]
        if len(call.args) != 1 or None in names:
            return None

        def changed(value: Any, *given: Any) -> Any:
            if not isinstance(value, Value):
                raise TypeError("settings only")
            return replace(value, **dict(zip(names, given, strict=True)))  # type: ignore[arg-type]

        return self._combined([call.args[0], *(part.value for part in call.keywords)], changed)

    def values(self, node: Any) -> Known | None:
        """The constants or settings that an expression may be; None if they are not known."""
        key = id(node)
        if key in self.memo:
            return self.memo[key]
        if key in self.active:
            self.cuts += 1
            return None
        if hasattr(node, "settings"):
            return known([node.settings])
        before = self.cuts
        self.active.add(key)
        method = getattr(self, f"_{type(node).__name__}", None)
        found = method(node) if method else None
        self.active.discard(key)
        if found is None and isinstance(node, ast.Name | ast.Attribute | ast.Call) and is_read(node):
            info, optional = self.class_of(node)
            if info in self.instances and not optional:
                found = self.instances[info]
        if found is not None and len(found) > MOST_VALUES:
            found = None
        # What was cut short because it depends on itself may be known better from elsewhere.
        if not self.active or self.cuts == before:
            self.memo[key] = found
            self.seen.append(node)
        return found

    def one(self, node: Any) -> tuple[bool, Any]:
        """Whether an expression is one known value, and that value."""
        found = self.values(node)
        return (True, next(iter(found.values()))) if found is not None and len(found) == 1 else (False, None)

    def truth(self, node: Any) -> bool | None:
        """Whether an expression counts as true; None if that is not known."""
        found = self.values(node)
        if found:
            kinds = {bool(value) for value in found.values()}
            return kinds.pop() if len(kinds) == 1 else None
        info, optional = self.class_of(node)
        if info is not None and not optional and not info.foreign and not is_collection(info) and is_pure_path(node):
            return True
        return None

    def never_none(self, node: Any) -> bool:
        """Whether an expression cannot be None."""
        key = id(node)
        if key in self.active:
            return True
        if isinstance(node, ast.Constant):
            return node.value is not None
        if isinstance(
            node, ast.Tuple | ast.List | ast.Dict | ast.Set | ast.JoinedStr | ast.Lambda | ast.ListComp | ast.DictComp
        ):
            return True
        self.active.add(key)
        try:
            if isinstance(node, ast.IfExp):
                return self.never_none(node.body) and self.never_none(node.orelse)
            if isinstance(node, ast.Call):
                function = self.called(node)
                return isinstance(function, ClassInfo) or (function is not None and self._returns_something(function))
            if isinstance(node, ast.Name):
                bindings = self.index.bindings.get(variable_of(node), [])
                return bool(bindings) and all(self._bound_to_something(binding) for binding in bindings)
            info, optional = self.class_of(node)
            return info is not None and not optional
        finally:
            self.active.discard(key)

    def _bound_to_something(self, binding: Binding) -> bool:
        if binding.kind == "assign":
            return self.never_none(binding.value)
        if binding.kind == "parameter":
            return is_self(binding, self.index) or self._excludes_none(binding.parameter.annotation)
        return False

    def _returns_something(self, function: Function) -> bool:
        if self._excludes_none(function.returns):
            return not any(decorator_name(part) == "contextmanager" for part in function.decorator_list)
        returns = [part for part in ast.walk(function) if isinstance(part, ast.Return)]
        ends = bool(function.body) and isinstance(function.body[-1], ast.Return | ast.Raise)
        return ends and bool(returns) and all(part.value is not None and self.never_none(part.value) for part in returns)

    def _excludes_none(self, annotation: Any) -> bool:
        """Whether an annotation is there and leaves no room for None."""
        if annotation is None or isinstance(annotation, ast.Constant):
            return isinstance(annotation, ast.Constant) and isinstance(annotation.value, str) and "None" not in annotation.value
        if isinstance(annotation, ast.Subscript):
            return self._excludes_none(annotation.value)
        if isinstance(annotation, ast.Name):
            variable = variable_of(annotation)
            if variable in self.index.classes or variable.kind == "builtin":
                return annotation.id != "object"
            return variable.imported is not None and variable.imported[1] not in ("Any", "Optional", "Union", "Annotated")
        return isinstance(annotation, ast.Attribute)

    def _Constant(self, node: ast.Constant) -> Known | None:
        return None if isinstance(node.value, bytes) or node.value is Ellipsis else known([node.value])

    def _Tuple(self, node: ast.Tuple) -> Known | None:
        items: list[Any] = []
        for part in node.elts:
            starred = isinstance(part, ast.Starred)
            single, value = self.one(part.value if isinstance(part, ast.Starred) else part)
            if not single or (starred and not isinstance(value, tuple)):
                return None
            items += value if starred else [value]
        return known([tuple(items)]) if isinstance(node.ctx, ast.Load) else None

    def _Name(self, node: ast.Name) -> Known | None:
        if not isinstance(node.ctx, ast.Load):
            return None
        variable = variable_of(node)
        if variable.kind == "class":
            return None
        return self._union(self._bound(binding) for binding in self.index.bindings.get(variable, []))

    def _union(self, parts: Iterable[Known | None]) -> Known | None:
        total: Known = {}
        empty = True
        for part in parts:
            if part is None:
                return None
            empty = False
            total |= part
        return None if empty or len(total) > MOST_VALUES else total

    def _bound(self, binding: Binding) -> Known | None:
        if binding.kind == "assign":
            return self.values(binding.value)
        if binding.kind == "each":
            single, items = self.one(binding.value)
            if single and isinstance(items, tuple):
                return known(items)
            if isinstance(binding.value, ast.Tuple):
                return self._union(self.values(part) for part in binding.value.elts)
            return None
        if binding.kind == "parameter":
            return self._passed(binding)
        return None

    def _passed(self, binding: Binding) -> Known | None:
        calls = self.calls_of(binding.function)
        if not calls or is_self(binding, self.index):
            return None
        arguments = [argument_of(call, binding.function, binding.parameter, self.index) for call in calls]
        same = [
            part
            for part in arguments
            if not (isinstance(part, ast.Name) and variable_of(part) is variable_of(binding.parameter))
        ]
        return self._union(None if part is None else self.values(part) for part in same)

    def calls_of(self, function: Any) -> list[ast.Call] | None:
        """All calls of a function or constructor; None where others may call it too."""
        if isinstance(function, ast.Lambda) or not is_quiet(function):
            return None
        owner = self.index.owners.get(id(function))
        if owner is None:
            variable = variable_of(function)
            calls = self.index.calls.get(variable, [])
            return (
                calls if len(calls) == self.index.loads[variable] and len(self.index.bindings.get(variable, [])) == 0 else None
            )
        if function.name == "__init__":
            return None if owner.children or owner.bases else self.constructions(owner)
        found = methods_called(function.name, self.index)
        return self.index.member_calls.get(function.name, []) if found else None

    def constructions(self, owner: ClassInfo) -> list[ast.Call] | None:
        """All calls that build an instance of a class; None where others may build one."""
        calls = self.index.calls.get(owner.variable, [])
        return calls if len(calls) == self.index.loads[owner.variable] - self.index.tests[owner.variable] else None

    def _Attribute(self, node: ast.Attribute) -> Known | None:
        if not isinstance(node.ctx, ast.Load):
            return None
        base = self.values(node.value)
        if base is not None and base and all(isinstance(value, Value) for value in base.values()):
            return self._settings(base, node.attr)
        owner, _ = self.class_of(node.value)
        if owner is None or owner in self.instances or node.attr in self.index.foreign_stores | self.index.replaced:
            return None
        if len(list(owner.family())) > 1 and any(node.attr in one.stores for one in owner.family() if one is not owner):
            return None
        stores = owner.find("stores", node.attr)
        if stores is not None and owner.find("fields", node.attr) is None:
            return None if None in stores else self._union(self.values(value) for value in stores)
        if node.attr in owner.fields and is_record(owner.node) and not owner.bases and not owner.children and stores is None:
            calls = self.constructions(owner)
            return self._union(self._field(call, owner, node.attr) for call in calls) if calls else None
        return None

    def _field(self, call: ast.Call, owner: ClassInfo, name: str) -> Known | None:
        if any(part.arg is None for part in call.keywords) or any(isinstance(part, ast.Starred) for part in call.args):
            return None
        given = next((part.value for part in call.keywords if part.arg == name), None)
        place = list(owner.fields).index(name)
        value = given or (call.args[place] if place < len(call.args) else owner.fields[name].value)
        return self.values(value) if value is not None else None

    def _settings(self, base: Known, name: str) -> Known | None:
        found: Known = {}
        for value in base.values():
            info = self.class_named(type(value).__module__, type(value).__name__)
            if info is None or (info, name) in self.tainted or not hasattr(value, name):
                return None
            item = getattr(value, name)
            if callable(item):
                return None
            if not isinstance(getattr(type(value), name, None), property) and name not in value.__dataclass_fields__:
                return None
            if isinstance(getattr(type(value), name, None), property) and any(owner is info for owner, _ in self.tainted):
                return None
            found |= known([item])
        return found

    def _combined(self, parts: list[Any], function: Any) -> Known | None:
        sets = [self.values(part) for part in parts]
        if any(found is None for found in sets):
            return None
        results = []
        for combination in itertools.product(*(found.values() for found in sets if found is not None)):
            try:
                results.append(function(*combination))
            except (TypeError, ValueError, ArithmeticError, LookupError):
                return None
            if len(results) > MOST_VALUES * 4:
                return None
        return known(results)

    def _Compare(self, node: ast.Compare) -> Known | None:
        if len(node.ops) == 1 and isinstance(node.ops[0], ast.Is | ast.IsNot):
            (right,) = node.comparators
            if isinstance(right, ast.Constant) and right.value is None and self.values(node.left) is None:
                return known([isinstance(node.ops[0], ast.IsNot)]) if self.never_none(node.left) else None

        def compare(*values: Any) -> bool:
            pairs = zip(itertools.pairwise(values), node.ops, strict=True)
            return all(COMPARE[type(sign)](*pair) for pair, sign in pairs)

        return self._combined([node.left, *node.comparators], compare)

    def _BinOp(self, node: ast.BinOp) -> Known | None:
        function = BINARY.get(type(node.op))  # type: ignore[call-overload]
        return self._combined([node.left, node.right], function) if function else None

    def _UnaryOp(self, node: ast.UnaryOp) -> Known | None:
        if isinstance(node.op, ast.Not):
            truth = self.truth(node.operand)
            if truth is not None:
                return known([not truth])
            return known([True, False])
        return self._combined([node.operand], operator.neg) if isinstance(node.op, ast.USub) else None

    def _BoolOp(self, node: ast.BoolOp) -> Known | None:
        wanted = isinstance(node.op, ast.Or)
        total: Known = {}
        for place, part in enumerate(node.values):
            found, truth = self.values(part), self.truth(part)
            if truth is wanted:
                return total | found if found is not None else None
            if found is None:
                if truth is None:
                    return None
                found = {}
            last = place == len(node.values) - 1
            total |= {key: value for key, value in found.items() if last or bool(value) is wanted}
        return total or None

    def _IfExp(self, node: ast.IfExp) -> Known | None:
        truth = self.truth(node.test)
        if truth is not None:
            return self.values(node.body if truth else node.orelse)
        return self._union([self.values(node.body), self.values(node.orelse)])

    def _Subscript(self, node: ast.Subscript) -> Known | None:
        if isinstance(node.slice, ast.Slice) or not isinstance(node.ctx, ast.Load):
            return None
        return self._combined([node.value, node.slice], operator.getitem)

    def _Call(self, node: ast.Call) -> Known | None:
        function = node.func
        if isinstance(function, ast.Name) and variable_of(function).kind == "builtin" and not node.keywords:
            pure = PURE_BUILTINS.get(function.id)
            return self._combined(list(node.args), pure) if pure and node.args else None
        if isinstance(function, ast.Name) and variable_of(function).imported == ("dataclasses", "replace"):
            return self._replaced(node)
        called = self.called(node)
        if not isinstance(called, ast.FunctionDef) or id(called) in self.index.owners or not is_quiet(called):
            return None
        if all(isinstance(part, ast.Pass) for part in called.body):
            return known([None])
        returned = called.body[0].value if len(called.body) == 1 and isinstance(called.body[0], ast.Return) else None
        return self.values(returned) if returned is not None and not any_yield(called) else None


def any_yield(function: Function) -> bool:
    """Whether a function is a generator."""
    return any(isinstance(part, ast.Yield | ast.YieldFrom) for part in ast.walk(function))


def is_pure_path(node: ast.expr) -> bool:
    """Whether an expression is a name with attributes."""
    return all(isinstance(part, ast.Name | ast.Attribute | ast.expr_context) for part in ast.walk(node))


def is_read(node: Any) -> bool:
    """Whether an expression is read, not assigned."""
    return isinstance(getattr(node, "ctx", None) or ast.Load(), ast.Load)


def is_collection(info: ClassInfo) -> bool:
    """Whether instances of a class may count as false."""
    relatives = [*info.lineage(), *info.family()]
    return any({"__bool__", "__len__"} & one.methods.keys() or one.foreign for one in relatives)


def argument_of(call: ast.Call, function: Any, parameter: Any, index: Index) -> ast.expr | None:
    """What a call passes for a parameter, or its default; None if that cannot be said."""
    if any(isinstance(part, ast.Starred) for part in call.args) or any(part.arg is None for part in call.keywords):
        return None
    for part in call.keywords:
        if part.arg == parameter.arg:
            return part.value
    arguments = function.args
    if parameter in arguments.kwonlyargs:
        return arguments.kw_defaults[arguments.kwonlyargs.index(parameter)]
    plain = [*arguments.posonlyargs, *arguments.args]
    place = plain.index(parameter)
    shift = 1 if id(function) in index.owners and not _is_static(function) else 0
    if place - shift < len(call.args):
        return call.args[place - shift]
    missing = len(plain) - len(arguments.defaults)
    return arguments.defaults[place - missing] if place >= missing else None


def _is_static(function: Any) -> bool:
    return any(decorator_name(part) == "staticmethod" for part in function.decorator_list)


def is_settings_class(info: ClassInfo) -> bool:
    """Whether a class has fields alone, and methods that need no others."""
    return is_record(info.node) and not info.bases and not info.children and "__post_init__" not in info.methods

"""Take out what folding has left idle: unread variables, attributes, parameters and fields, and statements after an exit."""

import ast
from typing import Any

from fairway.bundle.facts import Facts
from fairway.bundle.fold import is_pure
from fairway.bundle.index import ClassInfo, is_self
from fairway.bundle.program import Program
from fairway.bundle.replaced import LEFT_OUT
from fairway.bundle.scopes import Variable, variable_of
from fairway.bundle.shake import decorator_name, is_record

EXITS = (ast.Return, ast.Raise, ast.Break, ast.Continue)


class Simplifier(ast.NodeTransformer):
    """Removes idle statements, and the arguments and parameters that nobody reads."""

    def __init__(self, facts: Facts, *, look_only: bool = False) -> None:
        self.facts, self.index = facts, facts.index
        self.changes = 0
        if not look_only:
            self._find_idle_parameters()
            self._find_idle_fields()

    # What nobody reads

    def _find_idle_parameters(self) -> None:
        for function in self.index.functions.values():
            arguments = function.args
            if arguments.vararg:
                continue
            for part in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs):
                if not self._unread(variable_of(part)) or len(self.index.bindings[variable_of(part)]) > 1:
                    continue
                calls = self.droppable(function)
                if calls is None:
                    continue
                given = [self._argument(call, function, part) for call in calls]
                if any(item is False or (item is not None and not is_pure(item)) for item in given):
                    continue
                self._drop(function, part, calls, given)

    def _unread(self, variable: Variable) -> bool:
        return self.index.loads[variable] == 0

    def droppable(self, function: Any) -> list[ast.Call] | None:
        """Calls of a function whose parameters can change; None where they cannot."""
        calls = self.facts.calls_of(function)
        owner = self.index.owners.get(id(function))
        if owner is not None and function.name != "__init__" and calls is not None:
            families = {id(info) for info in owner.family()}
            for call in calls:
                receiver = call.func.value if isinstance(call.func, ast.Attribute) else None
                found = self.facts.class_of(receiver)[0] if receiver is not None else None
                if found is None or (id(found) not in families and found not in owner.lineage()):
                    return None
        return calls

    def _argument(self, call: ast.Call, function: Any, parameter: ast.arg) -> Any:
        """What a call passes for a parameter; None if nothing, False if that cannot be said."""
        if any(isinstance(part, ast.Starred) for part in call.args) or any(part.arg is None for part in call.keywords):
            return False
        for part in call.keywords:
            if part.arg == parameter.arg:
                return part.value
        plain = [*function.args.posonlyargs, *function.args.args]
        if parameter not in plain:
            return None
        shift = 1 if any(is_self(binding, self.index) for binding in self.index.bindings[variable_of(plain[0])]) else 0
        if id(function) in self.index.owners and not shift:
            return False
        place = plain.index(parameter) - shift
        if place < 0:
            return False
        return call.args[place] if place < len(call.args) else None

    def _drop(self, function: Any, parameter: ast.arg, calls: list[ast.Call], given: list[Any]) -> None:
        self.changes += 1
        for call, item in zip(calls, given, strict=True):
            if item is not None:
                call.args = [part for part in call.args if part is not item]
                call.keywords = [part for part in call.keywords if part.value is not item]
        _remove_parameter(function.args, parameter)

    def _find_idle_fields(self) -> None:
        """Fields of records that nobody reads, and whose values cannot tell two records apart."""
        for info in self.index.classes.values():
            if not is_record(info.node) or info.bases or info.children or info in self.facts.instances:
                continue
            calls = self.facts.constructions(info)
            if calls is None or not _plain_record(info):
                continue
            for name in info.fields:
                if self.is_read(info, name) or name in self.index.replaced:
                    continue
                given = [_field_argument(call, info, name) for call in calls]
                if not any(item is False or (item is not None and not is_pure(item)) for item in given) and self._constant(
                    info, name
                ):
                    self._drop_field(info, name, calls, given)
                    break

    def _constant(self, info: ClassInfo, name: str) -> bool:
        """Whether a field is the same in all records, or records are never compared."""
        if any(part.arg == "eq" for decorator in info.node.decorator_list for part in getattr(decorator, "keywords", ())):
            return True
        kind = self.facts.annotated(info.fields[name].annotation)[0]
        return kind in self.facts.instances or info.variable.original in NEVER_COMPARED

    def _drop_field(self, info: ClassInfo, name: str, calls: list[ast.Call], given: list[Any]) -> None:
        self.changes += 1
        info.node.body = [part for part in info.node.body if part is not info.fields[name]]
        for call, item in zip(calls, given, strict=True):
            if item is not None:
                call.args = [part for part in call.args if part is not item]
                call.keywords = [part for part in call.keywords if part.value is not item]

    def is_read(self, info: ClassInfo, name: str) -> bool:
        """Whether somebody may read an attribute of a class."""
        for load in self.index.member_loads.get(name, ()):
            found = self.facts.class_of(load.value)[0]
            if found is None or found in info.lineage() or found in info.family():
                return True
        for call in self.index.dynamic:
            found = self.facts.class_of(call.args[0])[0]
            if (found is None or found in info.lineage() or found in info.family()) and name in self.index.texts:
                return True
        return name in self.index.foreign_stores

    # Statements

    def visit_Assign(self, node: ast.Assign) -> Any:
        self.generic_visit(node)
        if len(node.targets) != 1:
            return node
        (target,) = node.targets
        if self._idle_target(target) and is_pure(node.value):
            self.changes += 1
            return None
        same = isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple) and len(target.elts) == len(node.value.elts)
        if not same or any(isinstance(part, ast.Starred) for part in (*target.elts, *node.value.elts)):  # type: ignore[attr-defined]
            return node
        pairs = list(zip(target.elts, node.value.elts, strict=True))  # type: ignore[attr-defined]
        kept = [pair for pair in pairs if not (self._idle_target(pair[0]) and is_pure(pair[1]))]
        self.changes += len(kept) < len(pairs)
        if not kept:
            return None
        if len(kept) == 1:
            return ast.Assign([kept[0][0]], kept[0][1])
        target.elts = [part for part, _ in kept]  # type: ignore[attr-defined]
        node.value.elts = [part for _, part in kept]  # type: ignore[attr-defined]
        return node

    def _idle_target(self, target: ast.expr) -> bool:
        if isinstance(target, ast.Name):
            variable = variable_of(target)
            return variable.kind == "local" and self._unread(variable)
        if isinstance(target, ast.Attribute) and isinstance(target.value, ast.Name):
            owner = self.facts.class_of(target.value)[0]
            first = any(is_self(binding, self.index) for binding in self.index.bindings.get(variable_of(target.value), ()))
            if owner is None or not first or any(one.foreign for one in owner.lineage()):
                return False
            return not any(self.is_read(one, target.attr) for one in owner.family()) and target.attr not in self.index.texts
        return False

    def visit_Expr(self, node: ast.Expr) -> Any:
        call = node.value
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr in LEFT_OUT:
            self.changes += 1
            return None
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and variable_of(call.func).original == "nothing":
            self.changes += 1
            return None
        self.generic_visit(node)
        if is_pure(node.value) and not isinstance(node.value, ast.Yield):
            self.changes += 1
            return None
        return node

    def visit_For(self, node: ast.For) -> Any:
        self.generic_visit(node)
        if _empty(node.body) and not node.orelse and is_pure(node.iter):
            self.changes += 1
            return None
        return node

    def visit_If(self, node: ast.If) -> Any:
        self.generic_visit(node)
        if _empty(node.body) and _empty(node.orelse) and is_pure(node.test):
            self.changes += 1
            return None
        if _empty(node.body) and node.orelse:
            node.test, node.body, node.orelse = _negated(node.test), node.orelse, []
        elif node.orelse and _empty(node.orelse):
            node.orelse = []
        return node

    def generic_visit(self, node: Any) -> Any:
        """Visit, then drop what follows an exit, and ``pass`` beside other statements."""
        super().generic_visit(node)
        for name in ("body", "orelse", "finalbody"):
            body = getattr(node, name, None)
            if isinstance(body, list) and ((body and isinstance(body[0], ast.stmt)) or (name == "body" and not body)):
                setattr(node, name, self._tidy(body) or ([ast.Pass()] if name == "body" else []))
        return node

    def _tidy(self, body: list[ast.stmt]) -> list[ast.stmt]:
        kept: list[ast.stmt] = []
        for part in body:
            kept.append(part)
            if isinstance(part, EXITS):
                break
        filled = [part for part in kept if not isinstance(part, ast.Pass)]
        self.changes += len(filled or kept[:1]) < len(body)
        return filled or kept[:1]


NEVER_COMPARED = frozenset(
    {"Walk", "Training", "PackedModel", "Machine", "Dataset", "Plan", "ScoredText", "QuantizedState", "ArtifactReport",
     "TensorReport", "ByteBudget", "PassResult", "Choice", "PublishedExport", "Stream"}
)  # fmt: skip
"""Records that are passed around, and never compared or used as keys."""


def _empty(body: list[ast.stmt]) -> bool:
    return all(isinstance(part, ast.Pass) for part in body)


def _negated(node: ast.expr) -> ast.expr:
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        return node.operand
    return ast.UnaryOp(ast.Not(), node)


def _plain_record(info: ClassInfo) -> bool:
    """Whether a record is a dataclass whose constructor sets its fields and does no more."""
    kinds = {decorator_name(part) for part in info.node.decorator_list}
    return "dataclass" in kinds and "__init__" not in info.methods


def _field_argument(call: ast.Call, info: ClassInfo, name: str) -> Any:
    if any(isinstance(part, ast.Starred) for part in call.args) or any(part.arg is None for part in call.keywords):
        return False
    for part in call.keywords:
        if part.arg == name:
            return part.value
    place = list(info.fields).index(name)
    return call.args[place] if place < len(call.args) else None


def _remove_parameter(arguments: ast.arguments, parameter: ast.arg) -> None:
    if parameter in arguments.kwonlyargs:
        place = arguments.kwonlyargs.index(parameter)
        del arguments.kwonlyargs[place], arguments.kw_defaults[place]
        return
    plain = [*arguments.posonlyargs, *arguments.args]
    place = plain.index(parameter) - (len(plain) - len(arguments.defaults))
    if place >= 0:
        del arguments.defaults[place]
    for listed in (arguments.posonlyargs, arguments.args):
        if parameter in listed:
            listed.remove(parameter)


def simplify(program: Program, facts: Facts) -> int:
    """Simplify every statement once; returns the number of changes."""
    simplifier = Simplifier(facts)
    for section in program.sections:
        section.body = [kept for node in section.body if (kept := simplifier.visit(node)) is not None]
    return simplifier.changes

"""Put constants in place of expressions that can only have one value, and drop branches that cannot be taken."""

import ast
import math
from typing import Any

from fairway.base.values import Value, to_dict
from fairway.bundle.facts import COMPARE, Facts, is_read
from fairway.bundle.program import Program
from fairway.bundle.scopes import Variable, variable_of

LONGEST_TEXT = 24
"""Characters of a module's text constant up to which it is put where it is used."""


def constant(value: Any) -> Any:
    """Expression of a constant; None where it has no short one."""
    if isinstance(value, tuple):
        parts = [constant(item) for item in value]
        return None if None in parts else ast.Tuple(parts, ast.Load())
    if isinstance(value, bool | str) or value is None:
        return ast.Constant(value)
    if isinstance(value, int | float) and math.isfinite(value):
        negative = value < 0 or str(value).startswith("-")
        return ast.UnaryOp(ast.USub(), ast.Constant(-value)) if negative else ast.Constant(value)
    return None


def document(value: Any) -> ast.expr:
    """Expression of a JSON value."""
    if isinstance(value, dict):
        return ast.Dict([ast.Constant(key) for key in value], [document(item) for item in value.values()])
    if isinstance(value, list | tuple):
        return ast.List([document(item) for item in value], ast.Load())
    return constant(value)


def _formatted(part: Any) -> str | None:
    """Text of a part of a formatted string, if it is known."""
    if isinstance(part, ast.Constant):
        return str(part.value)
    if not isinstance(part.value, ast.Constant):
        return None
    spec = (
        ""
        if part.format_spec is None
        else _formatted(part.format_spec.values[0])
        if len(part.format_spec.values) == 1
        else None
    )
    value = {-1: part.value.value, 114: repr(part.value.value), 115: str(part.value.value)}.get(part.conversion)
    return None if spec is None else format(value, spec)


class Folder(ast.NodeTransformer):
    """Folds the statements of one program."""

    def __init__(self, facts: Facts, program: Program) -> None:
        self.facts = facts
        self.changes = 0
        self.gone: dict[Variable, set[str]] = {}
        """Values that a variable cannot have any more at this place."""
        self.to_dict = program.scopes["fairway.base.values"].names["to_dict"]

    def visit(self, node: Any) -> Any:
        """Fold an expression or visit what is in a statement."""
        if isinstance(node, ast.expr) and not isinstance(node, ast.Constant):
            found = self._folded(node)
            if found is not None:
                self.changes += 1
                return found
        return super().visit(node)

    def _folded(self, node: ast.expr) -> ast.expr | None:
        negation = isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not)
        if not is_read(node) or (isinstance(node, ast.Tuple | ast.UnaryOp) and not negation) or not _arguments_are_pure(node):
            return None
        single, value = self.facts.one(node)
        if not single or isinstance(value, Value):
            return None
        if isinstance(node, ast.Name) and isinstance(value, str) and len(value) > LONGEST_TEXT:
            return None
        if isinstance(node, ast.Name) and isinstance(value, tuple) and len(repr(value)) > LONGEST_TEXT:
            return None
        return constant(value)

    def visit_arg(self, node: ast.arg) -> ast.arg:
        """Leave annotations alone."""
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        """Leave annotations alone."""
        returns, node.returns = node.returns, None
        self.generic_visit(node)
        node.returns = returns
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AnnAssign:
        if node.value is not None:
            node.value = self.visit(node.value)
        return node

    def visit_Assign(self, node: ast.Assign) -> ast.Assign:
        """A table that is only ever looked up loses the entries that nobody can look up."""
        self.generic_visit(node)
        (target,) = node.targets if len(node.targets) == 1 else (None,)
        if isinstance(target, ast.Name) and isinstance(node.value, ast.Dict) and variable_of(target).kind == "global":
            wanted = self._looked_up(variable_of(target))
            keep = [
                wanted is None or not isinstance(key, ast.Constant) or f"{type(key.value).__name__} {key.value!r}" in wanted
                for key in node.value.keys
            ]
            self.changes += not all(keep)
            node.value.keys = [key for key, kept in zip(node.value.keys, keep, strict=True) if kept]
            node.value.values = [value for value, kept in zip(node.value.values, keep, strict=True) if kept]
        return node

    def _looked_up(self, variable: Variable) -> set[str] | None:
        """Keys with which a table may be looked up; None if it may be used in another way."""
        index = self.facts.index
        places = index.lookups.get(variable, [])
        if not places or len(places) != index.loads[variable] or len(index.bindings.get(variable, ())) != 1:
            return None
        found = [self.facts.values(place.slice) for place in places]
        return None if None in found else {key for known in found if known for key in known}

    def visit_FormattedValue(self, node: ast.FormattedValue) -> ast.FormattedValue:
        """A format stays a formatted string."""
        node.value = self.visit(node.value)
        if node.format_spec is not None:
            self.generic_visit(node.format_spec)
        return node

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.expr:
        """Constants in formatted text become part of the text."""
        self.generic_visit(node)
        parts: list[Any] = []
        for part in node.values:
            text = _formatted(part)
            if text is not None and parts and isinstance(parts[-1], ast.Constant):
                parts[-1] = ast.Constant(str(parts[-1].value) + text)
            else:
                parts.append(part if text is None else ast.Constant(text))
        if len(parts) == 1 and isinstance(parts[0], ast.Constant):
            return parts[0]
        node.values = parts
        return node

    def visit_Call(self, node: ast.Call) -> ast.expr:
        if isinstance(node.func, ast.Name) and variable_of(node.func) is self.to_dict and len(node.args) == 1:
            single, value = self.facts.one(node.args[0])
            if single and isinstance(value, Value):
                self.changes += 1
                return document(to_dict(value))
        self.generic_visit(node)
        return node

    def visit_Subscript(self, node: ast.Subscript) -> ast.expr:
        entry = self._entry(node)
        if entry is not None:
            self.changes += 1
            return self.visit(entry)
        self.generic_visit(node)
        return node

    def _entry(self, node: ast.Subscript) -> ast.expr | None:
        """The entry of a table that is only ever looked up, where the key is known."""
        if not isinstance(node.value, ast.Name) or not isinstance(node.ctx, ast.Load):
            return None
        index, variable = self.facts.index, variable_of(node.value)
        bindings = index.bindings.get(variable, [])
        table = bindings[0].value if len(bindings) == 1 and bindings[0].kind == "assign" else None
        single, key = self.facts.one(node.slice)
        if not isinstance(table, ast.Dict) or not single or index.loads[variable] != len(index.lookups.get(variable, ())):
            return None
        entries = [
            item for name, item in zip(table.keys, table.values, strict=True)
            if isinstance(name, ast.Constant) and name.value == key and type(name.value) is type(key)
        ]  # fmt: skip
        if len(entries) != 1 or not all(isinstance(name, ast.Constant) for name in table.keys):
            return None
        (entry,) = entries
        if isinstance(entry, ast.Name):
            copy: Any = ast.Name(entry.id, ast.Load())
            copy.variable = entry.variable  # type: ignore[attr-defined]
            return copy
        return entry if index.loads[variable] == 1 else None

    def visit_BoolOp(self, node: ast.BoolOp) -> ast.expr:
        stop = isinstance(node.op, ast.Or)
        kept: list[ast.expr] = []
        for part in node.values:
            truth = self.facts.truth(part)
            if truth is (not stop) and part is not node.values[-1] and is_pure(part):
                continue
            kept.append(part)
            if truth is stop:
                break
        self.changes += len(kept) < len(node.values)
        if len(kept) == 1:
            return self.visit(kept[0])
        node.values = kept
        self.generic_visit(node)
        return node

    def visit_IfExp(self, node: ast.IfExp) -> ast.expr:
        truth = self.facts.truth(node.test)
        if truth is not None and is_pure(node.test):
            self.changes += 1
            return self.visit(node.body if truth else node.orelse)
        self.generic_visit(node)
        return node

    def visit_If(self, node: ast.If) -> Any:
        truth = self._truth_here(node.test)
        if truth is not None and is_pure(node.test):
            self.changes += 1
            return self._block(node.body if truth else node.orelse)
        node.test = self._as_test(node.test)
        return self._blocks(node)

    def _as_test(self, node: ast.expr) -> ast.expr:
        """An expression of which only the truth is wanted: operands that never decide can go, the last one too."""
        if isinstance(node, ast.BoolOp):
            neutral = isinstance(node.op, ast.And)
            kept = [part for part in node.values if self.facts.truth(part) is not neutral or not is_pure(part)]
            if kept and len(kept) < len(node.values):
                self.changes += 1
                node.values = kept
                return kept[0] if len(kept) == 1 else node
        return node

    def _truth_here(self, test: ast.expr) -> bool | None:
        """Truth of a test where earlier tests of this block have left, for what they accept."""
        truth = self.facts.truth(test)
        tested = _tested(test)
        if truth is not None or tested is None or not self.gone.get(tested[0]):
            return truth
        found = self.facts.values(tested[1])
        if found is None:
            return None
        kinds = {tested[2](value) for key, value in found.items() if key not in self.gone[tested[0]]}
        return kinds.pop() if len(kinds) == 1 else None

    def _note_exit(self, node: ast.stmt) -> None:
        """After ``if x == 1: return`` x is no longer 1."""
        if isinstance(node, ast.If) and not node.orelse and isinstance(node.body[-1], ast.Return | ast.Raise | ast.Continue):
            tested = _tested(node.test)
            found = self.facts.values(tested[1]) if tested else None
            if tested and found and len(self.facts.index.bindings.get(tested[0], ())) == 1:
                self.gone.setdefault(tested[0], set()).update(key for key, value in found.items() if tested[2](value))

    def generic_visit(self, node: Any) -> Any:
        """Visit all parts; blocks statement by statement, with what earlier exits tell of the later ones."""
        for name, value in ast.iter_fields(node):
            if isinstance(value, list) and value and isinstance(value[0], ast.stmt):
                before = {variable: set(keys) for variable, keys in self.gone.items()}
                setattr(node, name, self._block(value) or ([ast.Pass()] if name == "body" else []))
                self.gone = before
            elif isinstance(value, list):
                setattr(node, name, [self.visit(part) if isinstance(part, ast.AST) else part for part in value])
            elif isinstance(value, ast.AST):
                setattr(node, name, self.visit(value))
        return node

    def visit_While(self, node: ast.While) -> Any:
        if self.facts.truth(node.test) is False and is_pure(node.test):
            self.changes += 1
            return self._block(node.orelse)
        return self._blocks(node)

    def visit_Match(self, node: ast.Match) -> Any:
        found = self.facts.values(node.subject)
        if found is None or not is_pure(node.subject):
            return self._blocks(node)
        kept = [case for case in node.cases if any(may_match(case.pattern, value) for value in found.values())]
        if len(found) == 1 and kept and kept[0].guard is None and always_matches(kept[0].pattern):
            self.changes += 1
            return self._block(kept[0].body)
        self.changes += len(kept) < len(node.cases)
        node.cases = kept
        return self._blocks(node) if kept else []

    def _blocks(self, node: Any) -> Any:
        self.generic_visit(node)
        return node

    def _block(self, body: list[ast.stmt]) -> list[ast.stmt]:
        found: list[ast.stmt] = []
        for node in body:
            result = self.visit(node)
            made = result if isinstance(result, list) else [] if result is None else [result]
            found += made
            for part in made:
                self._note_exit(part)
            if made and isinstance(made[-1], ast.Return | ast.Raise | ast.Continue | ast.Break):
                break
        return found


def _tested(test: ast.expr) -> Any:
    """Variable, expression and predicate of a comparison of a name with constants."""
    if not isinstance(test, ast.Compare) or len(test.ops) != 1 or not isinstance(test.left, ast.Name):
        return None
    (sign,), (right,) = test.ops, test.comparators
    if isinstance(right, ast.Tuple) and all(isinstance(part, ast.Constant) for part in right.elts):
        wanted: Any = tuple(part.value for part in right.elts)  # type: ignore[attr-defined]
    elif isinstance(right, ast.Constant):
        wanted = right.value
    else:
        return None
    function = COMPARE.get(type(sign))
    return (variable_of(test.left), test.left, lambda value: bool(function(value, wanted))) if function else None


def is_pure(node: ast.AST) -> bool:
    """Whether evaluating an expression has no effect."""
    return not any(
        isinstance(part, ast.NamedExpr | ast.Yield | ast.YieldFrom | ast.Await) or _may_act(part) for part in ast.walk(node)
    )


def _arguments_are_pure(node: ast.expr) -> bool:
    """Whether the calls in an expression are given nothing whose evaluation has an effect."""
    calls = [part for part in ast.walk(node) if isinstance(part, ast.Call)]
    return all(is_pure(part) for call in calls for part in (*call.args, *(one.value for one in call.keywords)))


def _may_act(node: ast.AST) -> bool:
    if not isinstance(node, ast.Call):
        return False
    name = node.func
    if isinstance(name, ast.Attribute):
        return name.attr not in PURE_METHODS
    return not (isinstance(name, ast.Name) and variable_of(name).original in PURE)


PURE = frozenset(
    {"len", "max", "min", "bool", "int", "float", "str", "tuple", "list", "dict", "set", "frozenset", "range", "zip",
     "enumerate", "sorted", "sum", "abs", "any", "all", "isinstance", "partial", "replace", "Path", "summarize", "cast",
     "_varlen_takes", "nothing"}
)  # fmt: skip
"""Functions without effects; a call of one whose result nobody reads can go."""
PURE_METHODS = frozenset(
    {"float", "double", "square", "sum", "mean", "sqrt", "item", "abs", "amax", "numel", "size", "tolist", "seconds", "detach",
     "dequantize", "max", "numpy", "count_nonzero", "unique", "eq", "masked_select", "values", "items"}
)  # fmt: skip
"""Methods of tensors, arrays and the clock without effects."""


def may_match(pattern: ast.pattern, value: Any) -> bool:
    """Whether a pattern may match a constant."""
    if isinstance(pattern, ast.MatchValue) and isinstance(pattern.value, ast.Constant):
        return bool(pattern.value.value == value)
    if isinstance(pattern, ast.MatchSingleton):
        return pattern.value is value
    if isinstance(pattern, ast.MatchOr):
        return any(may_match(part, value) for part in pattern.patterns)
    return True


def always_matches(pattern: ast.pattern) -> bool:
    """Whether a pattern that may match a constant does, and binds nothing."""
    if isinstance(pattern, ast.MatchOr):
        return all(always_matches(part) for part in pattern.patterns)
    plain = isinstance(pattern, ast.MatchAs) and pattern.pattern is None and pattern.name is None
    return (
        plain
        or isinstance(pattern, ast.MatchSingleton)
        or (isinstance(pattern, ast.MatchValue) and isinstance(pattern.value, ast.Constant))
    )


def fold(program: Program, facts: Facts) -> int:
    """Fold every statement of the program once; returns the number of changes."""
    folder = Folder(facts, program)
    for section in program.sections:
        section.body = folder._block(section.body)
    return folder.changes

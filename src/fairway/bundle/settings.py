"""Settings in a bundle: classes without checks, with the fields that are read, and one constant for each instance in use."""

import ast
from typing import Any

from fairway.base.values import Value
from fairway.bundle.facts import Facts, is_settings_class
from fairway.bundle.fold import constant
from fairway.bundle.program import Program, Section
from fairway.bundle.scopes import Variable, variable_of
from fairway.bundle.simplify import Simplifier


def literal(value: Value, program: Program) -> ast.Call:
    """Expression that builds a tree of settings; `Facts` knows what such calls give."""
    call: Any = ast.Call(_class_name(value, program), [], [])
    call.settings = value
    for name in value.__dataclass_fields__:
        item = getattr(value, name)
        expression = literal(item, program) if isinstance(item, Value) else constant(item)
        call.keywords.append(ast.keyword(name, expression))
    return call


def _class_name(value: Value, program: Program) -> ast.expr:
    name: Any = ast.Name(type(value).__name__, ast.Load())
    name.variable = program.variable(f"{type(value).__module__}.{type(value).__name__}")
    return name


def trust_settings(program: Program) -> None:
    """Settings classes lose their base class: the values were checked when the recipe was built."""
    base = program.variable("fairway.base.values.Value")
    for node in program.statements():
        if isinstance(node, ast.ClassDef):
            bases = [part for part in node.bases if not (isinstance(part, ast.Name) and variable_of(part) is base)]
            if len(bases) < len(node.bases):
                node.bases = bases
                node.body = [part for part in node.body if not _checks(part)]


def _checks(node: ast.stmt) -> bool:
    return isinstance(node, ast.FunctionDef) and node.name.startswith(("validate", "_validate"))


class Constants(ast.NodeTransformer):
    """Puts a global constant where an expression is one known instance of settings."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.made: dict[str, tuple[Variable, Any]] = {}
        self.section = Section("fairway.bundle.given", [])
        self.changes = 0

    def place(self, program: Program, facts: Facts) -> int:
        """Replace what can be replaced in the whole program; returns the number of changes."""
        self.facts, self.changes = facts, 0
        for section in program.sections:
            if section is not self.section:
                section.body = [self.visit(node) for node in section.body]
        if self.section not in program.sections and self.section.body:
            homes = [place for place, section in enumerate(program.sections) if section.module.startswith("fairway.config")]
            program.sections.insert(max(homes, default=-1) + 1, self.section)
        return self.changes

    def visit(self, node: Any) -> Any:
        """Replace an expression, or look inside."""
        if isinstance(node, ast.Name | ast.Attribute | ast.Call) and not hasattr(node, "settings"):
            known = isinstance(node, ast.Name) and variable_of(node).home == self.section.module
            wanted = not known and self.facts.class_of(node)[0] in self.facts.instances
            single, value = self.facts.one(node) if wanted else (False, None)
            if single and isinstance(value, Value):
                self.changes += 1
                return self._reference(value)
        return node if hasattr(node, "settings") else super().visit(node)

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
        """Leave annotations alone."""
        if node.value is not None:
            node.value = self.visit(node.value)
        return node

    def _reference(self, value: Value) -> ast.expr:
        key = repr(value)
        if key not in self.made:
            parts = {
                name: self._reference(item) if isinstance(item := getattr(value, name), Value) else constant(item)
                for name in value.__dataclass_fields__
            }
            call = literal(value, self.program)
            call.keywords = [ast.keyword(name, part) for name, part in parts.items()]
            variable = Variable(type(value).__name__, "global", self.section.module)
            self.made[key] = variable, ast.Assign([_name(variable, ast.Store())], call)
            self.section.body.append(self.made[key][1])
        return _name(self.made[key][0], ast.Load())


def _name(variable: Variable, context: ast.expr_context) -> ast.expr:
    name: Any = ast.Name(variable.name, context)
    name.variable = variable
    return name


def shrink(program: Program, facts: Facts) -> None:
    """Reduce settings classes and their instances to the fields that are read, required and positional."""
    simplifier = Simplifier(facts, look_only=True)
    kept: dict[str, list[str]] = {}
    for info in facts.instances:
        if is_settings_class(info):
            kept[info.variable.original] = [name for name in info.fields if simplifier.is_read(info, name)]
            _shrink_class(info.node, kept[info.variable.original])
    for node in program.statements():
        part: Any
        for part in ast.walk(node):
            if hasattr(part, "settings"):
                names = kept.get(type(part.settings).__name__)
                if names is not None:
                    given = {item.arg: item.value for item in part.keywords}
                    part.args, part.keywords = [given[name] for name in names], []


def _shrink_class(node: ast.ClassDef, names: list[str]) -> None:
    body: list[ast.stmt] = []
    for member in node.body:
        if isinstance(member, ast.AnnAssign) and isinstance(member.target, ast.Name):
            if member.target.id in names:
                member.value = None
                body.append(member)
        else:
            body.append(member)
    node.body = body or [ast.Pass()]
    for place, decorator in enumerate(node.decorator_list):
        if isinstance(decorator, ast.Call):
            node.decorator_list[place] = decorator.func

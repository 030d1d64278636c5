"""Names of a Python source and the variables they stand for: every name node gets its variable, by Python's own rules.

All later steps (linking modules, folding, shaking, renaming) work on variables, so none of them can confuse two names that
look alike, and renaming is a matter of giving a variable another name.
"""

import ast
import builtins
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["global", "local", "class", "builtin"]

COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass(eq=False)
class Variable:
    """What a name stands for in one scope."""

    name: str
    kind: Kind
    home: str = ""
    """Module of a global variable."""
    alias: "Variable | None" = None
    """The variable that this one is another name of."""
    module: str = ""
    """Name of the module that the variable stands for; empty if it is no module of the package."""
    imported: tuple[str, str] | None = None
    """Module and attribute (empty for the module itself) of a name imported from outside the package."""
    original: str = ""
    """The name as it is in the package."""

    def __post_init__(self) -> None:
        self.original = self.name


BUILTINS = {name: Variable(name, "builtin") for name in dir(builtins)}


def variable_of(node: Any) -> Variable:
    """The variable of a node that `bind` has seen, followed through imports."""
    found = node.variable
    while found.alias is not None:
        found = found.alias
    return found


@dataclass
class Scope:
    """Names of a module, function, class body or comprehension."""

    kind: Literal["module", "function", "class", "comprehension"]
    parent: "Scope | None"
    home: str
    names: dict[str, Variable] = field(default_factory=dict)

    def lookup(self, name: str) -> Variable:
        """The variable that ``name`` means here; class bodies are invisible to the functions in them."""
        scope: Scope | None = self
        while scope is not None:
            if name in scope.names and (scope is self or scope.kind != "class"):
                return scope.names[name]
            scope = scope.parent
        return BUILTINS.setdefault(name, Variable(name, "builtin"))

    def top(self) -> "Scope":
        """The scope of the module."""
        scope = self
        while scope.parent is not None:
            scope = scope.parent
        return scope

    def declare(self, name: str) -> Variable:
        """The variable of a name that is bound here."""
        kind: Kind = {"module": "global", "class": "class"}.get(self.kind, "local")  # type: ignore[assignment]
        return self.names.setdefault(name, Variable(name, kind, self.home if kind == "global" else ""))


class _Bound(ast.NodeVisitor):
    """Names that one scope binds itself, scopes inside it left out."""

    def __init__(self) -> None:
        self.names: dict[str, None] = {}
        self.shared: dict[str, None] = {}
        self.outer: dict[str, None] = {}

    def visit_Name(self, node: ast.Name) -> None:
        if not isinstance(node.ctx, ast.Load):
            self.names[node.id] = None

    def _function(self, node: Any) -> None:
        self.names[node.name] = None
        for part in (*node.decorator_list, *node.args.defaults, *filter(None, node.args.kw_defaults)):
            self.visit(part)

    visit_FunctionDef = visit_AsyncFunctionDef = _function

    def visit_Lambda(self, node: ast.Lambda) -> None:
        for part in (*node.args.defaults, *filter(None, node.args.kw_defaults)):
            self.visit(part)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self.names[node.name] = None
        for part in (*node.decorator_list, *node.bases, *node.keywords):
            self.visit(part)

    def _comprehension(self, node: ast.AST) -> None:
        for part in ast.walk(node):
            if isinstance(part, ast.NamedExpr):
                self.names[part.target.id] = None

    visit_ListComp = visit_SetComp = visit_DictComp = visit_GeneratorExp = _comprehension

    def _import(self, node: ast.Import | ast.ImportFrom) -> None:
        for alias in node.names:
            self.names[(alias.asname or alias.name).partition(".")[0]] = None

    visit_Import = visit_ImportFrom = _import

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> None:
        if node.name:
            self.names[node.name] = None
        self.generic_visit(node)

    def _capture(self, node: Any) -> None:
        name = node.rest if isinstance(node, ast.MatchMapping) else node.name
        if name:
            self.names[name] = None
        self.generic_visit(node)

    visit_MatchAs = visit_MatchStar = visit_MatchMapping = _capture

    def visit_Global(self, node: ast.Global) -> None:
        self.shared.update(dict.fromkeys(node.names))

    def visit_Nonlocal(self, node: ast.Nonlocal) -> None:
        self.outer.update(dict.fromkeys(node.names))


class _Binder(ast.NodeVisitor):
    """Gives every node that holds a name its variable."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope

    def declare(self, body: Iterable[ast.AST]) -> None:
        """Declare what the statements bind in the present scope."""
        bound = _Bound()
        for node in body:
            bound.visit(node)
        for name in bound.shared:
            self.scope.names[name] = self.scope.top().declare(name)
        for name in bound.outer:
            assert self.scope.parent is not None, "nonlocal stands in functions only"
            self.scope.names[name] = self.scope.parent.lookup(name)
        for name in bound.names:
            self.scope.declare(name)

    def _named(self, node: Any) -> None:
        name = node.rest if isinstance(node, ast.MatchMapping) else node.name
        if name:
            setattr(node, "variable", self.scope.lookup(name))  # noqa: B010
        self.generic_visit(node)

    visit_ExceptHandler = visit_MatchAs = visit_MatchStar = visit_MatchMapping = _named

    def visit_Name(self, node: Any) -> None:
        node.variable = self.scope.lookup(node.id)

    def _import(self, node: Any) -> None:
        for alias in node.names:
            alias.variable = self.scope.lookup((alias.asname or alias.name).partition(".")[0])

    visit_Import = visit_ImportFrom = _import

    def _shared(self, node: Any) -> None:
        node.variables = [self.scope.lookup(name) for name in node.names]

    visit_Global = visit_Nonlocal = _shared

    def _arguments(self, node: ast.arguments) -> list[ast.arg]:
        """Visit what is evaluated outside of the function, and return the parameters."""
        found = [*node.posonlyargs, *node.args, *node.kwonlyargs, *filter(None, (node.vararg, node.kwarg))]
        for part in (*node.defaults, *filter(None, node.kw_defaults), *(one.annotation for one in found if one.annotation)):
            self.visit(part)
        return found

    def _inside(self, scope: Scope, parameters: list[Any], body: list[Any]) -> None:
        before, self.scope = self.scope, scope
        for parameter in parameters:
            parameter.variable = scope.declare(parameter.arg)
        self.declare(body)
        for node in body:
            self.visit(node)
        self.scope = before

    def _function(self, node: Any) -> None:
        node.variable = self.scope.lookup(node.name)
        for part in (*node.decorator_list, *filter(None, (node.returns,))):
            self.visit(part)
        self._inside(Scope("function", self.scope, self.scope.home), self._arguments(node.args), node.body)

    visit_FunctionDef = visit_AsyncFunctionDef = _function

    def visit_Lambda(self, node: ast.Lambda) -> None:
        self._inside(Scope("function", self.scope, self.scope.home), self._arguments(node.args), [node.body])

    def visit_ClassDef(self, node: Any) -> None:
        node.variable = self.scope.lookup(node.name)
        for part in (*node.decorator_list, *node.bases, *node.keywords):
            self.visit(part)
        self._inside(Scope("class", self.scope, self.scope.home), [], node.body)

    def _comprehension(self, node: Any) -> None:
        first = node.generators[0]
        self.visit(first.iter)
        before = self.scope
        self.scope = Scope("comprehension", before, before.home)
        for generator in node.generators:
            for part in ast.walk(generator.target):
                if isinstance(part, ast.Name):
                    self.scope.declare(part.id)
        for generator in node.generators:
            parts = (
                [generator.target, *generator.ifs] if generator is first else [generator.iter, generator.target, *generator.ifs]
            )
            for part in parts:
                self.visit(part)
        for part in (node.key, node.value) if isinstance(node, ast.DictComp) else (node.elt,):
            self.visit(part)
        self.scope = before

    visit_ListComp = visit_SetComp = visit_DictComp = visit_GeneratorExp = _comprehension


def bind(tree: ast.Module, home: str) -> Scope:
    """Give every name of a module its variable.

    Args:
        tree: The module; its nodes get an attribute ``variable`` (``variables`` for global and nonlocal statements).
        home: Name of the module.

    Returns:
        The scope of the module.
    """
    scope = Scope("module", None, home)
    binder = _Binder(scope)
    binder.declare(tree.body)
    for node in tree.body:
        binder.visit(node)
    return scope

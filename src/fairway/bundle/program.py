"""The modules that a bundle may need, linked into one program: one list of statements over one set of variables."""

import ast
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import fairway
from fairway.base.errors import ArtifactError
from fairway.bundle.scopes import FUNCTIONS, Scope, Variable, bind, variable_of

PACKAGE = "fairway"


@dataclass(eq=False)
class Section:
    """The statements of one module."""

    module: str
    body: list[ast.stmt]
    loader: Variable | None = None
    """The function that runs the module at its first use; None for a module that runs when the program begins."""


@dataclass(eq=False)
class Program:
    """A whole program: sections in an order in which every module comes after those it imports."""

    sections: list[Section]
    scopes: dict[str, Scope]
    imports: dict[tuple[str, str, bool], Variable] = field(default_factory=dict)
    """Names from outside the package: module, attribute (empty for the module itself), whether as another name."""

    def statements(self) -> Iterator[ast.stmt]:
        """All statements of the top level."""
        for section in self.sections:
            yield from section.body

    def variable(self, path: str) -> Variable:
        """The variable of a dotted path such as ``fairway.stages.train_stage``."""
        module, _, name = path.rpartition(".")
        found = self.scopes[module].names[name]
        while found.alias is not None:
            found = found.alias
        return found


@cache
def source_of(module: str) -> tuple[str, bool] | None:
    """Source of a module of the package and whether it is a package; None if there is no such module."""
    root = Path(fairway.__file__).parent.joinpath(*module.split(".")[1:])
    for path, is_package in ((root / "__init__.py", True), (root.with_suffix(".py"), False)):
        if path.is_file():
            return path.read_text("utf-8"), is_package
    return None


class _Loader:
    """Reads modules from a root on, in the order in which Python would run them."""

    def __init__(self) -> None:
        self.trees: dict[str, ast.Module] = {}
        self.scopes: dict[str, Scope] = {}
        self.order: list[str] = []
        self.eager: set[str] = set()

    def load(self, module: str, *, eager: bool) -> None:
        """Read a module and what it imports; the modules that only functions import come last."""
        known = module in self.trees
        if known and (not eager or module in self.eager):
            return
        if not known:
            found = source_of(module)
            assert found is not None, f"{module} is no module of the package"
            tree = self.trees[module] = ast.parse(found[0])
            self.scopes[module] = bind(tree, module)
        if eager:
            self.eager.add(module)
        inner, outer = [], []
        for node, level in _imports(self.trees[module].body, 0):
            (outer if level == 0 else inner).extend(_imported_modules(node))
        parent = module.rpartition(".")[0]
        for name in [parent, *outer] if parent else outer:
            self.load(name, eager=eager)
        for name in inner:
            self.load(name, eager=False)
        if module in self.order:
            self.order.remove(module)
        self.order.append(module)


def _imports(body: list[Any], level: int) -> Iterator[tuple[Any, int]]:
    """Import statements and how many functions they are inside of."""
    for node in body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node, level
        elif isinstance(node, ast.AST):
            inner = level + isinstance(node, (*FUNCTIONS, ast.Lambda))
            yield from _imports(list(ast.iter_child_nodes(node)), inner)


def _imported_modules(node: ast.Import | ast.ImportFrom) -> Iterator[str]:
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    else:
        assert not node.level, "the package has absolute imports only"
        names = [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
    yield from (name for name in names if _ours(name) and source_of(name))


def _ours(name: str) -> bool:
    return name == PACKAGE or name.startswith(f"{PACKAGE}.")


def link(root: str, stand_ins: Mapping[str, str], absent: Iterable[str] = ()) -> Program:
    """The program that a module begins.

    Args:
        root: The module.
        stand_ins: Dotted path of a function or class -> path of what the bundle has in its place.
        absent: Dotted paths of methods that a bundle does without.

    Raises:
        ArtifactError: a stand-in speaks of something that the package lacks.
    """
    loader = _Loader()
    for module in {path.rpartition(".")[0] for path in stand_ins.values()}:
        loader.load(module, eager=True)
    loader.load(root, eager=True)
    program = Program([], loader.scopes)
    for module in loader.order:
        lazy = module not in loader.eager
        home = Variable("load_" + module.rpartition(".")[2], "global", module) if lazy else None
        program.sections.append(Section(module, loader.trees[module].body, home))
    for section in program.sections:
        _Linker(program, section).run()
    replaced = set()
    for old, new in stand_ins.items():
        try:
            variable, stand_in = program.variable(old), program.variable(new)
        except KeyError:
            raise ArtifactError(f"the stand-in {new} is for {old}, which the package does not have; correct the list") from None
        replaced.add(variable)
        variable.alias = stand_in
    for path in absent:
        owner, _, name = path.rpartition(".")
        home = program.variable(owner)
        for node in program.statements():
            if isinstance(node, ast.ClassDef) and variable_of(node) is home:
                node.body = [part for part in node.body if getattr(part, "name", "") != name]
    for section in program.sections:
        section.body = [
            _Members(program).visit(node) for node in section.body if getattr(node, "variable", None) not in replaced
        ]
    return program


class _Linker(ast.NodeTransformer):
    """Takes the imports out of a module and lets its names stand for what they import."""

    def __init__(self, program: Program, section: Section) -> None:
        self.program, self.section = program, section
        self.depth = 0

    def run(self) -> None:
        self.section.body = [node for node in map(self.visit, self.section.body) if node is not None]

    def _function(self, node: Any) -> Any:
        self.depth += 1
        self.generic_visit(node)
        self.depth -= 1
        node.body = node.body or [ast.Pass()]
        return node

    visit_FunctionDef = visit_AsyncFunctionDef = _function

    def visit_Import(self, node: ast.Import) -> ast.stmt | None:
        kept = []
        for alias in node.names:
            variable = alias.variable  # type: ignore[attr-defined]
            if _ours(alias.name):
                assert "." not in alias.name, "modules of the package are imported from their parents"
                variable.module = alias.name
            elif self.depth == 0 and self.section.loader is None:
                self._outside(variable, alias.name, "", renamed=alias.asname is not None)
            else:
                variable.imported = (alias.name, "")
                kept.append(alias)
        node.names = kept
        return node if kept else None

    def visit_ImportFrom(self, node: ast.ImportFrom) -> Any:
        module = node.module or ""
        if module == "__future__":
            return None
        if not _ours(module):
            if self.depth == 0 and self.section.loader is None:
                for alias in node.names:
                    self._outside(alias.variable, module, alias.name, renamed=True)  # type: ignore[attr-defined]
                return None
            for alias in node.names:
                alias.variable.imported = (module, alias.name)  # type: ignore[attr-defined]
            return node
        loads = []
        for alias in node.names:
            inner = f"{module}.{alias.name}"
            variable = alias.variable  # type: ignore[attr-defined]
            if inner in self.program.scopes:
                variable.module = inner
            else:
                variable.alias = self.program.scopes[module].lookup(alias.name)
            home = self._loader_of(inner if inner in self.program.scopes else module)
            if home is not None and self.depth:
                loads.append(_call(home))
        return loads[:1] or None

    def _loader_of(self, module: str) -> Variable | None:
        return next(section.loader for section in self.program.sections if section.module == module)

    def _outside(self, variable: Variable, module: str, name: str, *, renamed: bool) -> None:
        """One variable for all modules that import the same thing."""
        known = self.program.imports.setdefault((module, name, renamed), variable)
        if known is not variable:
            variable.alias = known
        known.imported = (module, name)


def _call(function: Variable) -> ast.stmt:
    name: Any = ast.Name(function.name, ast.Load())
    name.variable = function
    return ast.Expr(ast.Call(name, [], []))


class _Members(ast.NodeTransformer):
    """Attributes of modules of the package become the names that they are."""

    def __init__(self, program: Program) -> None:
        self.program = program

    def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
        self.generic_visit(node)
        module = variable_of(node.value).module if isinstance(node.value, ast.Name) else ""
        if not module:
            return node
        inner = f"{module}.{node.attr}"
        name: Any = ast.Name(node.attr, node.ctx)
        if inner in self.program.scopes:
            name.variable = Variable(node.attr, "global", module, module=inner)
        else:
            name.variable = self.program.scopes[module].lookup(node.attr)
        return name

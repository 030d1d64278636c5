"""Statements as source text: short for a bundle, or spread out for a reader."""

import ast
from collections.abc import Iterator
from typing import Any

from fairway.bundle.printer import BARE, BINARY, WALRUS, YIELD, Printer
from fairway.bundle.scopes import variable_of

SIMPLE = (
    ast.Expr, ast.Assign, ast.AugAssign, ast.AnnAssign, ast.Return, ast.Raise, ast.Delete, ast.Pass, ast.Break, ast.Continue,
    ast.Global, ast.Nonlocal, ast.Import, ast.ImportFrom, ast.Assert,
)  # fmt: skip


class Layout(Printer):
    """Prints blocks with one space of indentation and as many statements on a line as fit the grammar."""

    def source(self, body: list[Any]) -> str:
        """Source of the statements of a module."""
        return "\n".join(self.block(body, "")) + "\n"

    def block(self, body: list[Any], indent: str) -> Iterator[str]:
        """Lines of a block."""
        waiting: list[str] = []
        for node in body:
            if isinstance(node, SIMPLE):
                waiting.append(self.simple(node))
                continue
            if waiting:
                yield indent + ";".join(waiting)
                waiting = []
            yield from self.compound(node, indent)
        if waiting:
            yield indent + ";".join(waiting)

    def suite(self, header: str, body: list[Any], indent: str) -> Iterator[str]:
        """A header and the block under it, on one line where all of it is simple."""
        if all(isinstance(node, SIMPLE) for node in body):
            yield f"{indent}{header}:{';'.join(map(self.simple, body))}"
        else:
            yield f"{indent}{header}:"
            yield from self.block(body, indent + " ")

    def simple(self, node: Any) -> str:
        """Source of a statement that needs no block."""
        return getattr(self, f"_{type(node).__name__}")(node)

    def _Expr(self, node: ast.Expr) -> str:
        return self.expression(node.value, YIELD)

    def _Assign(self, node: ast.Assign) -> str:
        return "".join(self.expression(part) + "=" for part in node.targets) + self.expression(node.value, YIELD)

    def _AugAssign(self, node: ast.AugAssign) -> str:
        return f"{self.expression(node.target)}{BINARY[type(node.op)][0]}={self.expression(node.value, YIELD)}"

    def _AnnAssign(self, node: ast.AnnAssign) -> str:
        text = f"{self.expression(node.target)}:{self.expression(node.annotation, WALRUS)}"
        return text + (f"={self.expression(node.value, YIELD)}" if node.value else "")

    def _Return(self, node: ast.Return) -> str:
        return f"return {self.expression(node.value)}" if node.value else "return"

    def _Raise(self, node: ast.Raise) -> str:
        text = f"raise {self.expression(node.exc, WALRUS)}" if node.exc else "raise"
        return text + (f" from {self.expression(node.cause, WALRUS)}" if node.cause else "")

    def _Delete(self, node: ast.Delete) -> str:
        return "del " + ",".join(self.expression(part) for part in node.targets)

    def _Pass(self, node: ast.Pass) -> str:
        return "pass"

    def _Break(self, node: ast.Break) -> str:
        return "break"

    def _Continue(self, node: ast.Continue) -> str:
        return "continue"

    def _Global(self, node: Any) -> str:
        return "global " + ",".join(self.shared(variable) for variable in node.variables)

    def _Nonlocal(self, node: Any) -> str:
        return "nonlocal " + ",".join(self.shared(variable) for variable in node.variables)

    def shared(self, variable: Any) -> str:
        """Name of a variable of another scope."""
        while variable.alias is not None:
            variable = variable.alias
        return variable.name

    def _alias(self, node: Any) -> str:
        name = self.parameter(node)
        plain = node.name.partition(".")[0]
        return node.name if name == plain else f"{node.name} as {name}"

    def _Import(self, node: ast.Import) -> str:
        return "import " + ",".join(map(self._alias, node.names))

    def _ImportFrom(self, node: ast.ImportFrom) -> str:
        return f"from {node.module} import " + ",".join(map(self._alias, node.names))

    def _Assert(self, node: ast.Assert) -> str:
        return f"assert {self.expression(node.test, WALRUS)}" + (f",{self.expression(node.msg, WALRUS)}" if node.msg else "")

    def compound(self, node: Any, indent: str) -> Iterator[str]:
        """Lines of a statement with blocks."""
        yield from getattr(self, f"_{type(node).__name__}_lines")(node, indent)

    def _decorated(self, node: Any, indent: str) -> Iterator[str]:
        for part in node.decorator_list:
            yield f"{indent}@{self.expression(part, WALRUS)}"

    def defined(self, node: Any) -> str:
        """Name of a function or class."""
        return self.shown(variable_of(node))

    def _FunctionDef_lines(self, node: ast.FunctionDef, indent: str) -> Iterator[str]:
        yield from self._decorated(node, indent)
        returns = f"->{self.expression(node.returns, WALRUS)}" if node.returns else ""
        yield from self.suite(f"def {self.defined(node)}({self.arguments(node.args)}){returns}", node.body, indent)

    def _ClassDef_lines(self, node: ast.ClassDef, indent: str) -> Iterator[str]:
        yield from self._decorated(node, indent)
        parts = [self.expression(part, WALRUS) for part in node.bases]
        parts += [f"{part.arg}={self.expression(part.value, WALRUS)}" for part in node.keywords]
        yield from self.suite(f"class {self.defined(node)}" + (f"({','.join(parts)})" if parts else ""), node.body, indent)

    def _If_lines(self, node: ast.If, indent: str) -> Iterator[str]:
        word = "if"
        while True:
            yield from self.suite(f"{word} {self.expression(node.test, BARE)}", node.body, indent)
            if len(node.orelse) != 1 or not isinstance(node.orelse[0], ast.If):
                break
            node, word = node.orelse[0], "elif"
        if node.orelse:
            yield from self.suite("else", node.orelse, indent)

    def _While_lines(self, node: ast.While, indent: str) -> Iterator[str]:
        yield from self.suite(f"while {self.expression(node.test, BARE)}", node.body, indent)
        if node.orelse:
            yield from self.suite("else", node.orelse, indent)

    def _For_lines(self, node: ast.For, indent: str) -> Iterator[str]:
        yield from self.suite(f"for {self.expression(node.target)} in {self.expression(node.iter)}", node.body, indent)
        if node.orelse:
            yield from self.suite("else", node.orelse, indent)

    def _With_lines(self, node: ast.With, indent: str) -> Iterator[str]:
        parts = [
            self.expression(part.context_expr, WALRUS)
            + (f" as {self.expression(part.optional_vars, WALRUS)}" if part.optional_vars else "")
            for part in node.items
        ]
        yield from self.suite(f"with {','.join(parts)}", node.body, indent)

    def _Try_lines(self, node: ast.Try, indent: str) -> Iterator[str]:
        yield from self.suite("try", node.body, indent)
        for part in node.handlers:
            header = "except" + (f" {self.expression(part.type, WALRUS)}" if part.type else "")
            header += f" as {self.shared(part.variable)}" if part.name else ""  # type: ignore[attr-defined]
            yield from self.suite(header, part.body, indent)
        for word, body in (("else", node.orelse), ("finally", node.finalbody)):
            if body:
                yield from self.suite(word, body, indent)

    def _Match_lines(self, node: ast.Match, indent: str) -> Iterator[str]:
        yield f"{indent}match {self.expression(node.subject)}:"
        for case in node.cases:
            guard = f" if {self.expression(case.guard, WALRUS)}" if case.guard else ""
            yield from self.suite(f"case {self.pattern(case.pattern)}{guard}", case.body, indent + " ")

    def pattern(self, node: Any) -> str:
        """Source of a pattern; those of the package's own style only."""
        if isinstance(node, ast.MatchValue):
            return self.expression(node.value, WALRUS)
        if isinstance(node, ast.MatchSingleton):
            return repr(node.value)
        if isinstance(node, ast.MatchOr):
            return "|".join(map(self.pattern, node.patterns))
        if isinstance(node, ast.MatchSequence):
            return "[" + ",".join(map(self.pattern, node.patterns)) + "]"
        if isinstance(node, ast.MatchStar):
            return "*" + (self.shared(node.variable) if node.name else "_")  # type: ignore[attr-defined]
        if isinstance(node, ast.MatchAs):
            name = self.shared(node.variable) if node.name else "_"  # type: ignore[attr-defined]
            return f"{self.pattern(node.pattern)} as {name}" if node.pattern else name
        if isinstance(node, ast.MatchClass):
            parts = [self.pattern(part) for part in node.patterns]
            pairs = zip(node.kwd_attrs, node.kwd_patterns, strict=True)
            parts += [f"{self.member(node, name)}={self.pattern(part)}" for name, part in pairs]
            return f"{self.expression(node.cls)}({','.join(parts)})"
        raise NotImplementedError(f"a pattern {type(node).__name__} cannot be printed yet; add it to bundle/layout.py")

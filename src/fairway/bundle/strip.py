"""Take out of a program what no run needs: docstrings, annotations, assertions, texts of errors."""

import ast
from typing import Any

from fairway.bundle.program import Program
from fairway.bundle.replaced import TERSE, TRUSTED
from fairway.bundle.scopes import FUNCTIONS, variable_of
from fairway.bundle.shake import decorator_name, is_record, root_name

READ_ANNOTATIONS = frozenset({"custom_op", "register_kernel", "register_fake", "jit"})
"""Decorators that read the annotations of what they are put on."""


def mark_annotations(program: Program) -> None:
    """Mark the functions whose annotations are read when the program runs; the others lose theirs."""
    for node in program.statements():
        for part in ast.walk(node):
            if isinstance(part, FUNCTIONS) and {decorator_name(one) for one in part.decorator_list} & READ_ANNOTATIONS:
                for inner in (part, *ast.walk(part.args)):
                    inner.annotated = True  # type: ignore[attr-defined]


class _TextStripper(ast.NodeTransformer):
    """Docstrings, assertions and the texts of errors."""

    def _body(self, node: Any) -> Any:
        self.generic_visit(node)
        node.body = [part for part in node.body if not (isinstance(part, ast.Expr) and isinstance(part.value, ast.Constant))]
        node.body = node.body or [ast.Pass()]
        node.decorator_list = [part for part in node.decorator_list if decorator_name(part) not in _IDLE]
        return node

    visit_FunctionDef = visit_AsyncFunctionDef = visit_ClassDef = _body

    def visit_Expr(self, node: ast.Expr) -> ast.Expr | None:
        return None if isinstance(node.value, ast.Constant) else node

    def visit_Assert(self, node: ast.Assert) -> None:
        return None

    def visit_Try(self, node: ast.Try) -> Any:
        """An error that would only be told in other words is told in its own."""
        self.generic_visit(node)
        told = all(len(one.body) == 1 and isinstance(one.body[0], ast.Raise) and one.body[0].exc for one in node.handlers)
        if node.handlers and told and not node.finalbody:
            return [*node.body, *node.orelse]
        return node

    def visit_Call(self, node: ast.Call) -> ast.Call:
        """Lengths that are equal by construction are not compared."""
        self.generic_visit(node)
        if isinstance(node.func, ast.Name) and node.func.id == "zip":
            node.keywords = [part for part in node.keywords if part.arg != "strict"]
        return node

    def visit_Raise(self, node: ast.Raise) -> ast.Raise:
        node.cause = None
        if isinstance(node.exc, ast.Call):
            texts = [part for part in node.exc.args if not _is_message(part)]
            name = node.exc.func
            known = isinstance(name, ast.Name) and variable_of(name).original[:1].isupper()
            if known and not texts and not node.exc.keywords:
                node.exc = name
            elif not known:
                node.exc.args = [ast.Constant("") if _is_message(part) else part for part in node.exc.args]
        return node


class _AnnotationStripper(ast.NodeTransformer):
    """Annotations that nobody reads; those of fields become as short as they can be."""

    def _function(self, node: Any) -> Any:
        self.generic_visit(node)
        if not getattr(node, "annotated", False):
            node.returns = None
        return node

    visit_FunctionDef = visit_AsyncFunctionDef = _function

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.ClassDef:
        for decorator in node.decorator_list:
            if isinstance(decorator, ast.Call) and decorator_name(decorator) == "dataclass":
                # Records that are never compared by value are hashed by identity, frozen or not.
                named = {part.arg for part in decorator.keywords}
                idle = {"repr", "frozen"} if "eq" in named else {"repr"}
                decorator.keywords = [part for part in decorator.keywords if part.arg not in idle]
        for member in node.body:
            if isinstance(member, ast.AnnAssign):
                member.field = is_record(node)  # type: ignore[attr-defined]
        self.generic_visit(node)
        return node

    def visit_arg(self, node: ast.arg) -> ast.arg:
        if not getattr(node, "annotated", False):
            node.annotation = None
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.stmt | None:
        self.generic_visit(node)
        if getattr(node, "field", False):
            node.annotation = ast.Constant(0)
            return node
        return ast.Assign([node.target], node.value) if node.value else None


_IDLE = frozenset({"no_type_check", "final"})


def _is_message(node: ast.expr) -> bool:
    if isinstance(node, ast.BinOp):
        return _is_message(node.left) and _is_message(node.right)
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


def strip_texts(program: Program) -> None:
    """Take out docstrings, assertions and the texts of errors."""
    _strip(program, _TextStripper())


def strip_annotations(program: Program) -> None:
    """Take out annotations; marks of `mark_annotations` are heeded."""
    _strip(program, _AnnotationStripper())


def _strip(program: Program, stripper: ast.NodeTransformer) -> None:
    for section in program.sections:
        body: list[ast.stmt] = []
        for node in section.body:
            kept = stripper.visit(node)
            body += kept if isinstance(kept, list) else [] if kept is None else [kept]
        section.body = body
        for node in section.body:
            fill_bodies(node)


def fill_bodies(node: ast.AST) -> None:
    """Put ``pass`` where a block has lost all its statements."""
    for part in ast.walk(node):
        body = getattr(part, "body", None)
        if isinstance(body, list) and not body and not isinstance(part, ast.Module):
            part.body = [ast.Pass()]  # type: ignore[attr-defined]


class _Terser(ast.NodeTransformer):
    """Sentences become one word that counts as true like them."""

    def visit_Constant(self, node: ast.Constant) -> ast.Constant:
        return ast.Constant("no") if isinstance(node.value, str) and node.value.count(" ") > 1 else node

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.expr:
        words = sum(str(part.value).count(" ") for part in node.values if isinstance(part, ast.Constant))
        return ast.Constant("no") if words > 1 else node


class _Truster(ast.NodeTransformer):
    """Leaves out ``if ...: raise ...`` where the condition has no effects."""

    def visit_If(self, node: ast.If) -> Any:
        self.generic_visit(node)
        if len(node.body) == 1 and isinstance(node.body[0], ast.Raise) and not node.orelse and looks_only(node.test):
            return None
        return node


def looks_only(node: ast.expr) -> bool:
    """Whether the condition of a check calls nothing but functions of values."""
    return all(_is_function_of_values(part.func) for part in ast.walk(node) if isinstance(part, ast.Call))


def _is_function_of_values(node: ast.expr) -> bool:
    if isinstance(node, ast.Attribute):
        root = root_name(node)
        return node.attr in LOOKING or (
            root is not None and variable_of(root).imported in (("numpy", ""), ("torch", ""), ("math", ""))
        )
    return isinstance(node, ast.Name) and (variable_of(node).kind == "builtin" or variable_of(node).original in LOOKING)


LOOKING = frozenset(
    {"all", "any", "isfinite", "numel", "item", "max", "min", "sum", "keys", "planes", "largest_code", "element_count",
     "tobytes", "count", "startswith", "isprintable", "encode", "grid_bits", "max_code"}
)  # fmt: skip


def trust(program: Program) -> None:
    """Leave out the checks of the modules in ``TRUSTED``, and the sentences of those in ``TERSE``."""
    for section in program.sections:
        for names, change in ((TRUSTED, _Truster()), (TERSE, _Terser())):
            if section.module in names:
                section.body = [kept for node in section.body if (kept := change.visit(node)) is not None]
                for node in section.body:
                    fill_bodies(node)

"""Which class an expression is of, by annotations, constructors and what methods assign.

Annotations are believed, for the tests of the package check them at every call.
"""

import ast
from typing import Any

from fairway.bundle.index import Binding, ClassInfo, Function, Index, is_self
from fairway.bundle.scopes import Variable, variable_of
from fairway.bundle.shake import decorator_name, root_name

UNTOLD = frozenset(
    {"Any", "object", "Optional", "Union", "Annotated", "Self", "type", "Mapping", "MutableMapping", "Sequence", "Collection",
     "Iterable", "Iterator", "Callable", "Sized", "Container", "Hashable", "Exception", "BaseException"}
)  # fmt: skip
"""Annotations from outside that objects of the program may fit."""
OUTSIDE = ClassInfo(ast.ClassDef("outside", [], [], [], []), Variable("outside", "builtin"), foreign=True)
"""Stands for all classes that are not of the package."""


class Classes:
    """Answers about the classes of expressions of an indexed program."""

    def __init__(self, index: Index) -> None:
        self.index = index
        self.types: dict[int, tuple[ClassInfo | None, bool]] = {}
        self.seen: list[Any] = []
        """Nodes that answers are kept for: one that leaves the tree must not give its identity to a new one."""

    def annotated(self, node: Any) -> tuple[ClassInfo | None, bool]:
        """Class that an annotation names, and whether it allows None."""
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            names = [info for info in self.index.classes.values() if info.variable.original == node.value.split(" | ")[0]]
            return (names[0] if len(names) == 1 else None), "None" in node.value
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
            left, right = self.annotated(node.left), self.annotated(node.right)
            none = [isinstance(part, ast.Constant) and part.value is None for part in (node.left, node.right)]
            both = OUTSIDE if left[0] is OUTSIDE and right[0] is OUTSIDE else None
            return (left[0] if none[1] else right[0] if none[0] else both), any(none) or left[1] or right[1]
        if isinstance(node, ast.Subscript):
            return self.annotated(node.value)
        if isinstance(node, ast.Attribute):
            return (None, True) if node.attr in self.index.open_bases else (OUTSIDE, False)
        if isinstance(node, ast.Name):
            return self._annotated_by_name(variable_of(node))
        return None, True

    def _annotated_by_name(self, variable: Variable) -> tuple[ClassInfo | None, bool]:
        info = self.index.classes.get(variable)
        if info is not None:
            # Any class may have what a protocol asks for.
            return (None if is_protocol(info) else info), False
        if variable.kind == "builtin" or variable.imported is not None:
            name = variable.imported[1] if variable.imported else variable.original
            return (None, True) if name in UNTOLD or name in self.index.open_bases else (OUTSIDE, False)
        bindings = self.index.bindings.get(variable, [])
        alias = bindings[0].value if len(bindings) == 1 else None
        return (
            self.annotated(alias) if isinstance(alias, ast.Name | ast.Subscript | ast.BinOp | ast.Attribute) else (None, True)
        )

    def class_of(self, node: Any) -> tuple[ClassInfo | None, bool]:
        """Class of an expression (None if unknown), and whether it may be None instead."""
        key = id(node)
        if key not in self.types:
            self.types[key] = (None, True)
            self.seen.append(node)
            self.types[key] = self._class_of(node)
        return self.types[key]

    def _class_of(self, node: Any) -> tuple[ClassInfo | None, bool]:
        if isinstance(node, ast.Name):
            if variable_of(node).imported is not None:
                return OUTSIDE, False
            bindings = self.index.bindings.get(variable_of(node), [])
            return self._agreed([self._class_bound(binding) for binding in bindings])
        if isinstance(node, ast.Attribute):
            owner, _ = self.class_of(node.value)
            if owner is OUTSIDE:
                module = isinstance(node.value, ast.Name) and variable_of(node.value).imported is not None
                return (
                    (OUTSIDE, True)
                    if module or node.attr in ("shape", "dtype", "device", "parent", "name", "grad", "values")
                    else (None, True)
                )
            return self._class_of_member(owner, node.attr) if owner else (None, True)
        if isinstance(
            node, ast.Constant | ast.JoinedStr | ast.List | ast.Dict | ast.Tuple | ast.ListComp | ast.DictComp | ast.Compare
        ):
            return OUTSIDE, isinstance(node, ast.Constant) and node.value is None
        if isinstance(node, ast.Call):
            function = self.called(node)
            if isinstance(function, ClassInfo):
                return function, False
            if function is None and self._calls_outside(node):
                return OUTSIDE, True
            return self.annotated(function.returns) if function is not None and function.returns else (None, True)
        if isinstance(node, ast.IfExp):
            return self._agreed([self.class_of(node.body), self.class_of(node.orelse)])
        if isinstance(node, ast.NamedExpr):
            return self.class_of(node.value)
        return None, True

    def _calls_outside(self, node: ast.Call) -> bool:
        """Whether a call is of something outside that does not hand on what it is given."""
        function = node.func
        if isinstance(function, ast.Name):
            return variable_of(function).original in (
                "str",
                "bytes",
                "len",
                "int",
                "float",
                "sorted",
                "list",
                "dict",
                "repr",
                "open",
                "Path",
            )
        if isinstance(function, ast.Attribute):
            owner = self.class_of(function.value)[0]
            root = root_name(function)
            return (owner is OUTSIDE and function.attr not in ("pop", "get", "popleft", "setdefault")) or (
                root is not None
                and bool(variable_of(root).imported)
                and not variable_of(root).imported[1]  # type: ignore[index]
                and all(isinstance(part, ast.Attribute | ast.Name | ast.Load) for part in ast.walk(function))
            )
        return False

    def _agreed(self, found: list[tuple[ClassInfo | None, bool]]) -> tuple[ClassInfo | None, bool]:
        if not found or len({id(info) for info, _ in found}) != 1:
            return None, True
        return found[0][0], any(optional for _, optional in found)

    def _class_bound(self, binding: Binding) -> tuple[ClassInfo | None, bool]:
        if binding.kind == "assign":
            return self.class_of(binding.value)
        if binding.kind == "with" and isinstance(binding.value, ast.Call):
            function = self.called(binding.value)
            if isinstance(function, ClassInfo):
                return function, False
            returned = getattr(function, "returns", None)
            return self.annotated(returned.slice) if isinstance(returned, ast.Subscript) else (None, True)
        if binding.kind == "parameter":
            if is_self(binding, self.index):
                owner = self.index.owners[id(binding.function)]
                return owner, False
            return self.annotated(binding.parameter.annotation) if binding.parameter.annotation else (None, True)
        if binding.kind == "each":
            return self.annotated(self._element(binding.value))
        return None, True

    def _element(self, node: Any) -> Any:
        """Annotation of the elements of a collection, if its own annotation says so."""
        annotation = self._annotation(node)
        if not isinstance(annotation, ast.Subscript) or not isinstance(annotation.value, ast.Name):
            return None
        inside = annotation.slice
        if annotation.value.id == "tuple" and isinstance(inside, ast.Tuple) and len(inside.elts) == 2:
            return inside.elts[0] if isinstance(inside.elts[1], ast.Constant) and inside.elts[1].value is Ellipsis else None
        return inside if annotation.value.id in ("list", "Sequence", "Iterator", "Iterable", "set", "frozenset") else None

    def _annotation(self, node: Any) -> Any:
        """The annotation that tells the type of an expression."""
        if isinstance(node, ast.Name):
            bindings = self.index.bindings.get(variable_of(node), [])
            if len(bindings) == 1 and bindings[0].kind == "parameter":
                return bindings[0].parameter.annotation
            return self._annotation(bindings[0].value) if len(bindings) == 1 and bindings[0].kind == "assign" else None
        if isinstance(node, ast.Attribute):
            owner = self.class_of(node.value)[0]
            declared = owner.find("fields", node.attr) if owner else None
            return declared.annotation if declared is not None else None
        called = self.called(node) if isinstance(node, ast.Call) else None
        return called.returns if isinstance(called, ast.FunctionDef) else None

    def _class_of_member(self, owner: ClassInfo, name: str) -> tuple[ClassInfo | None, bool]:
        declared = owner.find("fields", name)
        if declared is not None:
            return self.annotated(declared.annotation)
        method = owner.find("methods", name)
        if method is not None:
            kinds = {decorator_name(part) for part in method.decorator_list}
            return (
                self.annotated(method.returns) if kinds & {"property", "cached_property"} and method.returns else (None, True)
            )
        stores = owner.find("stores", name)
        if stores is None or name in self.index.foreign_stores or None in stores:
            return None, True
        return self._agreed([self.class_of(value) for value in stores])

    def called(self, node: ast.Call) -> ClassInfo | Function | None:
        """The class or function of the program that a call calls."""
        function = node.func
        if isinstance(function, ast.Name):
            variable = variable_of(function)
            return self.index.classes.get(variable) or self.index.functions.get(variable)
        if isinstance(function, ast.Attribute):
            owner = self.index.classes.get(variable_of(function.value)) if isinstance(function.value, ast.Name) else None
            owner = owner or self.class_of(function.value)[0]
            return owner.find("methods", function.attr) if owner else None
        return None


def is_protocol(info: ClassInfo) -> bool:
    """Whether a class only says what others must have."""
    return any(decorator_name(base) == "Protocol" for base in info.node.bases)

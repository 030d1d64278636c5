"""A syntax tree as short source text, the same on every version of Python."""

import ast
from typing import Any

from fairway.bundle.scopes import Variable, variable_of

BINARY = {
    ast.Add: ("+", 12), ast.Sub: ("-", 12), ast.Mult: ("*", 13), ast.Div: ("/", 13), ast.FloorDiv: ("//", 13),
    ast.Mod: ("%", 13), ast.MatMult: ("@", 13), ast.LShift: ("<<", 11), ast.RShift: (">>", 11), ast.BitAnd: ("&", 10),
    ast.BitXor: ("^", 9), ast.BitOr: ("|", 8), ast.Pow: ("**", 15),
}  # fmt: skip
COMPARE = {
    ast.Eq: "==", ast.NotEq: "!=", ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Is: " is ",
    ast.IsNot: " is not ", ast.In: " in ", ast.NotIn: " not in ",
}  # fmt: skip
UNARY = {ast.Not: ("not ", 6), ast.USub: ("-", 14), ast.UAdd: ("+", 14), ast.Invert: ("~", 14)}
BARE, YIELD, TUPLE, WALRUS, LAMBDA, TERNARY, OR, AND, COMPARISON, ATOM = -2, -1, 0, 1, 2, 3, 4, 5, 7, 18


class Printer:
    """Prints expressions; `statements` prints blocks. Names are those of the variables."""

    def __init__(self, members: dict[str, str] | None = None) -> None:
        """Print attributes under the names that ``members`` has for them."""
        self.members = members or {}

    def expression(self, node: Any, level: int = TUPLE) -> str:
        """Source of an expression, in parentheses where it binds less than ``level``."""
        method = getattr(self, f"_{type(node).__name__}")
        text, own = method(node)
        return f"({text})" if own < level else text

    def name_of(self, node: Any) -> str:
        """Name of a variable."""
        return self.shown(variable_of(node)) if hasattr(node, "variable") else node.id

    def shown(self, variable: Variable) -> str:
        """Name of a variable; those of a class body are attributes."""
        return self.members.get(variable.name, variable.name) if variable.kind == "class" else variable.name

    def _Name(self, node: Any) -> tuple[str, int]:
        return self.name_of(node), ATOM

    def _Constant(self, node: ast.Constant) -> tuple[str, int]:
        value = node.value
        if value is Ellipsis:
            return "...", ATOM
        if isinstance(value, float):
            text = repr(value).replace("e+", "e").replace("e-0", "e-")
            text = text.removesuffix(".0") + "." if text.endswith(".0") else text.removeprefix("0") if text != "0.0" else text
            return text, ATOM
        if isinstance(value, int) and not isinstance(value, bool):
            plain, power = str(value), f"{value:x}"
            return (f"0x{power}" if len(power) + 2 < len(plain) else plain), ATOM
        return repr(value), ATOM

    def _JoinedStr(self, node: ast.JoinedStr) -> tuple[str, int]:
        for quote in ("'", '"'):
            try:
                return f"f{quote}{self._pieces(node, quote)}{quote}", ATOM
            except ValueError:
                continue
        raise ValueError("a formatted string has both quotes or a backslash inside")

    def _pieces(self, node: ast.JoinedStr, quote: str) -> str:
        text = ""
        for part in node.values:
            if isinstance(part, ast.Constant):
                plain = "".join(char if char.isprintable() and char != "\\" else repr(char)[1:-1] for char in str(part.value))
                text += plain.replace(quote, "\\" + quote).replace("{", "{{").replace("}", "}}")
                continue
            assert isinstance(part, ast.FormattedValue), "formatted strings hold texts and values"
            inner = self.expression(part.value, LAMBDA + 1)
            if quote in inner or "\\" in inner:
                raise ValueError(inner)
            text += "{" + (" " if inner.startswith("{") else "") + inner
            text += f"!{chr(part.conversion)}" if part.conversion >= 0 else ""
            if part.format_spec is not None:
                assert isinstance(part.format_spec, ast.JoinedStr), "a format is a formatted string"
                text += ":" + self._pieces(part.format_spec, quote)
            text += "}"
        return text

    def _listed(self, nodes: list[Any]) -> str:
        return ",".join(self.expression(node, WALRUS) for node in nodes)

    def _Tuple(self, node: ast.Tuple) -> tuple[str, int]:
        if not node.elts:
            return "()", ATOM
        return self._listed(node.elts) + ("," if len(node.elts) == 1 else ""), TUPLE

    def _List(self, node: ast.List) -> tuple[str, int]:
        return f"[{self._listed(node.elts)}]", ATOM

    def _Set(self, node: ast.Set) -> tuple[str, int]:
        return "{" + self._listed(node.elts) + "}", ATOM

    def _Dict(self, node: ast.Dict) -> tuple[str, int]:
        pairs = [
            f"{self.expression(key, WALRUS)}:{self.expression(value, WALRUS)}"
            if key
            else f"**{self.expression(value, BINARY[ast.BitOr][1])}"
            for key, value in zip(node.keys, node.values, strict=True)
        ]
        return "{" + ",".join(pairs) + "}", ATOM

    def _Starred(self, node: ast.Starred) -> tuple[str, int]:
        return f"*{self.expression(node.value, BINARY[ast.BitOr][1])}", ATOM

    def _BinOp(self, node: ast.BinOp) -> tuple[str, int]:
        sign, own = BINARY[type(node.op)]
        if isinstance(node.op, ast.Pow):
            return f"{self.expression(node.left, own + 1)}**{self.expression(node.right, own - 1)}", own
        return f"{self.expression(node.left, own)}{sign}{self.expression(node.right, own + 1)}", own

    def _UnaryOp(self, node: ast.UnaryOp) -> tuple[str, int]:
        sign, own = UNARY[type(node.op)]
        return f"{sign}{self.expression(node.operand, own)}", own

    def _BoolOp(self, node: ast.BoolOp) -> tuple[str, int]:
        own, sign = (AND, " and ") if isinstance(node.op, ast.And) else (OR, " or ")
        return sign.join(self.expression(part, own + 1) for part in node.values), own

    def _Compare(self, node: ast.Compare) -> tuple[str, int]:
        text = self.expression(node.left, COMPARISON + 1)
        for sign, part in zip(node.ops, node.comparators, strict=True):
            text += COMPARE[type(sign)] + self.expression(part, COMPARISON + 1)
        return text, COMPARISON

    def _IfExp(self, node: ast.IfExp) -> tuple[str, int]:
        parts = (node.body, TERNARY + 1), (node.test, TERNARY + 1), (node.orelse, TERNARY)
        body, test, orelse = (self.expression(part, level) for part, level in parts)
        return f"{body} if {test} else {orelse}", TERNARY

    def _NamedExpr(self, node: ast.NamedExpr) -> tuple[str, int]:
        return f"{self.expression(node.target)}:={self.expression(node.value, LAMBDA)}", BARE

    def _Lambda(self, node: ast.Lambda) -> tuple[str, int]:
        found = self.arguments(node.args)
        return f"lambda{' ' + found if found else ''}:{self.expression(node.body, LAMBDA)}", LAMBDA

    def _Call(self, node: ast.Call) -> tuple[str, int]:
        if len(node.args) == 1 and not node.keywords and isinstance(node.args[0], ast.GeneratorExp):
            return self.expression(node.func, ATOM) + self.expression(node.args[0], ATOM), ATOM
        parts = [self.expression(part, WALRUS) for part in node.args]
        for part in node.keywords:
            value = self.expression(part.value, LAMBDA)
            parts.append(f"{self.keyword(part, node)}={value}" if part.arg else f"**{value}")
        return f"{self.expression(node.func, ATOM)}({','.join(parts)})", ATOM

    def keyword(self, node: ast.keyword, call: ast.Call) -> str:
        """Name of a keyword argument."""
        assert node.arg is not None, "named arguments only"
        return node.arg

    def member(self, node: Any, name: str) -> str:
        """Name of an attribute."""
        return self.members.get(name, name)

    def _Attribute(self, node: ast.Attribute) -> tuple[str, int]:
        value = self.expression(node.value, ATOM)
        whole = isinstance(node.value, ast.Constant) and isinstance(node.value.value, int)
        return f"{value}{' ' if whole else ''}.{self.member(node, node.attr)}", ATOM

    def _Subscript(self, node: ast.Subscript) -> tuple[str, int]:
        starred = isinstance(node.slice, ast.Tuple) and any(isinstance(part, ast.Starred) for part in node.slice.elts)
        return f"{self.expression(node.value, ATOM)}[{self.expression(node.slice, WALRUS if starred else TUPLE)}]", ATOM

    def _Slice(self, node: ast.Slice) -> tuple[str, int]:
        parts = [self.expression(part, WALRUS) if part else "" for part in (node.lower, node.upper)]
        return ":".join(parts) + (":" + self.expression(node.step, WALRUS) if node.step else ""), ATOM

    def _comprehension(self, generators: list[ast.comprehension]) -> str:
        text = ""
        for part in generators:
            text += f" for {self.expression(part.target)} in {self.expression(part.iter, OR)}"
            text += "".join(f" if {self.expression(test, OR)}" for test in part.ifs)
        return text

    def _ListComp(self, node: ast.ListComp) -> tuple[str, int]:
        return f"[{self.expression(node.elt, WALRUS)}{self._comprehension(node.generators)}]", ATOM

    def _SetComp(self, node: ast.SetComp) -> tuple[str, int]:
        return "{" + self.expression(node.elt, WALRUS) + self._comprehension(node.generators) + "}", ATOM

    def _GeneratorExp(self, node: ast.GeneratorExp) -> tuple[str, int]:
        return f"({self.expression(node.elt, WALRUS)}{self._comprehension(node.generators)})", ATOM

    def _DictComp(self, node: ast.DictComp) -> tuple[str, int]:
        pair = f"{self.expression(node.key, WALRUS)}:{self.expression(node.value, WALRUS)}"
        return "{" + pair + self._comprehension(node.generators) + "}", ATOM

    def _Yield(self, node: ast.Yield) -> tuple[str, int]:
        return "yield" + (" " + self.expression(node.value) if node.value else ""), YIELD

    def _YieldFrom(self, node: ast.YieldFrom) -> tuple[str, int]:
        return f"yield from {self.expression(node.value, WALRUS)}", YIELD

    def arguments(self, node: ast.arguments) -> str:
        """Source of a parameter list."""
        parts: list[str] = []
        plain = [*node.posonlyargs, *node.args]
        defaults: list[Any] = [None] * (len(plain) - len(node.defaults)) + list(node.defaults)
        for index, (part, default) in enumerate(zip(plain, defaults, strict=True)):
            parts.append(self._argument(part, default))
            if index + 1 == len(node.posonlyargs):
                parts.append("/")
        if node.vararg:
            parts.append("*" + self._argument(node.vararg, None))
        elif node.kwonlyargs:
            parts.append("*")
        parts += [self._argument(part, value) for part, value in zip(node.kwonlyargs, node.kw_defaults, strict=True)]
        if node.kwarg:
            parts.append("**" + self._argument(node.kwarg, None))
        return ",".join(parts)

    def parameter(self, node: Any) -> str:
        """Name of a parameter."""
        return variable_of(node).name if hasattr(node, "variable") else node.arg

    def _argument(self, node: ast.arg, default: ast.expr | None) -> str:
        text = self.parameter(node)
        text += f":{self.expression(node.annotation, LAMBDA)}" if node.annotation else ""
        return text + (f"={self.expression(default, LAMBDA)}" if default else "")

"""Short names for the variables of a program.

Variables of functions get one letter where that is possible, the same for the same original name wherever two such names do
not meet; globals get two. What outsiders may call by name keeps its name: attributes, keyword arguments, functions whose
annotations are read.
"""

import ast
import itertools
import keyword
import string
from collections import Counter
from collections.abc import Iterator
from typing import Any

from fairway.bundle.program import Program
from fairway.bundle.scopes import COMPREHENSIONS, FUNCTIONS, Variable

LETTERS = string.ascii_lowercase + string.ascii_uppercase + "_"


def short_names() -> Iterator[str]:
    """``a`` to ``_``, then ``aa`` and so on."""
    for length in itertools.count(1):
        for letters in itertools.product(LETTERS, repeat=length):
            yield "".join(letters)


def local_names() -> Iterator[str]:
    """``a`` to ``_``, then ``a0`` to ``Z9``; no global has such a name."""
    yield from LETTERS
    yield from (letter + digit for digit in string.digits for letter in LETTERS)


class Renamer:
    """Collects where names meet, and deals out new ones."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.globals: Counter[Variable] = Counter()
        self.locals: Counter[str] = Counter()
        self.meets: dict[str, set[str]] = {}
        self.groups: dict[str, set[Variable]] = {}
        self.kept: set[Variable] = set()
        self.builtins: set[str] = set()
        self.fixed: set[str] = set()
        self.keywords = {
            part.arg for node in program.statements() for part in ast.walk(node) if isinstance(part, ast.keyword) and part.arg
        }
        self.taken: dict[str, set[str]] = {}

    def run(self) -> None:
        """Rename everything."""
        for variable in self.program.imports.values():
            self.globals[variable] += 1
        for node in self.program.statements():
            self._meet(ast.Module([node], []), set())
        for section in self.program.sections:
            if section.loader is not None:
                self.globals[section.loader] += 1
        taken = self.builtins | self.fixed | set(keyword.kwlist) | {"__file__", "__name__"}
        names = (name for name in short_names() if len(name) > 1 and name not in taken)
        # In the order in which they appear, so that each new name is the next one.
        for variable in self.globals:
            if not variable.name.startswith("__"):
                variable.name = next(names)
        self._color(taken)

    def _color(self, taken: set[str]) -> None:
        used: dict[str, str] = {}
        for name, _ in self.locals.most_common():
            near = {used[other] for other in self.meets[name] if other in used} | self.taken[name] | taken
            used[name] = next(short for short in local_names() if short not in near)
            for variable in self.groups[name]:
                variable.name = used[name]

    def _visit(self, node: ast.AST, inside: list[Variable]) -> None:
        """Count names; ``inside`` collects the local variables that are visible in the present function."""
        for part in _own_nodes(node):
            for variable in [part.variable] if hasattr(part, "variable") else getattr(part, "variables", []):
                self._count(variable, inside)
            if part is node:
                continue
            if isinstance(part, (*FUNCTIONS, ast.Lambda)):
                inside.extend(self._function(part))
            elif isinstance(part, (ast.ClassDef, *COMPREHENSIONS)):
                self._visit(part, inside)

    def _count(self, variable: Variable, inside: list[Variable]) -> None:
        while variable.alias is not None:
            variable = variable.alias
        if variable.kind == "builtin":
            self.builtins.add(variable.name)
        elif variable.kind == "global":
            self.globals[variable] += 1
        elif variable.kind == "local":
            inside.append(variable)

    def _function(self, node: Any) -> list[Variable]:
        arguments = node.args
        parameters = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
        kept = {part.variable for part in parameters if part.arg in self.keywords or part in arguments.kwonlyargs}
        return self._meet(node, set() if getattr(node, "by_place", False) else kept)

    def _meet(self, node: Any, kept: set[Variable]) -> list[Variable]:
        """Note which local names of a function meet; those in ``kept`` keep their names."""
        inside: list[Variable] = []
        self.kept |= kept
        self._visit(node, inside)
        self.kept |= set(inside) if getattr(node, "annotated", False) else set()
        self.fixed |= {variable.name for variable in kept | (set(inside) & self.kept)}
        counts = Counter(inside)
        names = {variable: variable.name for variable in counts if variable not in self.kept}
        fixed = {variable.name for variable in counts if variable in self.kept}
        for variable, name in names.items():
            self.meets.setdefault(name, set()).update(set(names.values()) - {name})
            self.taken.setdefault(name, set()).update(fixed)
            self.groups.setdefault(name, set()).add(variable)
            self.locals[name] += counts[variable]
        return inside


def _own_nodes(node: ast.AST) -> Iterator[Any]:
    """Nodes of a function, class or comprehension, those inside it included as a whole but not entered."""
    waiting: list[ast.AST] = [node]
    first = True
    while waiting:
        part = waiting.pop(0)
        yield part
        if not first and isinstance(part, (*FUNCTIONS, ast.Lambda, ast.ClassDef, *COMPREHENSIONS)):
            continue
        first = False
        waiting = [*ast.iter_child_nodes(part), *waiting]


def rename(program: Program) -> None:
    """Give every variable of the program a short name."""
    Renamer(program).run()

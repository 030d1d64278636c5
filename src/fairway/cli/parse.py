"""Arguments from dataclasses, and the two forms of output: an aligned table or one JSON document."""

import contextlib
import io
import json
import re
import sys
from collections.abc import Sequence
from typing import Annotated, Any, TypeVar

import tyro

from fairway.base.errors import FairwayError
from fairway.config import Recipe
from fairway.recipes import RECIPES, recipe

A = TypeVar("A")

Switch = Annotated[bool, tyro.conf.FlagCreatePairsOff]
"""A flag that is off unless it is given; it has no ``--no-`` form."""


def parse(kind: type[A], argv: Sequence[str], prog: str, default: A | None = None) -> A:
    """Fill the dataclass ``kind`` from ``argv``; names, types, help and suggestions come from its fields.

    Args:
        kind: The dataclass.
        argv: The arguments.
        prog: The command, for messages.
        default: Values of the fields that ``argv`` does not give; without it, those of ``kind``.

    Raises:
        FairwayError: an argument is unknown or has a bad value, said in one line.
    """
    captured = io.StringIO()
    given: dict[str, Any] = {} if default is None else {"default": default}
    try:
        with contextlib.redirect_stderr(captured):
            return tyro.cli(kind, args=list(argv), prog=f"fairway {prog}", **given)
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        raise FairwayError(_one_line(captured.getvalue(), prog)) from None
    finally:
        if not sys.exc_info()[0]:
            sys.stderr.write(captured.getvalue())


def _one_line(box: str, prog: str) -> str:
    """The sentence inside the parser's framed message."""
    lines = [re.sub(r"[\u2500-\u257f]", " ", line).strip() for line in box.splitlines()]
    text = " ".join(line for line in lines[1:] if line)
    text = re.split(r"Argument helptext:|For full helptext|Arguments: ", text)[0]
    text = re.sub(r"Perhaps you meant: (--[\w.-]+).*", r"did you mean \1?", text)
    return f"{text.strip().rstrip('.')}; fairway {prog} --help lists what it takes"


def named_recipe(argv: Sequence[str], prog: str) -> tuple[Recipe, Sequence[str]]:
    """The recipe named by the first argument, and the arguments after it.

    Raises:
        FairwayError: no name is given, or no recipe has it.
    """
    if argv and argv[0] in ("-h", "--help"):
        return recipe("tiny"), argv
    if not argv or argv[0].startswith("-"):
        raise FairwayError(f"fairway {prog} needs the name of a recipe first: {', '.join(RECIPES)}, or proxy-NAME")
    return recipe(argv[0]), argv[1:]


def emit(document: Any, text: str, *, as_json: bool) -> None:
    """Print one JSON document, or the text for people, to stdout."""
    print(json.dumps(document, indent=2, ensure_ascii=False) if as_json else text.rstrip("\n"))


def table(rows: Sequence[Sequence[Any]], header: Sequence[str]) -> str:
    """Aligned columns, numbers to the right."""
    cells = [list(header), *([_cell(item) for item in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    numeric = [all(isinstance(row[column], int | float) for row in rows) for column in range(len(header))]

    def line(row: Sequence[str]) -> str:
        parts = [c.rjust(w) if right else c.ljust(w) for c, w, right in zip(row, widths, numeric, strict=True)]
        return "  ".join(parts).rstrip()

    return "\n".join([line(cells[0]), "  ".join("-" * width for width in widths), *map(line, cells[1:])])


def _cell(item: Any) -> str:
    if isinstance(item, bool) or not isinstance(item, int | float):
        return str(item)
    return f"{item:,}" if isinstance(item, int) else f"{item:.4f}"

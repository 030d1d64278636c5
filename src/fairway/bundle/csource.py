"""C sources without comments and needless blanks."""

import re
from pathlib import Path

import fairway

_TOKENS = re.compile(r"//[^\n]*|/\*.*?\*/|\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*'|[ \t]*#(?:\\\n|[^\n])*|\s+|\w+|.", re.DOTALL)


def read_c(name: str) -> str:
    """Text of one of the package's C files."""
    return (Path(fairway.__file__).parent / "kernels" / name).read_text("utf-8")


def shorten(text: str) -> str:
    """The same tokens in the same order, directives on lines of their own.

    A blank stays where two words, or two signs that could become another one, would meet.
    """
    out = ""
    gap = False
    for token in _TOKENS.findall(text):
        if token.isspace() or token.startswith(("//", "/*")):
            gap = True
        elif token.lstrip().startswith("#"):
            line = re.sub(r"\s+", " ", re.sub(r"/\*.*?\*/|//.*", "", token)).strip()
            out += ("" if not out or out.endswith("\n") else "\n") + line + "\n"
            gap = False
        else:
            if gap and out and not out.endswith("\n") and _meet(out[-1], token[0]):
                out += " "
            out += token
            gap = False
    return out.strip() + "\n"


def _meet(left: str, right: str) -> bool:
    words = (left.isalnum() or left == "_") and (right.isalnum() or right == "_")
    return words or (left in "+-&|<>=*/" and right in "+-&|<>=*/")

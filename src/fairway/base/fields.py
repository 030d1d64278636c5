"""Strict reading of JSON objects: every refusal names the file, the field and the value."""

import math
from collections.abc import Iterator
from typing import Any

from fairway.base.errors import DataError

REMEDY = "restore the file or make it again"


class Fields:
    """One JSON object of a file, read field by field."""

    def __init__(self, content: Any, where: str) -> None:
        """Wrap ``content``; ``where`` names the file and the place in it."""
        if not isinstance(content, dict):
            raise DataError(f"{where} is a {kind_of(content)}; it must be an object with named fields; {REMEDY}")
        self.content: dict[str, Any] = content
        self.where = where

    def _get(self, name: str) -> Any:
        if name not in self.content:
            raise DataError(f"{self.where}: field {name!r} is missing; {REMEDY}")
        return self.content[name]

    def refuse(self, name: str, must: str) -> DataError:
        """The error for a field that is not what it must be."""
        shown = repr(self.content.get(name))
        shown = shown if len(shown) <= 60 else shown[:57] + "..."
        return DataError(f"{self.where}: field {name!r} is {shown}; it must be {must}; {REMEDY}")

    def number(self, name: str, *, finite: bool = True, least: float = -math.inf) -> float:
        """A number of at least ``least``; with ``finite=False`` NaN and infinities pass."""
        value = self._get(name)
        if isinstance(value, bool) or not isinstance(value, int | float) or (finite and not math.isfinite(value)):
            raise self.refuse(name, "a finite number" if finite else "a number")
        if value < least:
            raise self.refuse(name, f"at least {least:g}")
        return float(value)

    def optional(self, name: str, *, least: float = -math.inf) -> float | None:
        """A finite number, or None where the field is absent or null."""
        return None if self.content.get(name) is None else self.number(name, least=least)

    def whole(self, name: str, *, least: int = 0) -> int:
        """An integer of at least ``least``."""
        value = self._get(name)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise self.refuse(name, f"a whole number of at least {least}")
        return value

    def text(self, name: str) -> str:
        """A string."""
        value = self._get(name)
        if not isinstance(value, str):
            raise self.refuse(name, "text")
        return value

    def flag(self, name: str) -> bool:
        """True or false."""
        value = self._get(name)
        if not isinstance(value, bool):
            raise self.refuse(name, "true or false")
        return value

    def part(self, name: str) -> "Fields":
        """A nested object."""
        return Fields(self._get(name), f"{self.where}: field {name!r}")

    def named_parts(self, name: str) -> Iterator[tuple[str, "Fields"]]:
        """Name and content of every object inside a nested object."""
        part = self.part(name)
        for key in part.content:
            yield key, Fields(part.content[key], f"{self.where}: field '{name}.{key}'")

    def shape(self, name: str) -> tuple[int, ...]:
        """A list of lengths."""
        value = self._get(name)
        if not isinstance(value, list) or any(
            isinstance(item, bool) or not isinstance(item, int) or item < 0 for item in value
        ):
            raise self.refuse(name, "a list of whole numbers")
        return tuple(value)


def objects(content: Any, where: str) -> Iterator[Fields]:
    """The objects of a JSON list."""
    if not isinstance(content, list):
        raise DataError(f"{where} is a {kind_of(content)}; it must be a list of objects; {REMEDY}")
    for index, item in enumerate(content):
        yield Fields(item, f"{where}[{index}]")


def kind_of(content: Any) -> str:
    """The JSON name of a type."""
    kinds = {dict: "object", list: "list", str: "text", bool: "flag", int: "number", float: "number", type(None): "null"}
    return kinds.get(type(content), type(content).__name__)

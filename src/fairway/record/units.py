"""Units of a loss, and what turns one into another: the tokens and bytes of the scored text.

    nats per byte  = bpb * ln 2
    nats per token = bpb * ln 2 * bytes / tokens

The second factor belongs to one text cut by one tokenizer, so nats per token of different texts are different units.
"""

import math
from dataclasses import dataclass
from enum import StrEnum

from fairway.base.errors import DataError


class Unit(StrEnum):
    """Unit of a loss, a gap or a margin."""

    NATS_PER_TOKEN = "nats_per_token"
    NATS_PER_BYTE = "nats_per_byte"
    BPB = "bpb"

    @property
    def label(self) -> str:
        """The unit in words."""
        return self.value.replace("_", " ")


@dataclass(frozen=True)
class TextSize:
    """How many targets were scored, and how many UTF-8 bytes of the original text they stand for."""

    tokens: int
    bytes: int

    def __post_init__(self) -> None:
        if self.tokens < 1 or self.bytes < 1:
            raise DataError(f"a scored text of {self.tokens:,} tokens and {self.bytes:,} bytes holds nothing; score it again")

    def __str__(self) -> str:
        return f"{self.tokens:,} tokens, {self.bytes:,} bytes"


def per_bpb(unit: Unit, text: TextSize | None = None) -> float:
    """How many of ``unit`` make one bit per byte.

    Raises:
        DataError: nats per token of an unknown text.
    """
    if unit is Unit.BPB:
        return 1.0
    if unit is Unit.NATS_PER_BYTE:
        return math.log(2.0)
    if text is None:
        raise DataError("nats per token mean nothing beside another unit without the tokens and bytes of the text; give both")
    return math.log(2.0) * text.bytes / text.tokens


def convert(value: float, source: Unit, target: Unit, text: TextSize | None = None) -> float:
    """``value`` of unit ``source`` in unit ``target``; ``text`` is needed only to or from nats per token."""
    return value if source is target else value / per_bpb(source, text) * per_bpb(target, text)


@dataclass(frozen=True)
class Margin:
    """By how much one side must be better than the other, >= 0, in its own unit."""

    value: float
    unit: Unit

    def __post_init__(self) -> None:
        if not (math.isfinite(self.value) and self.value >= 0):
            raise DataError(f"the margin {self.value} {self.unit.label} is not a number of at least 0; the README's is 0.005")

    def in_unit(self, unit: Unit, new: TextSize | None, reference: TextSize | None) -> float:
        """The margin in the unit of the data of both sides.

        Raises:
            DataError: one of the units is nats per token and the texts of the two sides differ or are unknown.
        """
        if self.value == 0 or self.unit is unit:
            return self.value
        if Unit.NATS_PER_TOKEN in (unit, self.unit):
            require_same_text(new, reference, f"a margin in {self.unit.label} for data in {unit.label}")
        return convert(self.value, self.unit, unit, new)

    def __str__(self) -> str:
        return f"{self.value:g} {self.unit.label}"


def require_same_text(new: TextSize | None, reference: TextSize | None, what: str) -> None:
    """Refuse ``what`` unless both sides scored equally many tokens and bytes, and say so."""
    if new is None or reference is None:
        raise DataError(f"{what} needs the tokens and bytes of both sides; give them, or use bpb or nats per byte")
    if new != reference:
        raise DataError(f"{what} needs one text, but the sides scored {new} and {reference}; use bpb or nats per byte")

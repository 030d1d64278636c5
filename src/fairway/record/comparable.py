"""What may not be compared: other data, other text, a run given twice, and seeds of different recipes on one side."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from fairway.base.errors import DataError
from fairway.base.values import difference
from fairway.record.results import Result

SETTINGS_THAT_MAY_DIFFER = ("seed", "machine.")
"""Of the runs of one side."""


def refuse_different_text(results: Sequence[Result]) -> None:
    """All runs must have scored one text, counted by one rule."""
    known = [result for result in results if result.data_fingerprint is not None]
    for first, second in pairwise(known):
        if first.data_fingerprint != second.data_fingerprint:
            raise DataError(
                f"{first.name} was scored on data {first.data_fingerprint}, {second.name} on data {second.data_fingerprint}; "
                "bits per byte of different data cannot be compared, score both on the same --data"
            )
    for first, second in pairwise([result for result in results if result.partial is not None]):
        if first.partial != second.partial:
            part, whole = (first, second) if first.partial else (second, first)
            raise DataError(
                f"{part.name} scored a leading part of the text, {whole.name} all of it; "
                "score both with the same --score.max-tokens"
            )
        if first.byte_rule != second.byte_rule:
            raise DataError(
                f"{first.name} counts bytes by the rule {first.byte_rule!r}, {second.name} by {second.byte_rule!r}; "
                "score both on data with the same byte costs"
            )
    for first, second in pairwise(results):
        if first.text != second.text:
            raise DataError(
                f"{first.name} scored {first.text}, {second.name} {second.text}; score both on the same tokens and bytes"
            )


def refuse_repeated_runs(results: Sequence[Result]) -> None:
    """A run given twice would count as a seed that was never trained."""
    seen: dict[Any, Result] = {}
    for result in results:
        place = result.folder.root.resolve() if result.folder else result.name
        for key in (place, (result.artifact, result.bits_per_byte) if result.artifact else place):
            earlier = seen.setdefault(key, result)
            if earlier is not result:
                what = "the same run" if key == place else "the same artifact with the same score"
                raise DataError(f"{earlier.name} and {result.name} are {what}; give every run once")


def refuse_mixed_side(side: Sequence[Result]) -> None:
    """The runs of one side must differ in seed and machine alone."""
    first = side[0]
    for other in side[1:]:
        if first.record is not other.record:
            raise DataError(f"{first.name} and {other.name} are on one side; a published record must be a side of its own")
        if first.pass_name != other.pass_name or first.mode != other.mode:
            raise DataError(
                f"{first.name} is the pass {first.pass_name} ({first.mode}), {other.name} {other.pass_name} ({other.mode}); "
                "name one pass for all with --pass"
            )
        changed = differing_settings(first, other)
        if changed:
            raise DataError(
                f"{first.name} and {other.name} are not two seeds of one recipe: {listed(changed)}; put them on different sides"
            )


def differing_settings(first: Result, second: Result) -> list[str]:
    """Settings in which two runs differ, with both values; seed and machine are left out, and records without a recipe."""
    if first.recipe is None or second.recipe is None:
        return []
    return [
        f"{one.path} {one.value!r} and {two.value!r}"
        for one, two in difference(first.recipe, second.recipe)
        if not one.path.startswith(SETTINGS_THAT_MAY_DIFFER)
    ]


def listed(items: Sequence[str], most: int = 5) -> str:
    """The first few of ``items`` in one line."""
    return ", ".join(items[:most]) + (f" and {len(items) - most} more" if len(items) > most else "")

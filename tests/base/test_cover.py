"""Every name has exactly one rule, and every rule is used."""

import pytest

from fairway.base.cover import exact_cover
from fairway.base.errors import RecipeError


def test_each_name_gets_its_rule() -> None:
    rules = [("a.*", 1), ("b", 2)]
    assert exact_cover(["a.x", "a.y", "b"], rules, what="group") == {"a.x": 1, "a.y": 1, "b": 2}


@pytest.mark.parametrize(
    ("names", "rules", "message"),
    [
        (["c"], [("a", 1)], "parameter c has 0 rules for its group"),
        (["a"], [("a", 1), ("*", 2)], r"parameter a has 2 rules for its group \(a, \*\)"),
        (["a"], [("a", 1), ("b", 2)], "match no parameter: b"),
    ],
)
def test_gaps_overlaps_and_idle_rules_are_refused(names: list[str], rules: list, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        exact_cover(names, rules, what="group")

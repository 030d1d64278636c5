"""``fairway recipe diff`` reads like a pull request's own list of techniques."""

import json

import pytest

from fairway.base.errors import FairwayError
from fairway.base.values import difference
from fairway.cli.recipes import recipe as command
from fairway.recipes import recipe
from fairway.recipes.lineage import SYSTEMS


def document(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict]:
    assert command([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_difference_to_a_parent_is_its_list_of_techniques(capsys: pytest.CaptureFixture[str]) -> None:
    found = document(capsys, "diff", "pr1413", "pr1557")
    assert [entry["technique"] for entry in found] == [technique.name for technique in SYSTEMS["pr1557"].techniques]
    assert all(entry["why"] and entry["source"] and entry["title"].startswith("+ ") for entry in found)


@pytest.mark.parametrize(("old", "new"), [("pr1413", "pr1776"), ("pr1533", "pr1557"), ("pr1557", "pr1394"), ("pr1776", "tiny")])
def test_every_setting_that_differs_is_listed_once(capsys: pytest.CaptureFixture[str], old: str, new: str) -> None:
    found = document(capsys, "diff", old, new)
    listed = [item["setting"] for entry in found for item in entry.get("settings", [entry])]
    expected = {after.path for _, after in difference(recipe(old), recipe(new))} - {"name", "summary"}
    assert sorted(listed) == sorted(expected)


def test_what_the_older_has_alone_is_listed_as_missing(capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["diff", "pr1776", "pr1533"]) == 0
    shown = capsys.readouterr().out
    assert "+ two decoupled lanes from layer 7 on, merged by one learned number (PR #1523, PR #1533)" in shown
    assert "- query gain 5.25 (PR #1776)" in shown
    assert "model.query_gain: 5.25 -> 5.0" in shown
    assert "depth recurrence" not in shown


def test_proxies_are_told_by_the_same_techniques(capsys: pytest.CaptureFixture[str]) -> None:
    found = document(capsys, "diff", "proxy-pr1413", "proxy-pr1533")
    assert [entry["technique"] for entry in found] == [technique.name for technique in SYSTEMS["pr1533"].techniques]


def test_a_recipe_does_not_differ_from_itself(capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["diff", "pr1413", "pr1413"]) == 0
    assert "have the same settings" in capsys.readouterr().out


def test_a_wrong_number_of_names_is_refused() -> None:
    with pytest.raises(FairwayError, match="takes 2 names"):
        command(["diff", "pr1413"])

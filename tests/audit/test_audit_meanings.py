"""What a failure means, said so that a newcomer understands it: for every test, in audit.json and on the screen."""

import importlib
import json
import pkgutil
import re

import numpy as np
import pytest

import fairway.audit
import fairway.record
from audit.audit_toys import Toy
from fairway.audit.coverage import coverage
from fairway.audit.prefix import replay_prefixes
from fairway.audit.run import CATALOGUE, audit_document
from fairway.audit.runner import NO_SCORE, Outcome, Sheet
from fairway.audit.scorer import Meta
from fairway.audit.streams import generate
from fairway.cli import main

JARGON = re.compile(r"kraft|prefix|\bKL\b|distribution|nats|normali[sz]ed|martingale|causal|entropy|entry|hash", re.IGNORECASE)


def sheets() -> dict[str, Sheet]:
    """Every sheet of the package, by module and name."""
    found = {}
    for package in (fairway.audit, fairway.record):
        for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            content = vars(importlib.import_module(module.name))
            found |= {f"{value.test} {value.name}": value for value in content.values() if isinstance(value, Sheet)}
    return found


SHEETS = sheets()


def test_all_tests_are_looked_at() -> None:
    assert {test.letter for test in CATALOGUE} | set("QYZW") == {sheet.test for sheet in SHEETS.values()}
    assert len(SHEETS) == 18


@pytest.mark.parametrize("meaning", [*(sheet.failure for sheet in SHEETS.values()), NO_SCORE], ids=[*SHEETS, "no score"])
def test_a_failure_has_a_plain_meaning(meaning: str) -> None:
    sentences = re.split(r"(?<=[.!?])\s+", meaning)
    assert 1 <= len(sentences) <= 2
    assert all(sentence[0].isupper() and sentence.endswith(".") for sentence in sentences)
    assert 60 <= len(meaning) <= 260
    assert not JARGON.search(meaning)
    assert "  " not in meaning


def test_no_two_tests_mean_the_same() -> None:
    assert len({sheet.failure for sheet in SHEETS.values()}) == len(SHEETS)


def test_findings_and_their_document_carry_the_meaning() -> None:
    findings = [sheet.finding(Outcome("fail", 1.0, 0.0, "a reason")) for sheet in SHEETS.values()]
    written = audit_document("all", findings)["findings"]
    assert [item["meaning"] for item in written] == [sheet.failure for sheet in SHEETS.values()]


class Short(Toy):
    """Returns too few costs."""

    def score(self, tokens: np.ndarray, meta: Meta) -> np.ndarray:
        return super().score(tokens, meta)[:-1]


@pytest.mark.parametrize("test", [coverage, replay_prefixes])
def test_what_is_no_score_is_said_to_be_none(test) -> None:
    finding = test(Short(), generate(Short().vocab_size, 0, 60).logic)
    assert finding.verdict == "fail"
    assert finding.meaning == NO_SCORE
    assert test(Toy(), generate(Toy().vocab_size, 0, 60).logic).meaning != NO_SCORE


def test_the_command_prints_it_under_the_reason(tmp_path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    (tmp_path / "gated_scorer.py").write_text(
        "import numpy as np\n\ndef gated(tokens, meta):\n    return np.where(tokens[1:] % 2 == 1, 0.1, np.log(8))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    out = tmp_path / "audit.json"
    words = ["--scorer", "gated_scorer:gated", "--vocab", "8", "--budget-seconds", "20", "--out", str(out)]
    assert main(["audit", *words]) == 1
    lines = capsys.readouterr().out.splitlines()
    failures = [item for item in json.loads(out.read_text())["findings"] if item["verdict"] == "fail"]
    assert "S" in {item["test"] for item in failures}
    for item in failures:
        place = lines.index(f"{item['test']} fail: {item['reason']}")
        assert lines[place + 1] == f"  {item['meaning']}"

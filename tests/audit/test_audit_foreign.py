"""Scorers that are not ours: functions, commands, their mistakes, and the example in the documents."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from fairway.audit.foreign import CommandScorer, HookedScorer, callable_scorer, declared, load_function
from fairway.audit.run import audit_document, failed, judge, run_audit, write_audit
from fairway.audit.scorer import Meta
from fairway.audit.streams import generate
from fairway.audit.substitution import substitution_sum
from fairway.audit.witness import replay
from fairway.base.errors import FairwayError
from fairway.cli import main

ROOT = Path(__file__).parents[2]

MODULE = """
import numpy as np

def flat(tokens, meta):
    assert set(meta) == {"targets", "document_starts", "vocab_size"}
    return np.full(len(tokens) - 1, np.log(meta["vocab_size"]))

def hook(tokens, meta, entries):
    return np.full((len(entries), meta["vocab_size"]), -np.log(meta["vocab_size"]))

def short(tokens, meta):
    return flat(tokens, meta)[1:]

def missing(tokens, meta):
    return [float("nan")] * (len(tokens) - 1)

def negative(tokens, meta):
    return -flat(tokens, meta)

def broken(tokens, meta):
    raise RuntimeError("no weights\\nhere")

number = 3
"""

PROGRAM = """
import json, sys
import numpy as np
tokens = np.fromfile(sys.argv[1], "<u2")[512:]
meta = json.load(open(sys.argv[2]))
assert meta["targets"] == len(tokens) - 1, "bad meta"
np.save(sys.argv[3], np.full(len(tokens) - 1, np.log(meta["vocab_size"])))
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "made_up_scorer.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "made_up_scorer", raising=False)
    return "made_up_scorer"


def test_a_function_is_called_with_plain_values(module: str) -> None:
    scorer = callable_scorer(f"{module}:flat", 8, declares="targets")
    assert scorer.declares == {"targets"}
    np.testing.assert_allclose(scorer.score(np.zeros(4, dtype=np.int64), Meta(3)), np.log(8))
    hooked = callable_scorer(f"{module}:flat", 8, hook=f"{module}:hook")
    assert isinstance(hooked, HookedScorer)
    assert hooked.distributions(np.zeros(4, dtype=np.int64), Meta(3), np.array([0, 2])).shape == (2, 8)


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("made_up_scorer", "does not name a function"),
        ("no_such_module:score", "cannot be imported"),
        ("made_up_scorer:falt", "did you mean 'flat'"),
        ("made_up_scorer:number", "no function"),
    ],
)
def test_names_that_lead_nowhere(module: str, reference: str, message: str) -> None:
    with pytest.raises(FairwayError, match=message):
        load_function(reference)


def test_side_information_is_checked() -> None:
    assert declared("") == frozenset()
    assert declared("documents, targets") == {"targets", "documents"}
    with pytest.raises(FairwayError, match="did you mean 'targets'"):
        declared("target")


@pytest.mark.parametrize("function", ["short", "missing", "negative"])
def test_what_is_no_score_fails_without_a_traceback(module: str, function: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "--scorer", f"{module}:{function}", "--vocab", "8", "--budget-seconds", "20"]) == 1
    assert "no score" in capsys.readouterr().out


def test_an_error_of_the_scorer_is_one_line_that_names_it(module: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "--scorer", f"{module}:broken", "--vocab", "8"]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1
    assert "made_up_scorer:broken failed" in said[0]
    assert "no weights here" in said[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "exactly one of"),
        (["--scorer", "a:b", "--command", "c {tokens} {out}", "--vocab", "4"], "scorer and command"),
        (["--scorer", "made_up_scorer:flat"], "--vocab N is needed"),
        (["--command", "prog {tokens}", "--vocab", "4"], "lacks {out}"),
        (["--command", "prog {tokens} {out}", "--vocab", "70000"], "at most 65536"),
        (["--command", "prog {tokens} {out}", "--vocab", "4", "--hook", "a:b"], "--hook goes with --scorer"),
        (["--scorer", "made_up_scorer:flat", "--vocab", "4", "--pass", "plain"], "--pass names a pass of an artifact"),
        (["nothing.fwz"], "does not exist"),
        (["nothing.fwz", "--vocab", "4"], "an artifact says these itself"),
    ],
)
def test_mistakes_are_told(module: str, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_a_command_reads_a_shard_and_writes_an_array(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    scorer = CommandScorer(f"{sys.executable} {tmp_path / 'program.py'} {{tokens}} {{meta}} {{out}}", 8)
    np.testing.assert_allclose(scorer.score(np.array([0, 7, 3]), Meta(2)), np.log(8))
    with pytest.raises(FairwayError, match="bad meta"):
        scorer.score(np.array([0, 7, 3]), Meta(5))


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("no-such-program {tokens} {out}", "cannot be started"),
        (f"{sys.executable} -c pass {{tokens}} {{out}}", "wrote no array"),
        (
            f"{sys.executable} -c 'import sys; sys.exit(\"out of memory\")' {{tokens}} {{out}}",
            "ended with code 1: out of memory",
        ),
    ],
)
def test_commands_that_fail(template: str, message: str) -> None:
    with pytest.raises(FairwayError, match=message):
        CommandScorer(template, 8).score(np.array([0, 1]), Meta(1))


def test_the_example_passes_and_its_gated_twin_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys) -> None:
    monkeypatch.chdir(ROOT)
    out = tmp_path / "audit.json"
    options = ["--vocab", "24", "--budget-seconds", "60"]
    assert main(["audit", "--scorer", "examples.foreign_scorer:honest", *options]) == 0
    capsys.readouterr()
    assert main(["audit", "--scorer", "examples.foreign_scorer:gated", *options, "--out", str(out)]) == 1
    shown = capsys.readouterr().out
    document = json.loads(out.read_text())
    assert document["verdict"] == "fail"
    (finding,) = [item for item in document["findings"] if item["verdict"] == "fail"]
    assert finding["test"] == "S"
    witness = finding["witness"]
    first, second = witness["tokens"]["substituted"]
    assert first != second
    assert witness["found"] > 1.01
    assert f"substitutions {first}" in shown
    assert str(second) in shown
    assert f"{witness['found']:.6g}" in shown
    assert [item["verdict"] for item in document["conditions"] if item["condition"] == "normalised"] == ["fail"]


def test_the_hook_of_the_example_is_its_score(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    names = [f"examples.foreign_scorer:{name}" for name in ("honest", "gated", "distributions")]
    stream = generate(90, 0, 160).logic
    assert substitution_sum(callable_scorer(names[0], 90, hook=names[2]), stream).verdict == "pass"
    gated = callable_scorer(names[1], 90, hook=names[2])
    finding = substitution_sum(gated, stream)
    assert finding.verdict == "fail"
    assert finding.witness is not None
    assert replay(finding.witness, gated) == (pytest.approx(finding.witness.expected), pytest.approx(finding.witness.found))


def test_a_small_budget_leaves_tests_undecided(module: str) -> None:
    scorer = callable_scorer(f"{module}:flat", 8)
    findings = run_audit(scorer, generate(8, 0, 100, 100), 0.0)
    assert {finding.verdict for finding in findings} == {"undecided", "not applicable"}
    assert all("time budget" in finding.reason for finding in findings if finding.verdict == "undecided")
    assert not failed(findings)
    assert audit_document("flat", findings)["verdict"] == "undecided"


def test_conditions_need_their_tests(module: str, tmp_path: Path) -> None:
    scorer = callable_scorer(f"{module}:flat", 8)
    findings = run_audit(scorer, generate(8, 0, 100, 100), 60.0)
    verdicts = {item.condition: item.verdict for item in judge(findings)}
    for condition in ("causal", "normalised", "score before update", "single pass"):
        assert verdicts[condition] == "pass"
    assert verdicts["bytes"] == verdicts["claim"] == "not applicable"
    without = [finding for finding in findings if finding.test != "S"]
    assert {item.condition: item.verdict for item in judge(without)}["normalised"] == "undecided"
    write_audit(tmp_path / "audit.json", audit_document("flat", findings, seed=0))
    document = json.loads((tmp_path / "audit.json").read_text())
    assert document["verdict"] == "pass"
    assert {"test", "verdict", "statistic", "tolerance", "blind_to", "reason"} <= set(document["findings"][0])


def test_the_page_says_what_happens(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The Python of the page runs, and the failure that it prints is the one that comes out."""
    monkeypatch.chdir(ROOT)
    page = (ROOT / "docs" / "how-to" / "audit-a-scorer.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", page, flags=re.S)
    for block in blocks:
        exec(compile(block, "audit-a-scorer.md", "exec"), {})
    assert len(blocks) == 2
    (line,) = re.findall(r"```text\n(.*?)\n```", page, flags=re.S)
    assert main(["audit", "--scorer", "examples.foreign_scorer:gated", "--vocab", "32"]) == 1
    assert line in capsys.readouterr().out


def test_a_command_is_audited_within_its_budget(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    template = f"{sys.executable} {tmp_path / 'program.py'} {{tokens}} {{meta}} {{out}}"
    assert main(["audit", "--command", template, "--vocab", "8", "--budget-seconds", "4", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    verdicts = {finding["test"]: finding["verdict"] for finding in document["findings"]}
    assert verdicts["X"] == "pass"
    assert verdicts["S"] == "undecided"
    assert document["scorer"] == template

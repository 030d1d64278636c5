"""Proof and audit belong to the artifact and the result that they were made of, and the page shows them as soon as they are."""

import json
import shutil
import sys

import pytest

from cli.commands import flags
from fairway.base.runs import RunFolder
from fairway.base.values import with_fields
from fairway.cli import main
from report.fake_run import make_audit, make_proof, write
from report.test_report_page import read


@pytest.fixture(scope="module")
def finished(quick, corpus, tmp_path_factory):
    """A run with a page, scored by a pass that is quick to audit."""
    out = tmp_path_factory.mktemp("evidence") / "run"
    words = flags(with_fields(quick, {"score.max_tokens": 300}))
    assert main(["run", "tiny", "--data", str(corpus), "--out", str(out), *words, "--score.passes", "float", "plain"]) == 0
    return out


@pytest.fixture
def run(finished, tmp_path):
    """A copy of the run, with a proof and an audit in it."""
    folder = RunFolder(shutil.copytree(finished, tmp_path / "run"))
    write(folder.proof, make_proof())
    folder.coded.write_bytes(b"coded")
    write(folder.audit, make_audit(pass_name="plain"))
    return folder


def test_a_new_artifact_has_no_evidence_yet(run, capsys):
    run.report.write_text("an old page")
    assert main(["pack", str(run.root)]) == 0
    assert not any(path.exists() for path in (run.proof, run.coded, run.audit))
    assert "proof.json, proof.fwc, audit.json" in capsys.readouterr().err
    assert "not audited" in run.report.read_text()


def test_a_new_score_keeps_the_proof_of_its_artifact(run, capsys):
    run.report.write_text("an old page")
    assert main(["score", str(run.root)]) == 0
    assert not run.audit.exists()
    assert run.proof.exists()
    assert run.coded.exists()
    assert "removed what spoke of the files before: audit.json" in capsys.readouterr().err
    assert "not audited" in run.report.read_text()


def test_a_score_elsewhere_leaves_the_evidence(run, tmp_path):
    assert main(["score", str(run.root), "--out", str(tmp_path / "other")]) == 0
    assert all(path.exists() for path in (run.proof, run.coded, run.audit))


def test_there_may_be_nothing_to_drop(tmp_path):
    assert RunFolder(tmp_path).drop_evidence(artifact=True) == ()


def test_an_audit_reaches_the_page(run, capsys):
    run.audit.unlink()
    write(run.score, json.loads(run.score.read_text()) | {"mode": "as_published"})
    assert main(["audit", str(run.root), "--budget-seconds", "2"]) == 0
    page, said = read(run.root), capsys.readouterr()
    assert "not audited" not in page.words
    assert "#validity" in {link["href"] for link in page.all("a")}
    assert "is written anew" in said.err
    assert "this score cannot be claimed: With these settings" in said.out
    assert "Why this score cannot be claimed With these settings" in page.words


def test_an_audit_needs_no_library_of_the_page(run, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    run.audit.unlink()
    before = run.report.read_bytes()
    assert main(["audit", str(run.root), "--budget-seconds", "2"]) == 0
    assert json.loads(run.audit.read_text())["verdict"] != "fail"
    assert run.report.read_bytes() == before
    assert "jinja2" in capsys.readouterr().err


def test_a_proof_reaches_the_page(run, capsys):
    run.proof.unlink()
    assert main(["prove", str(run.root), "--tokens", "100"]) == 0
    assert "proved by decoding 100 targets" in read(run.root).words
    assert "is written anew" in capsys.readouterr().err


def test_an_audit_follows_the_settings_of_the_score(run):
    """The artifact's own settings are those of packing; a score may have been made with others, and with another last pass."""
    words = ("--score.context", "16", "--score.stride", "8", "--score.passes", "plain", "sliding")
    assert main(["score", str(run.root), *words]) == 0
    assert main(["audit", str(run.root), "--budget-seconds", "2"]) == 0
    audit = json.loads(run.audit.read_text())
    assert audit["scorer"].endswith(" sliding")
    (again,) = [item for item in audit["findings"] if item["test"] == "E" and item["name"] == "ledger scored again"]
    assert again["verdict"] == "pass"
    stated = json.loads(run.score.read_text())
    stated["settings"]["context"] = 32
    write(run.score, stated)
    assert main(["audit", str(run.root), "--budget-seconds", "2"]) == 1

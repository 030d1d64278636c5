"""What the audit found, as the report shows it."""

import json
import logging
import re
import sys

import pytest

from fairway.audit.influence import SHEET as INFLUENCE
from fairway.base.errors import DataError
from fairway.report import load_run, write_report
from fairway.report.load import MADE_BY
from fairway.report.page import REPORT, refresh_report
from report.fake_run import HOSTILE, make_audit, make_run, write
from report.test_report_page import read

SMALL = {"steps": 40, "targets": 2048, "documents": 9}


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "run", files=("score.json",), **SMALL)


def shown(run, **audit):
    """The words of the page for a run with such an audit."""
    write(run / "audit.json", make_audit(**audit))
    write_report(run)
    return read(run).words


def badge(run):
    text = (run / REPORT).read_text("utf-8")
    found = re.search(r'<li(?: class="(\w+)")?>([^<]*audit [^<]*)</li>', text)
    assert found is not None
    return found[1], found[2]


def test_a_failure_is_explained(run):
    words = shown(run, failing=("G", "F"), undecided=("W",))
    assert badge(run) == ("bad", "✗ audit failed: causal, score before update, single pass")
    section = words.partition("At least one test of the audit failed")[2]
    assert INFLUENCE.failure in section
    assert "✗ G influence graph" in section
    assert "Found: what influence graph came to." in section
    assert section.index(INFLUENCE.failure) < section.index("Found: what influence graph")
    assert "Not decided W wall clock: what wall clock came to" in section
    assert "causal ✗ fail fail F G, pass D E H K N O P S U each prediction uses only" in section
    assert "runs/tiny/model.fwz adapted" in section
    page = read(run)
    assert "validity" in {attributes.get("id") for _, attributes in page.elements}
    links = [link["href"] for link in page.all("a")]
    assert links[links.index("#validity") - 1] == "#score"


def test_validity_comes_after_the_proof(full_source):
    links = [link["href"] for link in read(full_source).all("a")]
    assert links[links.index("#proof") + 1] == "#validity"
    assert badge(full_source) == ("good", "✓ audit passed")


def test_a_pass_and_an_open_verdict(run):
    words = shown(run)
    assert badge(run) == ("good", "✓ audit passed")
    assert "No test of the audit failed, and the four conditions" in words
    assert "✗" not in words.partition("four conditions")[2].partition("Recipe")[0]
    words = shown(run, undecided=("F", "G", "S", "D", "O", "W"))
    assert badge(run) == (None, "audit undecided")
    assert "could not decide" in words
    assert "undecided" in words.partition("could not decide")[2]


def test_without_an_audit_the_page_says_who_makes_one(run):
    write_report(run)
    page = read(run)
    assert MADE_BY["audit.json"] in page.words
    assert "fairway audit writes it" in MADE_BY["audit.json"]
    assert "#validity" not in {link["href"] for link in page.all("a")}
    assert "audit passed" not in page.words


def test_an_audit_of_an_earlier_version_still_loads(run):
    content = make_audit(failing=("K",))
    for finding in content["findings"]:
        del finding["meaning"]
    write(run / "audit.json", content)
    write_report(run)
    assert "Found: what Kraft enumeration came to." in read(run).words
    assert {finding.meaning for finding in load_run(run).audit.findings} == {""}


def test_an_audit_of_another_pass_is_a_warning(run):
    words = shown(run, pass_name="plain")
    assert (
        "audit.json is about the pass plain, the result is that of the pass adapted; run: fairway audit RUN --pass adapted"
        in words.partition("Validity")[0]
    )
    write(run / "audit.json", make_audit() | {"scorer": "somebody's scorer"})
    assert not load_run(run).warnings


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("verdict"), r"field 'verdict' is missing"),
        (lambda c: c.update(verdict="maybe"), r"field 'verdict' is 'maybe'; it must be one of pass, fail"),
        (lambda c: c.update(verdict="pass"), r"field 'verdict' is 'pass'; it must be fail where a condition fails"),
        (lambda c: c.update(verdict="not applicable"), r"it must be fail where a condition fails, elsewhere pass"),
        (lambda c: c.update(scorer=3), r"field 'scorer' is 3; it must be text"),
        (lambda c: c.pop("conditions"), r"field 'conditions' is a null; it must be a list"),
        (lambda c: c["conditions"][0].update(tests=[1]), r"'conditions'\[0\]: field 'tests' is a list"),
        (lambda c: c["conditions"][0]["tests"].update(F="good"), r"'conditions'\[0\]: field 'tests': field 'F' is 'good'"),
        (lambda c: c.update(findings={}), r"field 'findings' is a object; it must be a list"),
        (lambda c: c["findings"][1].pop("reason"), r"'findings'\[1\]: field 'reason' is missing"),
        (lambda c: c["findings"][1].update(meaning=None), r"'findings'\[1\]: field 'meaning' is None; it must be text"),
        (lambda c: c["findings"][2].update(verdict="n.a."), r"'findings'\[2\]: field 'verdict' is 'n\.a\.'"),
    ],
)
def test_a_malformed_audit_is_refused(run, change, message):
    content = make_audit(failing=("F",))
    change(content)
    write(run / "audit.json", content)
    with pytest.raises(DataError, match=rf"audit\.json: .*{message}") as caught:
        load_run(run)
    assert "\n" not in str(caught.value)


def test_a_truncated_audit_is_refused(run):
    write(run / "audit.json", make_audit())
    content = (run / "audit.json").read_bytes()
    (run / "audit.json").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"audit\.json is not valid JSON"):
        load_run(run)


def test_nothing_that_the_audit_says_becomes_markup(run):
    content, clean = make_audit(failing=("F",)), HOSTILE.replace("\ud800", "")
    content["scorer"] = clean
    for part in (*content["conditions"], *content["findings"]):
        part |= {"condition": clean, "name": clean, "test": clean, "reason": clean, "meaning": clean}
        if "tests" in part:
            part["tests"] = {clean: "fail"}
    write(run / "audit.json", content)
    write_report(run)
    page = read(run)
    assert not page.all("script")
    assert not [attributes for _, attributes in page.elements if "onerror" in attributes]
    assert "".join(page.text).count("<script>alert(1)</script>") > 8


@pytest.mark.parametrize(("mode", "told"), [("as_published", True), ("strict", False)])
def test_a_published_order_is_said_not_to_count(run, mode, told):
    content = json.loads((run / "score.json").read_text("utf-8"))
    result = content["passes"].pop("adapted")
    content |= {"mode": mode, "pass": "documents_tilted", "passes": content["passes"] | {"documents_tilted": result}}
    write(run / "score.json", content)
    write_report(run)
    words = read(run).words
    assert ("Why this score cannot be claimed Documents are scored side by side in an order" in words) is told
    assert ("no decoder can follow; score.mode=strict orders the same parts" in words) is told


def test_the_page_is_written_anew_only_where_there_is_one(run, caplog):
    write(run / "audit.json", make_audit())
    refresh_report(run)
    assert not (run / REPORT).exists()
    (run / REPORT).write_text("old")
    with caplog.at_level(logging.INFO, "fairway"):
        refresh_report(run)
    assert badge(run) == ("good", "✓ audit passed")
    assert "is written anew" in caplog.text


@pytest.mark.parametrize(("module", "name"), [("matplotlib.figure", "matplotlib"), ("jinja2", "jinja2")])
def test_a_machine_without_the_libraries_keeps_the_old_page(run, monkeypatch, caplog, module, name):
    (run / REPORT).write_text("old")
    monkeypatch.setitem(sys.modules, module, None)
    with caplog.at_level(logging.WARNING, "fairway"):
        refresh_report(run)
    assert (run / REPORT).read_text() == "old"
    assert re.search(rf"report\.html is as it was.*{name}.*pip install", caplog.text)

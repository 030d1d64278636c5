import base64
import hashlib
import html.parser
import io
import json
import re
import sys
from xml.etree import ElementTree

import pytest
from PIL import Image

from fairway.base.errors import DataError, MachineError
from fairway.report import load_run, write_report
from fairway.report.figures import PLOT_NAMES
from fairway.report.page import REPORT
from report.fake_run import FILES, HOSTILE, make_run

VOID = {"meta", "link", "img", "br", "hr", "input", "source"}


class Page(html.parser.HTMLParser):
    """Elements and text of a page; fails on tags that do not nest."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.elements, self.text = [], [], []
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] != "style":
            self.text.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def words(self):
        return " ".join(" ".join(self.text).split())


def read(run):
    return Page((run / REPORT).read_text("utf-8"))


def test_full_page_is_self_contained(full_source):
    text = (full_source / REPORT).read_text("utf-8")
    page = Page(text)
    assert not re.search(r"https?://|//cdn|@import|url\(", text)
    assert not page.all("script")
    assert not page.all("iframe")
    images = page.all("img")
    assert len(images) == len(PLOT_NAMES)
    for image in images:
        assert image["src"].startswith("data:image/png;base64,")
        assert image["alt"]
        with Image.open(io.BytesIO(base64.b64decode(image["src"].partition(",")[2], validate=True))) as picture:
            assert picture.size == (int(image["width"]), int(image["height"]))
    assert all(link["href"].startswith(("#", "data:")) for link in page.all("a") + page.all("link"))
    targets = {attributes["id"] for _, attributes in page.elements if "id" in attributes}
    assert {link["href"][1:] for link in page.all("a")} <= targets


def test_full_page_shows_every_record(full_source):
    data, page = load_run(full_source), read(full_source)
    words = page.words
    for item in data.score.passes:
        assert item.name in words
        assert f"{item.bits_per_byte:.5f}" in words
    assert f"{data.score.bits_per_byte:.4f}" in words
    for record in data.tensors:
        assert record.name in words
    assert "Size within budget: 503,442 of 1,000,000 bytes" in words
    assert "871,440 parameters" in words
    assert "scaled_dot_product" in words
    assert "proved by decoding 4,096 targets" in words
    assert "2.26325" in words
    assert "None was set by hand" in words
    assert '"chunk_tokens": 1024' in words
    assert "Not in this run folder" not in words
    assert "``" not in words


def test_every_picture_is_also_a_file(full_source):
    for name in PLOT_NAMES:
        with Image.open(full_source / f"{name}.png") as picture:
            picture.load()
            assert picture.width > 800


def test_sample_text_cannot_become_markup(full_source):
    page = read(full_source)
    assert not page.all("script")
    assert not [attributes for _, attributes in page.elements if "onerror" in attributes]
    text = "".join(page.text)
    assert "</pre><script>alert(1)</script><img src=x onerror=alert(2)> & \"quoted\" 'single'" in text
    assert "<U+0000><U+0007><U+001B>[31m <U+007F><U+0085> <U+202E> <U+D800> <U+FFFE> {{ 7 * 7 }} $x_1$" in text


def test_no_inserted_text_can_become_markup(tmp_path):
    run = make_run(tmp_path / "run", steps=40, targets=2048, documents=9)
    clean = HOSTILE.replace("\ud800", "")
    for name in ("environment.json", "score.json", "tensors.json", "recipe.json"):
        content = json.loads((run / name).read_text("utf-8"))
        if name == "environment.json":
            content |= {"device": clean, clean: clean, "versions": {clean: [clean]}}
        elif name == "score.json":
            content |= {"mode": clean, "predictor": clean, "data_fingerprint": clean}
            content["clock"][clean] = {"seconds": 9.0, "counted": False}
        elif name == "recipe.json":
            content |= {"summary": clean, "name": clean}
        else:
            content[1] |= {"name": clean, "role": clean, "scheme": clean}
        (run / name).write_text(json.dumps(content), "utf-8")
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"event": "stop", "reason": clean, "step": 40, "seconds": 1.0}) + "\n")
    write_report(run)
    page = read(run)
    assert not page.all("script")
    assert not [attributes for _, attributes in page.elements if "onerror" in attributes]
    assert "".join(page.text).count("<script>alert(1)</script>") > 8
    assert "\x00" not in (run / REPORT).read_text("utf-8")


def test_page_is_well_formed_markup(full_source):
    text = (full_source / REPORT).read_text("utf-8").replace("<!doctype html>", "")
    for tag in VOID:
        text = re.sub(rf"<{tag}\b([^>]*)>", rf"<{tag}\1/>", text)
    ElementTree.fromstring(text)


def test_recipe_alone_makes_a_report(tmp_path):
    run = make_run(tmp_path / "run", files=())
    write_report(run)
    page = read(run)
    assert "No score yet" in page.words
    assert not page.all("img")
    for name in FILES:
        assert name in page.words
    assert not list(run.glob("*.png"))


@pytest.mark.parametrize("name", FILES)
def test_each_file_alone_makes_a_report(tmp_path, name):
    run = make_run(tmp_path / "run", files=(name,), steps=60, targets=4096, documents=12)
    assert write_report(run) == run / REPORT
    assert name not in read(run).words.partition("Not in this run folder")[2].partition("Recipe")[0]


@pytest.mark.parametrize("passes", [("plain",), ("float", "plain"), ("float", "plain", "sliding"), ("sliding", "adapted")])
def test_runs_with_fewer_passes(tmp_path, passes):
    run = make_run(tmp_path / "run", passes=passes, files=("score.json", "ledger.npz"), targets=4096, documents=12)
    write_report(run)
    assert f"Result of the {passes[-1]} pass" in read(run).words


@pytest.mark.parametrize(("targets", "documents", "steps"), [(1, 1, 1), (2, 1, 2), (300, 200, 3)])
def test_tiny_runs(tmp_path, targets, documents, steps):
    run = make_run(tmp_path / "run", targets=targets, documents=documents, steps=steps)
    write_report(run)
    assert "bits per byte" in read(run).words


def test_damaged_file_leaves_the_old_report_alone(full_run):
    before = {path.name: path.read_bytes() for path in full_run.iterdir()}
    (full_run / "score.json").write_text("{", "utf-8")
    with pytest.raises(DataError, match=r"score\.json"):
        write_report(full_run)
    after = {path.name: path.read_bytes() for path in full_run.iterdir()}
    assert {name for name in before if before[name] != after.get(name)} == {"score.json"}
    assert set(after) == set(before)


def test_pictures_without_data_are_removed(full_run):
    (full_run / "ledger.npz").unlink()
    write_report(full_run)
    assert not (full_run / "stream.png").exists()
    assert (full_run / "ladder.png").exists()


def test_reports_repeat_exactly(tmp_path):
    run = make_run(tmp_path / "run", files=("score.json", "tensors.json", "samples.json"), targets=512)
    digests = {hashlib.sha256(write_report(run).read_bytes()).hexdigest() for _ in range(2)}
    assert len(digests) == 1


def test_settings_by_hand_are_marked(tmp_path):
    run = make_run(tmp_path / "run", files=())
    content = json.loads((run / "recipe.json").read_text("utf-8"))
    content["train"]["budget"] = 61.0
    content["model"]["layers"] = 11
    content["model"]["exclusive_attention_layers"] = 2
    (run / "recipe.json").write_text(json.dumps(content), "utf-8")
    write_report(run)
    page = read(run)
    assert len([attributes for attributes in page.all("span") if attributes.get("title") == "set by hand"]) == 3


def test_warnings_come_first(tmp_path):
    run = make_run(tmp_path / "run", files=("metrics.jsonl",), steps=40)
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"event": "tr')
    write_report(run)
    words = read(run).words
    assert words.index("Read this first") < words.index("Not in this run folder")


@pytest.mark.parametrize(("module", "name"), [("matplotlib.figure", "matplotlib"), ("jinja2", "jinja2")])
def test_missing_library_is_named_with_its_remedy(full_run, monkeypatch, module, name):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MachineError, match=rf"{name}.*pip install 'fairway\[report\]'"):
        write_report(full_run)

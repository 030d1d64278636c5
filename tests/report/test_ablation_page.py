"""Table, picture and page of an ablation: they say what the figures say, and open offline."""

import io
import json
import re

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from fairway.record.ablation import read_ablation
from fairway.report.ablation_page import MARKDOWN, PAGE, PICTURE, write_ablation
from fairway.report.ablation_tables import gain_text, markdown, sentences, tables
from fairway.report.plots_ablation import draw, gain_finding, plot_gains
from record.ablation_cases import bits, make_ablation, make_plan
from report.test_report_browser import CHROMIUM, DARK, photograph, varied
from report.test_report_page import Page

SHIFTS = {
    "tiny": (0.1, 0.104, 0.097),
    "tiny+gain": (0.05, 0.048, 0.059),
    "tiny+clip": (0.04, 0.038, 0.049),
    "tiny+decay": (0.1, 0.12, 0.11),
}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = make_ablation(tmp_path_factory.mktemp("ablation") / "out", SHIFTS)
    write_ablation(folder, read_ablation(folder))
    return folder


def test_the_tables_say_what_the_runs_say(root):
    levels, systems, ladder, deviations, costs = tables(read_ablation(root))
    assert levels.header == ("group", "seeds", "float", "quantized", "sliding", "adapted")
    mean = np.mean([bits(root / f"tiny+gain-{seed}", "sliding") for seed in (1, 2, 3)])
    assert levels.rows[1][4] == f"{mean:.5f}"
    assert [row[0] for row in systems.rows] == ["tiny+decay"]
    assert ladder.header[2:] == ("result", "paired by seed", "seeds won", "noise", "float", "quantized", "sliding", "adapted")
    assert [row[2] for row in ladder.rows] == [row[-1] for row in ladder.rows]
    pairs = [("tiny", "tiny+gain"), ("tiny+gain", "tiny+clip"), ("tiny+clip", "tiny+decay"), ("tiny", "tiny+decay")]
    won = [sum(bits(root / f"{a}-{n}", "adapted") > bits(root / f"{b}-{n}", "adapted") for n in (1, 2, 3)) for a, b in pairs]
    assert [row[4] for row in ladder.rows] == [f"{count} of 3" for count in won]
    assert won[:3] == [3, 3, 0]
    assert all(re.fullmatch(r"±0\.\d{5}", row[3]) for row in ladder.rows)
    assert [row[1] for row in ladder.rows] == ["better", "better", "worse", "within noise"]
    assert [row[5] for row in ladder.rows] == ["seeds", "documents", "seeds", "seeds"]
    assert re.fullmatch(r"\+0\.04\d{3} ±0\.0\d{4}\*", ladder.rows[0][2])
    assert ladder.rows[2][2].startswith("-0.0")
    assert ladder.rows[3][0] == "all of them together"
    assert deviations.rows[-1] == ("degrees of freedom", "4", "4", "4", "4")
    assert [row[-1] for row in costs.rows] == ["own", "own", "tiny+gain", "own"]
    assert costs.rows[0][6] == "102"
    assert all(len(row) == len(item.header) for item in (levels, systems, ladder, deviations, costs) for row in item.rows)


def test_the_notebook_entry_is_whole(root):
    text = (root / MARKDOWN).read_text("utf-8")
    assert text == markdown(read_ablation(root), PICTURE)
    blocks = re.findall(r"(?:^\|.*\n)+", text, flags=re.M)
    assert len(blocks) == 5
    for block in blocks:
        assert len({line.count("|") for line in block.splitlines()}) == 1
    assert "the technique gain (PR #1)" in text
    for sentence in sentences(read_ablation(root)):
        assert sentence in text


def test_the_sentences_name_each_kind_of_noise_and_what_is_missing(root, tmp_path):
    full = " ".join(sentences(read_ablation(root)))
    assert "two-way analysis of variance" in full
    assert "paired over the documents" in full
    # Four passes of three steps and of one system, which is the whole ladder again.
    assert "These are 16 intervals" in full
    assert "about 1 of them" in full
    assert "missing" not in full
    assert "versions of the source" not in full
    one = read_ablation(make_ablation(tmp_path / "one", {name: shifts[:1] for name, shifts in SHIFTS.items()}, seeds=(1,)))
    text = " ".join(sentences(one))
    assert "There is one seed" in text
    assert "analysis of variance" not in text
    assert [row[1] for row in tables(one)[2].rows] == ["", "better", "", ""]
    part = read_ablation(make_ablation(tmp_path / "part", {"tiny": SHIFTS["tiny"]}))
    assert "9 of 12 runs are still missing" in " ".join(sentences(part))
    assert {row[1] for row in tables(part)[2].rows} == {"not run yet"}
    write_ablation(tmp_path / "part", part)
    (tmp_path / "part" / "tiny-2" / "code.bundle").write_bytes(b"other code")
    assert "2 different versions of the source" in " ".join(sentences(read_ablation(tmp_path / "part")))


def test_the_page_is_self_contained_and_escapes_what_it_shows(root, tmp_path):
    text = (root / PAGE).read_text("utf-8")
    page = Page(text)
    assert not re.search(r"https?://|//cdn|@import|url\(", text)
    assert not page.all("script")
    (image,) = page.all("img")
    assert image["src"].startswith("data:image/png;base64,")
    assert "±" in page.words
    assert "within noise" in page.words
    assert "model.query_gain = 2.0" in page.words
    folder = make_ablation(tmp_path / "hostile", SHIFTS)
    content = json.loads((folder / "ablation.json").read_text())
    content["ladder"][1]["technique"]["title"] = "</td><script>alert(1)</script> | \u202e"
    (folder / "ablation.json").write_text(json.dumps(content))
    write_ablation(folder, read_ablation(folder))
    hostile = Page((folder / PAGE).read_text("utf-8"))
    assert not hostile.all("script")
    assert "<U+202E>" in hostile.words
    assert "\\|" in (folder / MARKDOWN).read_text("utf-8")


def test_the_picture_has_a_mark_for_every_figure(root):
    png, (width, height) = draw(read_ablation(root))
    assert png == (root / PICTURE).read_bytes()
    with Image.open(io.BytesIO(png)) as image:
        assert image.size == (width, height)
        pixels = np.asarray(image.convert("RGB"))
    share, colours = varied(pixels)
    assert share > 0.01
    assert colours > 100
    # The right margin stays free of marks and the left one of cut names.
    assert (pixels[:, -10:] == 255).all()
    assert (pixels[int(0.2 * height) :, :3] == 255).all()


def test_a_technique_far_beyond_the_others_does_not_hide_them(tmp_path):
    far = {**SHIFTS, "tiny+decay": (1.5, 1.51, 1.52)}
    found = read_ablation(make_ablation(tmp_path / "far", far))
    axes = Figure().add_subplot()
    plot_gains(list(found.ladder), axes)
    low, high = axes.get_xlim()
    assert low > -0.2
    assert high < 0.2
    (text,) = [item.get_text() for item in axes.texts if "result" in item.get_text()]
    result = found.ladder[2].gains["result"]
    assert text == f"← result {result.value:+.4f} ±{result.interval.half:.4f}"


def test_the_title_counts_verdicts(root):
    found = read_ablation(root)
    assert gain_finding(list(found.ladder)) == "Of 3 techniques 2 help, 1 hurt and 0 cannot be told from noise"
    assert gain_text(found.ladder[1].gains["float"]).endswith("*")


def test_a_ladder_or_systems_alone_are_drawn_too(tmp_path):
    plan = make_plan().to_dict()
    for name, change in (("systems", {"ladder": []}), ("ladder", {"systems": []})):
        folder = make_ablation(tmp_path / name, SHIFTS)
        (folder / "ablation.json").write_text(json.dumps({**plan, **change}))
        write_ablation(folder, read_ablation(folder))
        assert len(tables(read_ablation(folder))) == 4


@pytest.mark.slow
@pytest.mark.skipif(not CHROMIUM.exists(), reason="Debian's chromium is not installed; apt-get install chromium")
@pytest.mark.parametrize("flags", [(), (DARK,)])
def test_a_browser_shows_the_page_without_complaint(root, tmp_path, flags):
    pixels, console = photograph(root / PAGE, tmp_path, *flags)
    assert console == []
    assert varied(pixels)[0] > 0.02
    assert pixels.mean() < 90 if flags else pixels.mean() > 200

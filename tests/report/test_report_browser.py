"""The page in a real browser, cut off from every network."""

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fairway.report.page import REPORT

CHROMIUM = Path("/usr/bin/chromium")
DARK = "--blink-settings=preferredColorScheme=0"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM.exists(), reason="Debian's chromium is not installed; apt-get install chromium"),
]


def photograph(page, folder, *flags, width=1200, height=1400):
    """Load ``page`` without any network; returns the pixels and what the console said."""
    picture = folder / "screen.png"
    command = [
        *(str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run"),
        *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
        *("--proxy-server=127.0.0.1:9", "--host-resolver-rules=MAP * ~NOTFOUND", "--enable-logging=stderr", "--v=0"),
        *(f"--user-data-dir={folder / 'profile'}", f"--window-size={width},{height}", f"--screenshot={picture}"),
        *(*flags, page.resolve().as_uri()),
    ]
    environment = {**os.environ, "HOME": str(folder), "XDG_RUNTIME_DIR": str(folder)}
    done = subprocess.run(command, capture_output=True, timeout=180, check=True, env=environment)
    with Image.open(picture) as image:
        pixels = np.asarray(image.convert("RGB"))
    console = [line for line in done.stderr.decode("utf-8", "replace").splitlines() if "CONSOLE" in line]
    return pixels, console


def varied(pixels):
    """Share of pixels unlike the page's background, the commonest colour."""
    colours, counts = np.unique(pixels.reshape(-1, 3), axis=0, return_counts=True)
    background = colours[counts.argmax()]
    return float((np.abs(pixels.astype(int) - background).sum(axis=2) > 40).mean()), len(colours)


def test_page_loads_without_console_errors_and_is_not_blank(full_source, tmp_path):
    pixels, console = photograph(full_source / REPORT, tmp_path)
    assert console == []
    share, colours = varied(pixels)
    assert share > 0.03
    assert colours > 100
    assert pixels.mean() > 200


def test_dark_scheme_is_dark_and_still_legible(full_source, tmp_path):
    pixels, console = photograph(full_source / REPORT, tmp_path, DARK)
    assert console == []
    assert pixels.mean() < 60
    assert varied(pixels)[0] > 0.03
    plots = pixels[800:]
    assert (plots.max(axis=2) > 200).mean() > 0.002


def test_a_phone_shows_the_page_at_its_width(full_source, tmp_path):
    frame = tmp_path / "phone.html"
    address = (full_source / REPORT).resolve().as_uri()
    frame.write_text(
        "<!doctype html><style>body{margin:0;background:#f0f}iframe{border:0;width:390px;height:3000px;display:block}</style>"
        f'<iframe src="{address}"></iframe>'
    )
    pixels, console = photograph(frame, tmp_path, width=600, height=3000)
    assert console == []
    magenta = (pixels == np.array([255, 0, 255])).all(axis=2)
    assert magenta[:, 390:].all()
    assert not magenta[:, :390].any()
    inside = pixels[:, :390]
    margin = inside[:, 382:389].reshape(-1, 3)
    assert (np.abs(margin.astype(int) - margin[0]).sum(axis=1) < 30).mean() > 0.98, "content runs over the right margin"
    assert varied(inside)[0] > 0.03


def test_the_console_check_can_fail(tmp_path):
    page = tmp_path / "bad.html"
    page.write_text(
        "<!doctype html><meta http-equiv='Content-Security-Policy' content=\"default-src 'none'; img-src data:\">"
        "<img src='http://example.invalid/x.png'>"
    )
    pixels, console = photograph(page, tmp_path)
    assert console
    assert varied(pixels)[0] < 0.001

"""``ablation.md``, ``ablation.png`` and ``ablation.html``: an ablation for the notebook, for the eye, and as one page."""

import base64
from dataclasses import dataclass
from pathlib import Path

import fairway
from fairway.base.files import write_bytes, write_text
from fairway.record.ablation import Ablation
from fairway.report import look
from fairway.report.ablation_tables import markdown, sentences, tables
from fairway.report.figures import require_matplotlib
from fairway.report.plots_ablation import draw
from fairway.report.templates import open_template

MARKDOWN, PICTURE, PAGE = "ablation.md", "ablation.png", "ablation.html"
TEMPLATE = "ablation.html.jinja"


@dataclass(frozen=True)
class Told:
    """A technique as the page explains it."""

    title: str
    why: str
    source: str
    settings: tuple[str, ...]


def write_ablation(root: Path, found: Ablation) -> tuple[Path, ...]:
    """Write the three files into the folder of an ablation, each whole or not at all; returns their paths.

    Raises:
        MachineError: matplotlib, jinja2 or scipy is not installed, or the folder cannot be written.
    """
    require_matplotlib()
    template = open_template(TEMPLATE)
    png, (width, height) = draw(found)
    page = template.render(
        colours=look.COLOURS,
        meaning=look.PASS_MEANING,
        address=f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}",
        width=width,
        height=height,
        found=found,
        tables=tables(found),
        sentences=sentences(found),
        told=_told(found),
        version=fairway.__version__,
    )
    text = markdown(found, PICTURE)
    write_bytes(root / PICTURE, png)
    write_text(root / MARKDOWN, text)
    write_text(root / PAGE, page)
    return root / MARKDOWN, root / PICTURE, root / PAGE


def _told(found: Ablation) -> tuple[Told, ...]:
    techniques = [item.technique for item in found.ladder if item.technique is not None]
    return tuple(
        Told(item.title, item.why, item.source, tuple(f"{path} = {value}" for path, value in item.changes.items()))
        for item in techniques
    )

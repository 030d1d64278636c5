"""Which plots a run has, with their captions, and how one becomes a PNG."""

import io
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

from fairway.base.errors import MachineError
from fairway.report import curves, plots_score, plots_size, plots_training, treemap
from fairway.report.budgets import budgets
from fairway.report.look import COLOURS, GAINING
from fairway.report.records import RunData

if TYPE_CHECKING:
    import matplotlib.axes

WIDTH = 5.2
"""Inches; narrow, so that type of 10 points stays readable where a phone shows the whole plot."""
TITLE_COLUMNS = 54
DOTS_PER_INCH = 180


@dataclass(frozen=True)
class Plot:
    """One plot of a report, ready to be drawn."""

    name: str
    """Stem of its PNG file."""
    section: str
    caption: str
    draw: Callable[["matplotlib.axes.Axes"], None]
    height: float = 2.55
    """Height of the axes in inches."""
    left: float = 0.78
    bottom: float = 0.56


@dataclass(frozen=True)
class Drawing:
    """A rendered plot."""

    title: str
    png: bytes
    pixels: tuple[int, int]


def all_plots(data: RunData) -> tuple[Plot, ...]:
    """The plots that the run's records allow, in the order of the page."""
    return tuple(chain(_score_plots(data), _budget_plots(data), _training_plots(data), _tensor_plots(data)))


PLOT_NAMES = (
    *("ladder", "stream", "gain", "window_position", "document_position", "documents", "document_gain"),
    *("budgets", "clock"),
    *("loss_tokens", "loss_seconds", "schedules", "speed", "bytes", "tensor_bits", "tensor_errors"),
)
"""Stems of every PNG that a report may write."""


def _score_plots(data: RunData) -> Iterator[Plot]:
    score, ledger = data.score, data.ledger
    if score is not None:
        yield Plot(
            "ladder",
            "score",
            "Each pass scores the same text; in brackets, its difference from the pass above it.",
            lambda axes: plots_score.plot_ladder(score, axes),
            height=0.62 * len(score.passes) + 0.2,
        )
    if ledger is None:
        return
    stream = curves.running(ledger)
    if len(stream.bytes) > 1:
        yield Plot(
            "stream",
            "score",
            "All bits so far over all bytes so far, as the passes walk through the text; the right edge is the result.",
            lambda axes: plots_score.plot_stream(stream, axes),
        )
        if "plain" in ledger.nats and set(GAINING) & set(ledger.nats):
            yield Plot(
                "gain",
                "score",
                "What longer context and adaptation save against plain chunks; the shaded part is adaptation's own.",
                lambda axes: plots_score.plot_gain(stream, axes),
            )
    yield from _position_plots(data)


def _position_plots(data: RunData) -> Iterator[Plot]:
    ledger = data.ledger
    assert ledger is not None
    window = curves.by_window_position(ledger)
    if len(window.first) > 1:
        yield Plot(
            "window_position",
            "score",
            "Plain chunks start without context and pay for it; windows that overlap do not. Bands: two standard errors.",
            lambda axes: plots_score.plot_position(window, axes, place="window"),
        )
    if not len(ledger.documents):
        return
    position = curves.by_document_position(ledger)
    if len(position.first) > 1:
        yield Plot(
            "document_position",
            "score",
            "How fast the model settles into a new document. Bands: two standard errors; grey: how many targets lie there.",
            lambda axes: plots_score.plot_position(position, axes, place="document"),
        )
    documents = curves.by_document(ledger)
    if len(documents.bytes) > 1:
        yield Plot(
            "documents",
            "score",
            "Every document weighs the same here, while the score weighs every byte the same.",
            lambda axes: plots_score.plot_documents(documents, axes),
        )
        if "plain" in ledger.nats and set(GAINING) & set(ledger.nats):
            yield Plot(
                "document_gain",
                "score",
                "Where the savings come from: one dot per document and pass, below zero where a document got worse.",
                lambda axes: plots_score.plot_document_gain(documents, axes),
            )


def _budget_plots(data: RunData) -> Iterator[Plot]:
    limits = budgets(data)
    if limits:
        yield Plot(
            "budgets",
            "budgets",
            "What was used of what was allowed; the black line is the limit, grey gauges are references only.",
            lambda axes: plots_size.plot_budgets(limits, axes),
            height=0.72 * len(limits) + 0.15,
            left=0.2,
        )
    phases = [phase for phase in data.clock if phase.seconds > 0]
    if phases:
        yield Plot(
            "clock",
            "budgets",
            "Where the time of the run went, from the first phase to the last.",
            lambda axes: plots_size.plot_clock(phases, axes),
            height=0.8,
            left=0.2,
            bottom=0.68 + 0.195 * -(-len(plots_size.drawn_phases(phases)) // 2),
        )


def _training_plots(data: RunData) -> Iterator[Plot]:
    metrics = data.metrics
    if metrics is None or len(metrics.train) < 2:
        return
    yield Plot(
        "loss_tokens",
        "training",
        "Loss against training tokens on a log scale, where the early fall has room.",
        lambda axes: plots_training.plot_loss(metrics, axes, over="tokens"),
    )
    yield Plot(
        "loss_seconds",
        "training",
        "The same loss against the seconds that count; validations stop the clock.",
        lambda axes: plots_training.plot_loss(metrics, axes, over="seconds"),
    )
    yield Plot(
        "schedules",
        "training",
        "The learning rate as a share of its peak, for every group of parameters, and the momentum of the matrices.",
        lambda axes: plots_training.plot_schedules(metrics.train, axes),
    )
    yield Plot(
        "speed",
        "training",
        "Tokens per counted second; depth recurrence applies layers again and slows each step.",
        lambda axes: plots_training.plot_speed(metrics.train, axes),
    )


def _tensor_plots(data: RunData) -> Iterator[Plot]:
    if data.tensors and data.score is not None:
        parts = treemap.shares(data.tensors, artifact_bytes=data.score.artifact_bytes, code_bytes=data.score.code_bytes)
        yield Plot(
            "bytes",
            "tensors",
            "Every byte that counts: an area per tensor, a colour per class, with what the container adds and the code.",
            lambda axes: treemap.plot_bytes(parts, axes),
            height=treemap.AXES_INCHES[1],
            left=0.2,
            bottom=0.1,
        )
    coded = [record for record in data.tensors or () if record.quantized]
    bits = [record for record in coded if record.coded_bits is not None and record.weights]
    errors = [record for record in coded if record.rms_error is not None]
    if bits:
        yield Plot(
            "tensor_bits",
            "tensors",
            "One bar per quantized tensor, grouped by class, first block on top; all other tensors are 16-bit.",
            lambda axes: plots_size.plot_tensor_bits(bits, axes),
            height=_bars_height(len(bits), len(plots_size.by_group(bits))),
            left=1.5,
            bottom=0.86,
        )
    if errors:
        yield Plot(
            "tensor_errors",
            "tensors",
            "Error that quantization leaves in each tensor; the Hessian weighs it by how much the loss feels it.",
            lambda axes: plots_size.plot_tensor_errors(errors, axes),
            height=_bars_height(len(errors), len(plots_size.by_group(errors))),
            left=1.5,
            bottom=0.86,
        )


def _bars_height(bars: int, groups: int) -> float:
    return min(7.5, max(1.6, 0.085 * (bars + groups), 0.24 * groups))


def require_matplotlib() -> None:
    """Refuse early, with the remedy, where matplotlib is not installed.

    Raises:
        MachineError: matplotlib cannot be imported.
    """
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError:
        raise MachineError("the report needs matplotlib, which is not installed; run: pip install 'fairway[report]'") from None


def render(plot: Plot) -> Drawing:
    """Draw one plot as PNG on a figure of its own, without pyplot and without touching global settings."""
    from matplotlib import style
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with style.context(COLOURS.settings(), after_reset=True):
        figure = Figure(figsize=(WIDTH, plot.height + plot.bottom + 0.9), dpi=DOTS_PER_INCH)
        canvas = FigureCanvasAgg(figure)
        axes = figure.add_axes((0.2, 0.2, 0.6, 0.6))
        plot.draw(axes)
        title = axes.get_title(loc="left")
        lines = textwrap.wrap(title, TITLE_COLUMNS)
        axes.set_title("", loc="left")
        top = 0.14 + 0.19 * len(lines) + 0.1
        height = plot.height + plot.bottom + top
        figure.set_size_inches(WIDTH, height)
        axes.set_position((plot.left / WIDTH, plot.bottom / height, (WIDTH - plot.left - 0.2) / WIDTH, plot.height / height))
        figure.text(0.1 / WIDTH, 1 - 0.1 / height, "\n".join(lines), va="top", fontsize=11, fontweight="bold", linespacing=1.25)
        content = io.BytesIO()
        canvas.print_figure(content, format="png", dpi=DOTS_PER_INCH, metadata={"Software": None})
        pixels = canvas.get_width_height()
        figure.clear()
    return Drawing(title, content.getvalue(), pixels)

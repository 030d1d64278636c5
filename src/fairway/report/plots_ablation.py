"""The picture of an ablation: what each technique gains, with its interval, and where the systems end."""

import io
import statistics
from typing import TYPE_CHECKING

from fairway.record.ablation import RESULT, Ablation, Difference
from fairway.record.pooled import LEVEL
from fairway.report.figures import DOTS_PER_INCH
from fairway.report.look import COLOURS, PASS_MARKER, plot_label

if TYPE_CHECKING:
    import matplotlib.axes

DRAWN = ("float", "plain", RESULT)
"""Columns of the picture: before quantization, after it, and the result with everything on."""
COLUMN_LABEL = {"float": "float", "plain": "quantized", RESULT: "result"}
COLUMN_COLOUR = {"float": COLOURS.passes["float"], "plain": COLOURS.passes["plain"], RESULT: COLOURS.passes["adapted"]}
COLUMN_MARKER = {"float": PASS_MARKER["float"], "plain": PASS_MARKER["plain"], RESULT: PASS_MARKER["adapted"]}
WIDTH = 7.2
"""Inches."""
LEFT = 2.5
ROW = 0.46
"""Inches of one technique or system."""
LABEL = 30
"""Characters of a row's name."""
FAR = 5.0
"""A technique that reaches this many times as far as the median one is named at the border instead of shrinking the rest."""


def draw(found: Ablation) -> tuple[bytes, tuple[int, int]]:
    """The picture as PNG, and its size in pixels: gains of the ladder on top, bits per byte of the systems below.

    Raises:
        MachineError: scipy is missing.
    """
    from matplotlib import style
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = [item for item in found.ladder if item.gains]
    systems = [name for name in found.plan.systems if name in found.groups]
    # Bottom up, in inches: margins hold ticks and labels below, the title and the legend above.
    bands = [(ROW * len(systems) + 0.1, 0.55, 0.45)] if systems else []
    bands += [(ROW * len(shown) + 0.1, 0.6, 0.68)] if shown else []
    height = sum(sum(band) for band in bands)
    with style.context(COLOURS.settings(), after_reset=True):
        figure = Figure(figsize=(WIDTH, max(height, 1.0)), dpi=DOTS_PER_INCH)
        canvas = FigureCanvasAgg(figure)
        base = 0.0
        for index, (band, below, above) in enumerate(bands):
            axes = figure.add_axes((LEFT / WIDTH, (base + below) / height, (WIDTH - LEFT - 0.25) / WIDTH, band / height))
            base += band + below + above
            if systems and index == 0:
                plot_systems(found, systems, axes)
            else:
                plot_gains(shown, axes)
        content = io.BytesIO()
        canvas.print_figure(content, format="png", dpi=DOTS_PER_INCH, metadata={"Software": None})
        pixels = canvas.get_width_height()
        figure.clear()
    return content.getvalue(), pixels


def plot_gains(ladder: list[Difference], axes: "matplotlib.axes.Axes") -> None:
    """A row for each technique: its gain before quantization, after it, and in the result, with intervals.

    Filled marks have an interval without zero. Dashed intervals are over documents, plain ones over seeds.

    Args:
        ladder: Differences with gains, in order; the first is drawn on top.
        axes: Axes to draw on.
    """
    columns = [name for name in DRAWN if any(name in item.gains for item in ladder)]
    axes.axvline(0.0, color=COLOURS.soft, linewidth=1.0)
    for row, item in enumerate(ladder):
        for place, name in enumerate(columns):
            if name not in item.gains:
                continue
            gain = item.gains[name]
            colour, y = COLUMN_COLOUR[name], row + 0.26 * (place - (len(columns) - 1) / 2)
            if gain.interval:
                dashes = "-" if gain.noise == "seeds" else (0, (2, 1.2))
                axes.hlines(y, gain.interval.low, gain.interval.high, color=colour, linewidth=1.5, linestyle=dashes)
            full = gain.verdict in ("better", "worse")
            face = colour if full else COLOURS.paper
            axes.plot([gain.value], [y], COLUMN_MARKER[name], color=colour, markerfacecolor=face, markersize=5.5)
    for name in columns:
        axes.plot([], [], COLUMN_MARKER[name], color=COLUMN_COLOUR[name], markersize=5.5, label=COLUMN_LABEL[name])
    axes.legend(loc="lower left", bbox_to_anchor=(-0.01, 0.99), ncols=len(columns), columnspacing=1.2, handletextpad=0.2)
    _rows([item.technique.name if item.technique else item.new for item in ladder], axes)
    _focus(ladder, columns, axes)
    axes.set_xlabel(f"bits per byte saved, {LEVEL:.0%} intervals (hollow: with zero)")
    # Above the legend, and from the figure's edge, where a sentence has room.
    axes.annotate(gain_finding(ladder), (0.1 / WIDTH, 1.0), xycoords=("figure fraction", "axes fraction"),
                  xytext=(0, 26), textcoords="offset points", fontsize=11, fontweight="bold")  # fmt: skip


def _focus(ladder: list[Difference], columns: list[str], axes: "matplotlib.axes.Axes") -> None:
    """Limits for all techniques but those that reach far beyond the others, whose results are written at the border."""
    bounds = []
    for item in ladder:
        gains = [item.gains[name] for name in columns if name in item.gains]
        ends = [end for gain in gains for end in ((gain.interval.low, gain.interval.high) if gain.interval else (gain.value,))]
        bounds.append((min(0.0, *ends), max(0.0, *ends)))
    reach = [max(-low, high) for low, high in bounds]
    limit = FAR * statistics.median(reach)
    near = [bound for bound, far in zip(bounds, reach, strict=True) if far <= limit]
    low, high = min(bound[0] for bound in near), max(bound[1] for bound in near)
    pad = 0.06 * (high - low) or 1e-4
    axes.set_xlim(low - pad, high + pad)
    for row, (item, far) in enumerate(zip(ladder, reach, strict=True)):
        if far > limit:
            result = item.gains[RESULT]
            figure = f"result {result.value:+.4f}" + (f" ±{result.interval.half:.4f}" if result.interval else "")
            x, side, text = (high, "right", f"{figure} →") if result.value > 0 else (low, "left", f"← {figure}")
            axes.text(x, row, text, ha=side, va="center", fontsize=9.5, fontweight="bold", color=COLUMN_COLOUR[RESULT])


def gain_finding(ladder: list[Difference]) -> str:
    """One sentence about the techniques whose result can be told from noise."""
    verdicts = [item.verdict for item in ladder]
    if not any(verdicts):
        return f"{len(verdicts)} techniques, one seed: no interval tells gain from luck"
    better, worse = verdicts.count("better"), verdicts.count("worse")
    rest = len(verdicts) - better - worse
    return f"Of {len(verdicts)} techniques {better} help, {worse} hurt and {rest} cannot be told from noise"


def plot_systems(found: Ablation, systems: list[str], axes: "matplotlib.axes.Axes") -> None:
    """A row for each system: bits per byte of its result, every seed a small dot, the mean with its interval.

    Args:
        found: The ablation.
        systems: Groups with runs; the first is drawn on top.
        axes: Axes to draw on.
    """
    colour = COLUMN_COLOUR[RESULT]
    for row, name in enumerate(systems):
        group = found.groups[name]
        mean = group.mean(RESULT)
        axes.plot(group.values(RESULT), [row + 0.22] * len(group.runs), ".", color=COLOURS.soft, markersize=5)
        axes.hlines(row, min(group.values(RESULT)), max(group.values(RESULT)), color=colour, linewidth=1.6)
        axes.plot([mean], [row], COLUMN_MARKER[RESULT], color=colour, markersize=6)
    _rows(systems, axes)
    axes.margins(x=0.08)
    axes.set_xlabel("bits per byte of the result (left is better; dots: seeds, line: their range)")
    best = min(systems, key=lambda name: found.groups[name].mean(RESULT))
    axes.annotate(f"Lowest mean: {plot_label(best)}, {found.groups[best].mean(RESULT):.4f} bits per byte",
                  (0.1 / WIDTH, 1.0), xycoords=("figure fraction", "axes fraction"), xytext=(0, 9),
                  textcoords="offset points", fontsize=11, fontweight="bold")  # fmt: skip


def _rows(names: list[str], axes: "matplotlib.axes.Axes") -> None:
    axes.set_yticks(range(len(names)), [plot_label(name, LABEL) for name in names])
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    axes.locator_params(axis="x", nbins=6)
    axes.ticklabel_format(axis="x", style="plain", useOffset=False)

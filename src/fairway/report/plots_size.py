"""Plots of cost and limits: the clock, the budgets, and what quantization did to each tensor."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from fairway.report.budgets import Budget
from fairway.report.look import COLOURS, duration, plot_label, short_count
from fairway.report.records import Phase, TensorRecord

if TYPE_CHECKING:
    import matplotlib.axes

SMALL_PHASE = 0.004
"""Share of the total time below which phases are drawn as one."""
WIDE_RANGE = 50.0
"""Ratio of the largest to the smallest error from which the axis is logarithmic."""


def drawn_phases(data: Sequence[Phase]) -> list[Phase]:
    """The phases of a bar: those too short to see are added up, counted and uncounted apart, and come last."""
    total = sum(phase.seconds for phase in data)
    shown = [phase for phase in data if phase.seconds >= SMALL_PHASE * total]
    for counted in (True, False):
        rest = [phase for phase in data if phase.counted == counted and phase.seconds < SMALL_PHASE * total]
        if rest:
            name = rest[0].name if len(rest) == 1 else f"{len(rest)} short phases"
            shown.append(Phase(name, sum(phase.seconds for phase in rest), counted))
    return shown


def plot_clock(data: Sequence[Phase], axes: "matplotlib.axes.Axes") -> None:
    """Phases of the clock as one bar in the order of the run; phases that do not count are hatched.

    Args:
        data: Phases with a total time above zero.
        axes: Axes to draw on.
    """
    begin, used = 0.0, {True: 0, False: 0}
    for phase in drawn_phases(data):
        colours = COLOURS.counted if phase.counted else COLOURS.uncounted
        colour = colours[used[phase.counted] % len(colours)]
        used[phase.counted] += 1
        label = f"{plot_label(phase.name, 20)} {duration(phase.seconds)}"
        axes.barh(
            0.0,
            phase.seconds,
            left=begin,
            height=0.7,
            color=colour,
            edgecolor=COLOURS.paper,
            linewidth=1.0,
            hatch=None if phase.counted else "////",
            label=label if phase.counted else f"{label} *",
        )
        begin += phase.seconds
    axes.set_yticks([])
    axes.set_ylim(-0.5, 0.5)
    axes.set_xlim(0.0, begin)
    axes.spines["left"].set_visible(False)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("seconds of the run (* hatched: does not count)")
    axes.xaxis.set_major_formatter(short_count)
    _legend_below(axes, columns=2)
    axes.set_title(_clock_finding(data, begin))


def _legend_below(axes: "matplotlib.axes.Axes", *, columns: int) -> None:
    """A legend under the label of the horizontal axis, whatever the height of the axes."""
    from matplotlib.transforms import offset_copy

    below = offset_copy(axes.transAxes, fig=axes.get_figure(root=True), y=-0.5, units="inches")
    axes.legend(
        loc="upper left",
        bbox_to_anchor=(-0.02, 0.0),
        bbox_transform=below,
        ncols=columns,
        columnspacing=1.4,
        handlelength=1.5,
        labelspacing=0.35,
        borderaxespad=0.0,
    )


def _clock_finding(data: Sequence[Phase], total: float) -> str:
    counted = sum(phase.seconds for phase in data if phase.counted)
    longest = max(data, key=lambda phase: phase.seconds)
    return (
        f"{duration(counted)} of {duration(total)} count against a budget; the longest phase is {plot_label(longest.name, 24)} "
        f"with {longest.seconds / total:.0%}"
    )


def plot_budgets(data: Sequence[Budget], axes: "matplotlib.axes.Axes") -> None:
    """Each budget as a gauge: the share of its limit that was used, the limit at 100 percent.

    Args:
        data: At least one budget.
        axes: Axes to draw on.
    """
    widest = max(1.0, *(budget.share for budget in data)) * 1.03
    for level, budget in enumerate(data):
        colour = COLOURS.bad if budget.over else COLOURS.good if budget.binding else COLOURS.soft
        axes.barh(level, 1.0, height=0.34, color=COLOURS.grid, linewidth=0)
        axes.barh(level, budget.share, height=0.34, color=colour, linewidth=0, alpha=1.0 if budget.binding else 0.7)
        sign = "over the limit" if budget.over else "within" if budget.binding else "reference only"
        axes.annotate(
            f"{budget.name}: {budget.amount(budget.used)} of {budget.amount(budget.limit)} ({budget.share:.1%}, {sign})",
            (0.0, level - 0.26),
            xytext=(0, 2),
            textcoords="offset points",
            fontsize=9.5,
        )
    axes.axvline(1.0, color=COLOURS.ink, linewidth=1.6)
    axes.set_ylim(len(data) - 0.65, -0.75)
    axes.set_xlim(0.0, widest)
    axes.set_yticks([])
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.set_xlabel("share of the limit")
    axes.spines["left"].set_visible(False)
    axes.grid(visible=False, axis="y")
    over = [budget for budget in data if budget.over]
    first = data[0]
    title = f"{first.name} uses {first.share:.1%} of its limit; no budget is exceeded"
    if over:
        title = "; ".join(f"{budget.name} is over its limit by {budget.amount(budget.used - budget.limit)}" for budget in over)
    axes.set_title(title)


def by_group(data: Sequence[TensorRecord]) -> dict[str, list[TensorRecord]]:
    """Tensors by class of name, both in the order of first appearance."""
    groups: dict[str, list[TensorRecord]] = {}
    for record in data:
        groups.setdefault(record.group, []).append(record)
    return groups


def _bars(data: Sequence[TensorRecord], values: Sequence[float], axes: "matplotlib.axes.Axes") -> dict[str, float]:
    """One horizontal bar per tensor, classes apart and labelled once; returns the height of each tensor's bar."""
    worth = {record.name: value for record, value in zip(data, values, strict=True)}
    heights: dict[str, float] = {}
    labels: list[tuple[float, str]] = []
    level = 0.0
    for group, records in by_group(data).items():
        first = level
        for record in records:
            heights[record.name] = level
            level += 1.0
        labels.append(((first + level - 1.0) / 2, plot_label(group, 22)))
        level += 1.0
    names = list(heights)
    axes.barh([heights[name] for name in names], [worth[name] for name in names], height=0.82, color=COLOURS.bar, linewidth=0)
    axes.set_yticks([height for height, _ in labels], [label for _, label in labels])
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(level - 1.0, -1.0)
    axes.grid(visible=False, axis="y")
    return heights


def plot_tensor_bits(data: Sequence[TensorRecord], axes: "matplotlib.axes.Axes") -> None:
    """Bits per weight of each quantized tensor: stored (bar), entropy of its codes (dot), width of a code (line).

    Args:
        data: Quantized tensors with ``coded_bits``; within a class, the first block on top.
        axes: Axes to draw on.
    """
    stored = np.array([record.coded_bits for record in data], dtype=np.float64)
    weights = np.array([record.weights for record in data], dtype=np.float64)
    heights = _bars(data, stored.tolist(), axes)
    planned = np.array([record.bits for record in data], dtype=np.float64)
    for records in by_group(data).values():
        edge = [heights[records[0].name] - 0.5, heights[records[-1].name] + 0.5]
        axes.plot([records[0].bits] * 2, edge, color=COLOURS.validation, linewidth=1.6)
    known = [record for record in data if record.entropy_bits is not None]
    axes.plot(
        [record.entropy_bits for record in known if record.entropy_bits is not None],
        [heights[record.name] for record in known],
        color=COLOURS.ink,
        marker=".",
        markersize=4,
        linestyle="",
    )
    axes.plot([], [], color=COLOURS.bar, linewidth=6, label="stored")
    axes.plot([], [], color=COLOURS.ink, marker=".", linestyle="", label="entropy")
    axes.plot([], [], color=COLOURS.validation, linewidth=1.6, label="width of a code")
    axes.set_xlim(0.0, 1.05 * float(max(planned.max(), stored.max())))
    _legend_below(axes, columns=3)
    axes.set_xlabel("bits per weight")
    axes.set_title(
        f"Coding takes {np.average(stored, weights=weights):.2f} bits per weight, where codes are "
        f"{np.average(planned, weights=weights):.2f} bits wide"
    )


def plot_tensor_errors(data: Sequence[TensorRecord], axes: "matplotlib.axes.Axes") -> None:
    """Error of each quantized tensor: root mean square over its weights (bar), and weighted by its Hessian (dot).

    Args:
        data: Quantized tensors with ``rms_error``; within a class, the first block on top.
        axes: Axes to draw on.
    """
    errors = np.array([record.rms_error for record in data], dtype=np.float64)
    heights = _bars(data, errors.tolist(), axes)
    positive = errors[errors > 0]
    weighted = [record for record in data if record.hessian_error is not None and record.hessian_error > 0]
    axes.plot(
        [record.hessian_error for record in weighted if record.hessian_error is not None],
        [heights[record.name] for record in weighted],
        color=COLOURS.validation,
        marker=".",
        markersize=5,
        linestyle="",
    )
    largest = max([float(errors.max()), *(record.hessian_error or 0.0 for record in weighted)])
    if len(positive) and largest > WIDE_RANGE * float(positive.min()):
        axes.set_xscale("log")
        axes.set_xlim(min([float(positive.min()), *(record.hessian_error or 1.0 for record in weighted)]) / 1.5, 1.5 * largest)
        axes.set_xlabel("error of the weights (log scale)")
    else:
        axes.set_xlim(0.0, 1.05 * largest or 1.0)
        axes.set_xlabel("error of the weights")
    axes.xaxis.set_major_formatter(short_count)
    axes.plot([], [], color=COLOURS.bar, linewidth=6, label="root mean square")
    if weighted:
        axes.plot([], [], color=COLOURS.validation, marker=".", linestyle="", label="weighted by the Hessian")
    _legend_below(axes, columns=3)
    worst = data[int(errors.argmax())]
    axes.set_title(
        f"{plot_label(worst.name, 34)} has the largest root mean square error, {errors.max():.2g}; "
        f"the median is {np.median(errors):.2g}"
    )

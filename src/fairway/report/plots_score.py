"""Plots of scoring: passes against each other, along the stream, by position and by document."""

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from fairway.report.curves import DocumentScores, PositionCurve, RunningCurve
from fairway.report.look import COLOURS, GAINING, PASS_LINE, PASS_MARKER, short_count, thousands
from fairway.report.records import Score

if TYPE_CHECKING:
    import matplotlib.axes

DOTS_UP_TO = 300
"""Documents drawn as dots; more become a histogram."""
SETTLED = 0.02
"""Share of the stream before which a running mean says nothing."""


def plot_ladder(data: Score, axes: "matplotlib.axes.Axes") -> None:
    """Bits per byte from pass to pass, with the difference that each makes."""
    values = [result.bits_per_byte for result in data.passes]
    low, high = min(values), max(values)
    room = max(high - low, 1e-3 * high)
    for level, (before, after) in enumerate(pairwise(data.passes)):
        gap = after.bits_per_byte - before.bits_per_byte
        axes.plot([before.bits_per_byte] * 2, [level, level + 1], color=COLOURS.soft, linewidth=0.9, linestyle=(0, (2, 2)))
        colour = COLOURS.bad if gap > 0 else COLOURS.passes[after.name]
        axes.plot([before.bits_per_byte, after.bits_per_byte], [level + 1] * 2, color=colour, linewidth=7, alpha=0.35)
    for level, result in enumerate(data.passes):
        colour, value = COLOURS.passes[result.name], result.bits_per_byte
        axes.plot(value, level, color=colour, marker=PASS_MARKER[result.name], markersize=9, linestyle="")
        text = f"{value:.4f}"
        if level:
            text += f"  ({value - values[level - 1]:+.4f})"
        axes.annotate(
            text, (max(value, values[level - 1] if level else value), level), (12, 0), textcoords="offset points", va="center"
        )
    axes.set_yticks(range(len(values)), [result.name for result in data.passes])
    axes.set_ylim(len(values) - 0.5, -0.5)
    axes.set_xlim(low - 0.12 * room, high + 0.62 * room)
    axes.locator_params(axis="x", nbins=5)
    axes.set_xlabel("bits per byte of text (lower is better)")
    axes.grid(visible=False, axis="y")
    axes.set_title(ladder_finding(data))


def ladder_finding(data: Score) -> str:
    """What quantization costs, and what context and adaptation win back, in one sentence."""
    bits = {result.name: result.bits_per_byte for result in data.passes}
    parts = []
    if "float" in bits and "plain" in bits:
        parts.append(_change("quantization", bits["plain"] - bits["float"]))
    if "plain" in bits and "sliding" in bits:
        parts.append(_change("sliding windows", bits["sliding"] - bits["plain"], plural=True))
    if "sliding" in bits and "adapted" in bits:
        parts.append(_change("adaptation", bits["adapted"] - bits["sliding"]))
    if "adapted" in bits and "tilted" in bits:
        parts.append(_change("tilt", bits["tilted"] - bits["adapted"]))
    if "plain" in bits and "documents" in bits:
        parts.append(_change("adaptation per document", bits["documents"] - bits["plain"]))
    if "documents" in bits and "documents_tilted" in bits:
        parts.append(_change("its tilt", bits["documents_tilted"] - bits["documents"]))
    if not parts:
        last = data.passes[-1]
        return f"The {last.name} pass reaches {last.bits_per_byte:.4f} bits per byte"
    sentence = ", ".join(parts)
    return f"{sentence[0].upper()}{sentence[1:]} bits per byte"


def _change(what: str, change: float, *, plural: bool = False) -> str:
    verb = "costs" if change > 0 else "gains"
    return f"{what} {verb.removesuffix('s') if plural else verb} {abs(change):.4f}"


def plot_stream(data: RunningCurve, axes: "matplotlib.axes.Axes") -> None:
    """Bits per byte of all text up to each point of the stream, for every pass; the unsettled first part is left out."""
    settled = data.bytes >= SETTLED * data.bytes[-1]
    text = data.bytes[settled]
    curves = {name: bits[settled] for name, bits in data.bits_per_byte.items()}
    for name, bits in curves.items():
        axes.plot(text, bits, color=COLOURS.passes[name], linestyle=PASS_LINE[name], label=f"{name} {bits[-1]:.4f}")
    low = min(float(bits.min()) for bits in curves.values())
    high = max(float(bits.max()) for bits in curves.values())
    room = max(high - low, 1e-3)
    axes.set_ylim(low - 0.08 * room, high + 0.45 * room)
    axes.set_xlim(0.0, float(text[-1]))
    axes.set_xlabel("text scored so far (bytes)")
    axes.xaxis.set_major_formatter(short_count)
    axes.set_ylabel("bits per byte so far")
    axes.legend(loc="upper center", ncols=2, columnspacing=1.2, handlelength=1.8)
    axes.set_title(_stream_finding({name: float(bits[-1]) for name, bits in data.bits_per_byte.items()}))


def _stream_finding(bits: dict[str, float]) -> str:
    if "sliding" in bits and "adapted" in bits:
        gain = bits["sliding"] - bits["adapted"]
        verb = "gains" if gain >= 0 else "loses"
        return f"Adaptation {verb} {abs(gain):.4f} bits per byte over sliding windows"
    if "plain" in bits and "sliding" in bits:
        return f"Sliding windows gain {bits['plain'] - bits['sliding']:.4f} bits per byte over plain chunks"
    name, value = list(bits.items())[-1]
    return f"The {name} pass settles at {value:.4f} bits per byte"


def plot_gain(data: RunningCurve, axes: "matplotlib.axes.Axes") -> None:
    """Bits per byte that sliding windows, adaptation and tilt save against the plain pass, up to each point of the stream.

    Args:
        data: A running curve with the pass ``plain`` and at least one of ``sliding``, ``adapted`` and ``tilted``.
        axes: Axes to draw on.
    """
    text, base = data.bytes, data.bits_per_byte["plain"]
    settled = data.bytes >= SETTLED * data.bytes[-1]
    gains = {name: base - data.bits_per_byte[name] for name in GAINING if name in data.bits_per_byte}
    for name, gain in gains.items():
        axes.plot(text, gain, color=COLOURS.passes[name], linestyle=PASS_LINE[name], label=f"{name} {gain[-1]:+.4f}")
    if "sliding" in gains and "adapted" in gains:
        axes.fill_between(text, gains["sliding"], gains["adapted"], color=COLOURS.passes["adapted"], alpha=0.14, linewidth=0)
    axes.axhline(0.0, color=COLOURS.soft, linewidth=1.0)
    low = min(0.0, *(float(gain[settled].min()) for gain in gains.values()))
    high = max(1e-6, *(float(gain[settled].max()) for gain in gains.values()))
    axes.set_ylim(low - 0.05 * (high - low), high + 0.4 * (high - low))
    axes.set_xlim(0.0, float(text[-1]))
    axes.set_xlabel("text scored so far (bytes)")
    axes.xaxis.set_major_formatter(short_count)
    axes.set_ylabel("saved (bits per byte)")
    axes.legend(loc="upper center", ncols=2, columnspacing=1.2, handlelength=1.8)
    axes.set_title(_gain_finding(gains))


def _ahead(gain: float) -> str:
    return f"{abs(gain):.4f} bits per byte {'ahead' if gain >= 0 else 'short'}"


def _gain_finding(gains: dict[str, np.ndarray]) -> str:
    if not {"sliding", "adapted"} <= set(gains):
        name, gain = list(gains.items())[-1]
        return f"The {name} pass ends {gain[-1]:.4f} bits per byte below the plain pass"
    extra = gains["adapted"] - gains["sliding"]
    half = len(extra) // 2
    return f"Adaptation is {_ahead(extra[half])} of sliding windows at half of the stream, {_ahead(extra[-1])} at its end"


def plot_position(data: PositionCurve, axes: "matplotlib.axes.Axes", *, place: str = "document", early: int = 16) -> None:
    """Mean cost in nats by position, with bands of two standard errors and the number of targets per bin.

    Args:
        data: The curve.
        axes: Axes to draw on.
        place: What the position counts from: ``document`` or ``window``.
        early: Positions that the title compares with the later half.
    """
    tallest = int(data.count.max())
    left, right = data.first - 0.5, data.last + 0.5
    for begin, end, count in zip(left, right, data.count, strict=True):
        share = 0.16 * count / tallest
        axes.axvspan(begin, end, ymax=share, color=COLOURS.grid, linewidth=0, zorder=0.5)
    note = f"grey: targets per bin, at most {short_count(tallest)}"
    axes.annotate(note, (0.015, 0.035), xycoords="axes fraction", fontsize=9, color=COLOURS.soft)
    for name, mean in data.mean.items():
        reach = 2.0 * data.error[name]
        axes.fill_between(data.centre, mean - reach, mean + reach, color=COLOURS.passes[name], alpha=0.16, linewidth=0)
        axes.plot(data.centre, mean, color=COLOURS.passes[name], linestyle=PASS_LINE[name], label=name)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(short_count)
    axes.set_xlim(float(left[0]), float(right[-1]))
    low = min(float((mean - 2 * data.error[name]).min()) for name, mean in data.mean.items())
    high = max(float(mean.max()) for mean in data.mean.values())
    room = max(high - low, 1e-3)
    axes.set_ylim(low - 0.28 * room, high + 0.2 * room)
    axes.set_xlabel(f"position in the {place} (tokens, log scale)")
    axes.set_ylabel("cost (nats per token)")
    axes.legend(loc="upper right", ncols=2, columnspacing=1.2, handlelength=1.8)
    axes.set_title(_position_finding(data, place, early))


def _position_finding(data: PositionCurve, place: str, early: int) -> str:
    start, later = data.last <= early, data.first > data.last[-1] / 2
    if not start.any() or not later.any() or (start & later).any():
        return f"Cost by position in the {place}"

    def gap(name: str) -> str:
        early_mean, late_mean = (np.average(data.mean[name][part], weights=data.count[part]) for part in (start, later))
        difference = float(early_mean - late_mean)
        return f"{abs(difference):.2f} nats {'more' if difference >= 0 else 'less'}"

    first = next((name for name in ("plain", "float") if name in data.mean), next(iter(data.mean)))
    until = int(data.last[start][-1])
    title = f"The first {until} tokens of a {place} cost {gap(first)} each than its second half in the {first} pass"
    if place == "window" and first == "plain" and "sliding" in data.mean:
        title += f", {gap('sliding')} with sliding windows"
    return title


def plot_documents(data: DocumentScores, axes: "matplotlib.axes.Axes") -> None:
    """Bits per byte by document: sorted dots, or a histogram where documents are many."""
    names = list(data.bits_per_byte)
    base = "plain" if "plain" in names else names[0]
    number = len(data.bytes)
    low, high = (float(limit) for limit in np.quantile(np.concatenate(list(data.bits_per_byte.values())), [0.0, 0.98]))
    if number <= DOTS_UP_TO:
        order = np.argsort(data.bits_per_byte[base], kind="stable")[::-1]
        for name in names:
            axes.plot(
                np.arange(1, number + 1),
                data.bits_per_byte[name][order],
                color=COLOURS.passes[name],
                marker=PASS_MARKER[name],
                markersize=5 if number <= 60 else 3.5,
                markerfacecolor="none",
                markeredgewidth=0.9,
                linestyle="",
                label=name,
            )
        room = max(high - low, 1e-3)
        axes.set_ylim(low - 0.06 * room, high + 0.3 * room)
        beyond = int(np.sum(data.bits_per_byte[base] > high + 0.3 * room))
        axes.set_xlabel(f"documents, sorted by the {base} pass" + (f" ({beyond} lie above the plot)" if beyond else ""))
        axes.set_ylabel("bits per byte of the document")
    else:
        edges = np.linspace(low, max(high, low + 1e-6), 50)
        for name in names:
            counts, _ = np.histogram(np.clip(data.bits_per_byte[name], edges[0], edges[-1]), edges)
            axes.stairs(counts, edges, color=COLOURS.passes[name], linestyle=PASS_LINE[name], label=name, linewidth=1.6)
        axes.set_xlabel("bits per byte of the document (last bin: and above)")
        axes.set_ylabel("documents")
        axes.yaxis.set_major_formatter(short_count)
        axes.margins(y=0.2)
        axes.set_ylim(bottom=0.0)
    axes.legend(loc="upper right", ncols=2, columnspacing=1.2)
    tenth, middle, most = np.quantile(data.bits_per_byte[names[-1]], [0.1, 0.5, 0.9])
    axes.set_title(
        f"Half of {thousands(number)} documents cost less than {middle:.2f} bits per byte, eight in ten between "
        f"{tenth:.2f} and {most:.2f} ({names[-1]} pass)"
    )


def plot_document_gain(data: DocumentScores, axes: "matplotlib.axes.Axes") -> None:
    """Bits per byte that each document saves against the plain pass, over the document's length.

    Args:
        data: Scores of the pass ``plain`` and at least one of ``sliding``, ``adapted`` and ``tilted``.
        axes: Axes to draw on.
    """
    base = data.bits_per_byte["plain"]
    gains = {name: base - data.bits_per_byte[name] for name in GAINING if name in data.bits_per_byte}
    number = len(data.bytes)
    for name, gain in gains.items():
        axes.plot(
            data.bytes,
            gain,
            color=COLOURS.passes[name],
            marker=PASS_MARKER[name],
            markersize=4 if number <= DOTS_UP_TO else 2,
            alpha=0.75 if number <= DOTS_UP_TO else 0.3,
            markeredgewidth=0,
            linestyle="",
            label=name,
        )
    axes.axhline(0.0, color=COLOURS.soft, linewidth=1.0)
    low, high = (float(limit) for limit in np.quantile(np.concatenate(list(gains.values())), [0.01, 0.99]))
    room = max(high - min(low, 0.0), 1e-3)
    axes.set_ylim(min(low, 0.0) - 0.12 * room, high + 0.3 * room)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(short_count)
    axes.set_xlabel("length of the document (bytes, log scale)")
    axes.set_ylabel("saved (bits per byte)")
    axes.legend(loc="upper right", ncols=2, markerscale=1.0 if number <= DOTS_UP_TO else 2.0)
    name, gain = list(gains.items())[-1]
    axes.set_title(
        f"The {name} pass beats the plain pass on {float(np.mean(gain > 0)):.0%} of {thousands(number)} documents; "
        f"the median gain is {float(np.median(gain)):.3f} bits per byte"
    )

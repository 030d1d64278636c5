"""Plots of training: loss, schedules, speed. Each draws one record on given axes and states its finding in the title."""

from typing import TYPE_CHECKING, Literal

import numpy as np

from fairway.report.curves import smoothed
from fairway.report.look import COLOURS, duration, short_count
from fairway.report.records import Metrics, TrainCurve

if TYPE_CHECKING:
    import matplotlib.axes

SMOOTH_FROM = 60
"""Logged steps from which the loss is drawn faint, under its running mean."""


def plot_loss(data: Metrics, axes: "matplotlib.axes.Axes", *, over: Literal["tokens", "seconds"] = "tokens") -> None:
    """Training and validation loss in nats per token, over tokens (log scale) or counted seconds.

    Args:
        data: Metrics with at least one logged step.
        axes: Axes to draw on.
        over: What the horizontal axis counts.
    """
    curve = data.train
    finite = np.isfinite(curve.loss)
    place, loss = getattr(curve, over)[finite].astype(np.float64), curve.loss[finite]
    if len(loss) >= SMOOTH_FROM:
        axes.plot(place, loss, color=COLOURS.train, alpha=0.3, linewidth=0.9)
        axes.plot(place, smoothed(loss), color=COLOURS.train, label="training, running mean")
    else:
        axes.plot(place, loss, color=COLOURS.train, label="training", marker="." if len(loss) < 20 else "")
    if over == "tokens":
        axes.set_xscale("log")
        axes.set_xlabel("training tokens (log scale)")
        _switch(curve, curve.tokens, axes)
    else:
        axes.set_xlabel("counted training time (seconds)")
        _switch(curve, curve.seconds, axes)
    axes.xaxis.set_major_formatter(short_count)
    axes.set_ylabel("loss (nats per token)")
    checks = data.validation
    seen = np.isfinite(checks.nats_per_token) & (checks.tokens > 0)
    if seen.any():
        axes.plot(
            getattr(checks, over)[seen],
            checks.nats_per_token[seen],
            color=COLOURS.validation,
            marker="o",
            markersize=5,
            linewidth=1.2,
            label="validation",
        )
    axes.legend(loc="upper right")
    axes.set_title(_loss_title(data, loss, over, bool(seen.any())))


def _loss_title(data: Metrics, loss: np.ndarray, over: str, validated: bool) -> str:
    if not len(loss):
        return "The training loss was never a finite number"
    curve = data.train
    if over == "seconds" and validated:
        checks = data.validation
        return (
            f"Validation ends at {checks.nats_per_token[-1]:.3f} nats per token ({checks.bits_per_byte[-1]:.3f} bits per "
            f"byte) after {duration(float(checks.seconds[-1]))}"
        )
    amount = f"{short_count(float(curve.tokens[-1]))} tokens" if over == "tokens" else duration(float(curve.seconds[-1]))
    end = float(np.mean(loss[-max(1, len(loss) // 30) :]))
    return f"Training loss goes from {loss[0]:.2f} to {end:.2f} nats per token in {amount}"


def _switch(curve: TrainCurve, place: np.ndarray, axes: "matplotlib.axes.Axes") -> None:
    """Mark the first step with depth recurrence."""
    start = curve.recurrence_start
    if start is None:
        return
    axes.axvline(float(place[start]), color=COLOURS.soft, linestyle=(0, (4, 3)), linewidth=1.2, zorder=1)
    axes.annotate(
        "recurrence on",
        (float(place[start]), 0.03),
        xycoords=("data", "axes fraction"),
        xytext=(-4, 0),
        textcoords="offset points",
        ha="right",
        fontsize=9.5,
        color=COLOURS.soft,
    )


def plot_schedules(data: TrainCurve, axes: "matplotlib.axes.Axes") -> None:
    """Learning-rate multiplier and momentum over progress, both without unit."""
    axes.plot(data.progress, data.learning_rate, color=COLOURS.train, label="learning rate (share of peak)")
    axes.plot(data.progress, data.momentum, color=COLOURS.validation, linestyle=(0, (5, 1.6)), label="momentum")
    axes.set_xlabel("progress of training (share of the budget)")
    axes.set_ylabel("value (no unit)")
    axes.set_xlim(0.0, max(1.0, float(data.progress.max())))
    axes.set_ylim(0.0, max(1.08, 1.05 * float(data.learning_rate.max()), 1.05 * float(data.momentum.max())))
    _switch(data, data.progress, axes)
    axes.legend(loc="lower left", bbox_to_anchor=(0.0, 0.1))
    peak = data.learning_rate.max()
    last = int(np.flatnonzero(data.learning_rate >= peak - 1e-6)[-1])
    low, high = float(data.momentum.min()), float(data.momentum.max())
    momentum = f"rises from {low:.2f} to {high:.2f}" if high > low else f"stays at {low:.2f}"
    axes.set_title(
        f"The learning rate is at its peak until {data.progress[last]:.0%} of training and ends at "
        f"{data.learning_rate[-1]:.0%}; momentum {momentum}"
    )


def plot_speed(data: TrainCurve, axes: "matplotlib.axes.Axes") -> None:
    """Training speed in tokens per second over counted seconds."""
    axes.plot(data.seconds, data.tokens_per_second, color=COLOURS.train)
    axes.set_ylim(0.0, 1.1 * max(float(data.tokens_per_second.max()), 1e-9))
    axes.yaxis.set_major_formatter(short_count)
    axes.xaxis.set_major_formatter(short_count)
    axes.set_xlabel("counted training time (seconds)")
    axes.set_ylabel("speed (tokens per second)")
    _switch(data, data.seconds, axes)
    start = data.recurrence_start
    middle = float(np.median(data.tokens_per_second[:start]))
    title = f"Training runs at {short_count(middle)} tokens per second"
    if start is not None:
        title += f", {short_count(float(np.median(data.tokens_per_second[start:])))} with depth recurrence"
    axes.set_title(title)

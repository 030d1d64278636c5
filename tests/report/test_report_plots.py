import io
from dataclasses import replace

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from fairway.base.values import with_fields
from fairway.report import load_run
from fairway.report.budgets import budgets
from fairway.report.curves import by_document, running
from fairway.report.figures import PLOT_NAMES, all_plots, render
from fairway.report.look import COLOURS, plot_label, short_count, visible
from fairway.report.plots_score import plot_document_gain, plot_documents, plot_gain, plot_ladder, plot_stream
from fairway.report.plots_size import drawn_phases, plot_budgets, plot_clock, plot_tensor_errors
from fairway.report.plots_training import plot_loss, plot_schedules
from fairway.report.records import Phase
from report.fake_run import train_seconds


@pytest.fixture(scope="module")
def data(full_source):
    """The complete run, seen as one whose budget is the seconds that its clock shows."""
    run = load_run(full_source)
    budget = {"train.budget": train_seconds(run.recipe), "train.budget_unit": "seconds", "train.reserve_seconds": 0.0}
    return replace(run, recipe=with_fields(run.recipe, budget))


@pytest.fixture
def axes():
    return Figure().add_subplot()


def title(axes):
    return axes.get_title(loc="left") or axes.get_title()


def test_every_plot_renders_to_a_picture_and_leaves_settings_alone(data):
    before = dict(matplotlib.rcParams)
    plots = all_plots(data)
    assert [plot.name for plot in plots] == list(PLOT_NAMES)
    for plot in plots:
        drawing = render(plot)
        with Image.open(io.BytesIO(drawing.png)) as picture:
            pixels = np.asarray(picture.convert("L"))
        assert pixels.shape == drawing.pixels[::-1], plot.name
        assert 0.005 < (pixels < 200).mean() < 0.6, plot.name
        assert drawing.title, plot.name
        assert all((pixels[edge] == 255).all() for edge in (0, -1)), f"{plot.name} runs out of its picture"
    assert dict(matplotlib.rcParams) == before


def test_pictures_are_the_same_every_time(data):
    plot = all_plots(data)[0]
    assert render(plot).png == render(plot).png


def test_no_text_is_smaller_than_nine_points(data):
    for plot in all_plots(data):
        figure = Figure()
        figure_axes = figure.add_subplot()
        with matplotlib.rc_context(COLOURS.settings()):
            plot.draw(figure_axes)
            figure.canvas.draw()
        sizes = [text.get_fontsize() for text in figure.findobj(matplotlib.text.Text) if text.get_text()]
        assert min(sizes) >= 9.0, plot.name


def test_titles_state_the_difference_of_the_passes(data, axes):
    bits = {item.name: item.bits_per_byte for item in data.score.passes}
    plot_ladder(data.score, axes)
    assert f"adaptation gains {bits['sliding'] - bits['adapted']:.4f}" in title(axes)
    assert f"Quantization costs {bits['plain'] - bits['float']:.4f}" in title(axes)
    stream = Figure().add_subplot()
    plot_stream(running(data.ledger), stream)
    assert title(stream) == f"Adaptation gains {bits['sliding'] - bits['adapted']:.4f} bits per byte over sliding windows"


def test_a_loss_through_adaptation_is_called_a_loss(data, axes):
    nats = dict(data.ledger.nats)
    nats["adapted"] = nats["sliding"] * np.float32(1.02)
    curve = running(replace(data.ledger, nats=nats))
    plot_stream(curve, axes)
    assert title(axes).startswith("Adaptation loses")
    gain = Figure().add_subplot()
    plot_gain(curve, gain)
    assert "short of sliding windows" in title(gain)


def test_passes_keep_their_colour(data, axes):
    plot_stream(running(data.ledger), axes)
    for line in axes.get_lines():
        assert line.get_color() == COLOURS.passes[line.get_label().split()[0]]


def test_loss_marks_the_switch_and_the_validations(data, axes):
    plot_loss(data.metrics, axes, over="seconds")
    start = data.metrics.train.recurrence_start
    switches = [line for line in axes.get_lines() if np.all(np.asarray(line.get_xdata()) == data.metrics.train.seconds[start])]
    assert len(switches) == 1
    (checks,) = [line for line in axes.get_lines() if line.get_label() == "validation"]
    np.testing.assert_array_equal(checks.get_ydata(), data.metrics.validation.nats_per_token)


def test_loss_that_diverged_is_drawn_up_to_there(data, axes):
    loss = data.metrics.train.loss.copy()
    loss[20:] = np.nan
    plot_loss(replace(data.metrics, train=replace(data.metrics.train, loss=loss)), axes)
    assert "NaN" not in title(axes)
    assert "nan" not in title(axes)


def test_run_without_recurrence_has_no_mark(data, axes):
    curve = data.metrics.train
    plot_schedules(replace(curve, recurrent=np.zeros(len(curve), dtype=np.bool_)), axes)
    assert not axes.texts


def test_clock_bar_is_as_long_as_the_clock(data, axes):
    plot_clock(data.clock, axes)
    total = sum(phase.seconds for phase in data.clock)
    assert sum(bar.get_width() for bar in axes.patches) == pytest.approx(total)
    hatched = sum(bar.get_width() for bar in axes.patches if bar.get_hatch())
    assert hatched == pytest.approx(sum(phase.seconds for phase in data.clock if not phase.counted))


def test_short_phases_are_added_up_without_mixing_counted_and_uncounted():
    phases = [Phase("train", 100.0, True), Phase("a", 0.1, True), Phase("b", 0.1, True), Phase("c", 0.1, False)]
    assert drawn_phases(phases) == [phases[0], Phase("2 short phases", 0.2, True), phases[3]]


def test_budget_over_its_limit_is_said(data, axes):
    over = replace(data, score=replace(data.score, byte_cap=500_000))
    size = budgets(over)[0]
    assert size.over
    assert size.verdict == f"over by {size.used - 500_000:,.0f} bytes"
    plot_budgets(budgets(over), axes)
    assert title(axes) == f"Size is over its limit by {size.used - 500_000:,.0f} bytes"


def test_training_may_end_with_the_step_that_passes_the_limit_but_no_later(data):
    _, training, evaluation = budgets(data)
    assert training.used > training.limit
    assert not training.over
    late = tuple(replace(phase, seconds=phase.seconds + 3 * (phase.name == "hessian")) for phase in data.clock)
    assert budgets(replace(data, score=replace(data.score, clock=late)))[1].over
    assert not evaluation.binding
    assert evaluation.used == data.score.passes[-1].seconds


@pytest.mark.parametrize("unit", ["steps", "tokens"])
def test_budgets_in_steps_and_tokens(data, unit):
    used = 860 if unit == "steps" else 860 * data.recipe.train.batch_tokens
    recipe = replace(data.recipe, train=replace(data.recipe.train, budget=float(used), budget_unit=unit))
    training = budgets(replace(data, recipe=recipe))[1]
    assert (training.unit, training.used, training.over) == (unit, used, False)


def test_many_documents_become_a_histogram_that_counts_all(data, axes):
    starts = np.arange(0, len(data.ledger), 64, dtype=np.int64)
    documents = by_document(replace(data.ledger, documents=starts))
    plot_documents(documents, axes)
    for stairs in axes.patches:
        assert stairs.get_data().values.sum() == len(documents.bytes)
    gain = Figure().add_subplot()
    plot_document_gain(documents, gain)
    assert f"of {len(documents.bytes):,} documents" in title(gain)


def test_errors_of_zero_are_drawn(data, axes):
    records = [replace(record, rms_error=0.0, hessian_error=0.0) for record in data.tensors if record.quantized]
    plot_tensor_errors(records, axes)
    axes.figure.canvas.draw()


def test_names_with_any_character_can_be_drawn(data):
    phases = (Phase("tr$ain_\u4e2d\n\x00$" * 9, 3.0, True), Phase("", 1.0, False))
    tensors = tuple(replace(record, name=f"blocks.0.\u4e2d${index}$") for index, record in enumerate(data.tensors))
    odd = replace(data, score=replace(data.score, clock=phases), tensors=tensors)
    for plot in all_plots(odd):
        if plot.name in ("clock", "tensor_bits", "tensor_errors"):
            assert render(plot).png


def test_text_helpers():
    assert visible("a\tb\nc") == "a\tb\nc"
    assert visible("\x00\x1b\x7f\u202e\ud800\ufffe") == "<U+0000><U+001B><U+007F><U+202E><U+D800><U+FFFE>"
    assert visible("naïve 中文 🙂") == "naïve 中文 🙂"
    assert len(plot_label("x" * 99)) == 40
    assert [short_count(value) for value in (0.25, 12.0, 1234.0, 7_045_120.0)] == ["0.25", "12", "1.23k", "7.05M"]

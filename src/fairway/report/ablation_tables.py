"""An ablation as tables and sentences, the same for the terminal, the notebook and the page."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fairway.record.ablation import PASSES, RESULT, Ablation, Difference, Gain
from fairway.record.pooled import LEVEL
from fairway.report.look import thousands

PERCENT = f"{LEVEL:.0%}"
SURE = "*"
"""Marks a gain whose interval excludes zero."""
HEADINGS = {"plain": "quantized"}
"""The plain pass is the one that shows what quantization costs."""


@dataclass(frozen=True)
class Table:
    """Cells as text, the first column naming the row."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def tables(found: Ablation) -> tuple[Table, ...]:
    """The tables of an ablation, as far as there is something to show."""
    parts = [_levels(found)]
    if found.systems:
        named = [(item.new, item) for item in found.systems]
        parts.append(_gains(f"Gain of each system over {found.plan.systems[0]}", "system", named))
    if found.ladder:
        named = [(_technique(item), item) for item in found.ladder]
        if found.whole_ladder:
            named.append(("all of them together", found.whole_ladder))
        title = f"Gain of one technique at a time, from {found.plan.ladder[0].group} to {found.plan.ladder[-1].group}"
        parts.append(_gains(title, "technique", named))
    return (*parts, _deviations(found), _costs(found))


def _headings(names: Sequence[str]) -> tuple[str, ...]:
    return tuple(HEADINGS.get(name, name) for name in names)


def _levels(found: Ablation) -> Table:
    names = [name for name in found.passes if name != RESULT]
    rows = tuple(
        (
            group.group.name,
            str(len(group.runs)),
            *(f"{group.mean(name):.5f}" if name in group.passes else "" for name in names),
        )
        for group in found.groups.values()
    )
    return Table("Bits per byte by pass, mean over seeds", ("group", "seeds", *_headings(names)), rows)


def _gains(title: str, what: str, named: Sequence[tuple[str, Difference]]) -> Table:
    """What was asked first: the result and its verdict; then the gain in every pass that any two sides share."""
    names = [name for name in PASSES if any(name in item.gains for _, item in named)]
    header = (what, "verdict", RESULT, "paired by seed", "seeds won", "noise", *_headings(names))
    return Table(title, header, tuple((label, *_gain_cells(item, names)) for label, item in named))


def _gain_cells(item: Difference, names: Sequence[str]) -> tuple[str, ...]:
    if not item.gains:
        return (item.verdict, *[""] * (4 + len(names)))
    result = item.gains[RESULT]
    won = sum(value > 0 for value in result.by_seed.values())
    paired = f"±{result.paired.half:.5f}" if result.paired else ""
    cells = (gain_text(item.gains[name]) if name in item.gains else "" for name in names)
    return (item.verdict, gain_text(result), paired, f"{won} of {len(result.by_seed)}", result.noise, *cells)


def gain_text(gain: Gain) -> str:
    """A gain with half of its interval, such as ``+0.00123 ±0.00045*``."""
    # Adding zero turns a negative zero into a positive one.
    shown = f"{round(gain.value, 5) + 0.0:+.5f}"
    if gain.interval is None:
        return shown
    if gain.verdict == "unchanged":
        return "0"
    sure = SURE if gain.verdict != "within noise" else ""
    return f"{shown} ±{gain.interval.half:.5f}{sure}"


def _technique(item: Difference) -> str:
    assert item.technique is not None
    return f"{item.technique.title} ({item.technique.source})"


def _deviations(found: Ablation) -> Table:
    names = found.columns
    rows = []
    for group in found.groups.values():
        deviations = (group.deviation(name) if name in group.passes else None for name in names)
        rows.append((group.group.name, *("" if value is None else f"{value:.5f}" for value in deviations)))
    spreads = [found.spreads[name] for name in names]
    rows.append(("between groups at equal seeds, pooled", *(f"{spread.deviation:.5f}" if spread else "" for spread in spreads)))
    rows.append(("degrees of freedom", *(str(spread.degrees) if spread else "" for spread in spreads)))
    return Table("Deviation over seeds (ddof 1), bits per byte", ("group", *_headings(names)), tuple(rows))


def _costs(found: Ablation) -> Table:
    rows = []
    for group in found.groups.values():
        sizes = [group.stated(name) for name in ("model_bytes", "code_bytes", "total_bytes")]
        room = None if sizes[2] is None else group.byte_cap - sizes[2]
        figures = [*sizes, group.byte_cap, room, group.steps, group.stated("train_seconds"), group.stated("eval_seconds")]
        trainer = group.group.trainer
        cells = ("" if figure is None else thousands(figure) for figure in figures)
        rows.append((group.group.name, *cells, "own" if trainer == group.group.name else trainer))
    header = ("group", "artifact", "code", "total", "cap", "room", "steps", "train s", "score s", "weights")
    return Table("Bytes, steps and counted seconds, mean over seeds", header, tuple(rows))


def sentences(found: Ablation) -> tuple[str, ...]:
    """What the figures mean and what they do not show, a sentence or two each."""
    return tuple(_sentences(found))


def _sentences(found: Ablation) -> Iterator[str]:
    kinds = {gain.noise for item in found.differences for gain in item.gains.values()}
    # One pair of groups may be a system and a whole ladder, and one pass is the result: each interval counts once.
    intervals = {
        (item.new, item.old, gain.value, gain.error): gain
        for item in found.differences
        for gain in item.gains.values()
        if gain.interval and gain.error
    }
    if found.missing:
        total = len(found.plan.groups) * len(found.plan.seeds)
        yield f"{len(found.missing)} of {total} runs are still missing; the table is of those that are there."
    if found.sources > 1:
        yield (
            f"The runs were made with {found.sources} different versions of the source. Where a change of it moved results, "
            "groups cannot be compared; make the older runs again."
        )
    yield (
        "A gain is what is saved in bits per byte: positive is better. The result is the last pass of each run; the "
        f"verdict and the seeds won are about it. ± is half of the {PERCENT} interval; {SURE} marks an interval without zero."
    )
    if "seeds" in kinds and any(gain.noise == "seeds" for gain in intervals.values()):
        yield (
            "Noise of seeds: the networks were trained apart, so another seed would move the gain. Its interval is "
            "t s sqrt(2/n) for n equal seeds, with the deviation s of what is left once every group's and every seed's mean "
            "are taken out, pooled over all groups of the pass (two-way analysis of variance, seeds as blocks; groups with "
            "the same weights count once). That assumes that all groups spread equally."
        )
    elif "seeds" in kinds:
        yield (
            "There is one seed for each group, so nothing tells how far another seed would move it: gains between networks "
            "that were trained apart have no interval."
        )
    if "documents" in kinds:
        yield (
            "Noise of documents: both sides score the very same trained weights, so seeds are not what separates them. The "
            "interval is that of the difference paired over the documents of the text, seeds averaged. It says how far "
            "another text would move the gain, not another training."
        )
    if any(gain.paired for item in found.differences for gain in item.gains.values()):
        yield (
            f"Paired by seed: half of the {PERCENT} interval that the result's gains at each seed give on their own, with one "
            "degree of freedom less than seeds. What a seed does to both sides alike cancels there, whatever it is; but so "
            "few gains can agree by luck."
        )
    if intervals:
        yield (
            f"These are {len(intervals)} intervals: if no technique did anything, about {len(intervals) * (1 - LEVEL):.0f} of "
            f"them would still exclude zero. Neighbouring steps share a group, so luck in one moves two gains, in "
            "opposite directions."
        )
    if any(item.same_settings for item in found.ladder):
        yield "Same settings: at this size, or with the settings given to all runs, the technique changes nothing."
    yield "Seconds depend on the machine and on what ran beside; weights of another group bring its training time along."


def markdown(found: Ablation, picture: str) -> str:
    """Tables and sentences for a notebook, the picture by its file name."""
    parts = [f"![What each technique is worth]({picture})"]
    for item in tables(found):
        rule = ["---", *["---:"] * (len(item.header) - 1)]
        lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in (item.header, rule, *item.rows)]
        parts += [f"**{item.title}**", "\n".join(lines)]
    return "\n\n".join([*parts, *sentences(found)]) + "\n"

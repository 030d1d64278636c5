"""``fairway compare``."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from fairway.base.errors import DataError
from fairway.cli.parse import Switch, emit, parse, table

if TYPE_CHECKING:
    from fairway.record.ablation import Ablation
    from fairway.record.compare import Comparison


@dataclass(frozen=True, kw_only=True)
class CompareArguments:
    """Compare runs with other runs: means, deviations (ddof 1), gap, and what it shows beyond the spread of seeds.

    Or show a whole ablation, the folder of fairway ablate: what each technique gains, with confidence intervals.
    """

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional] = ()
    """Run folders that should be better, seeds of one recipe; or the JSON file of one published record; or the folder of one
    ablation, alone."""
    against: tuple[Path, ...] = ()
    """Run folders, or the JSON file of one published record, that they should beat."""
    margin: float = 0.005
    """Improvement to show, besides none at all."""
    unit: Literal["nats_per_token", "nats_per_byte", "bpb"] = "nats_per_token"
    """Unit of the margin."""
    pass_name: Annotated[str | None, tyro.conf.arg(name="pass")] = None
    """Pass of the runs to compare, such as sliding; by default the last one of each, which is its result."""
    json: Switch = False
    """Print one JSON document instead of tables."""


def compare(argv: Sequence[str]) -> int:
    """Compare runs with other runs; 0 whatever the outcome, for a comparison has no verdict."""
    arguments = parse(CompareArguments, argv, "compare")
    from fairway.record.ablation_plan import PLAN

    ablations = [path for path in arguments.runs if (path / PLAN).exists()]
    if ablations:
        return _compare_ablation(arguments, ablations[0])
    if not arguments.runs or not arguments.against:
        raise DataError("fairway compare needs runs on both sides: fairway compare RUN... --against RUN...")
    from fairway.record.compare import compare as compare_results
    from fairway.record.results import read_results
    from fairway.record.units import Margin, Unit

    new, reference = (
        [result for path in paths for result in read_results(path, arguments.pass_name)]
        for paths in (arguments.runs, arguments.against)
    )
    found = compare_results(new, reference, Margin(arguments.margin, Unit(arguments.unit)))
    emit(found.to_dict(), _text(found), as_json=arguments.json)
    return 0


def _compare_ablation(arguments: CompareArguments, root: Path) -> int:
    """The tables of an ablation; its page, picture and notebook entry are written into its folder."""
    if arguments != CompareArguments(runs=(root,), json=arguments.json):
        raise DataError(f"an ablation is compared alone and in all passes: fairway compare {root}")
    from fairway.record.ablation import read_ablation
    from fairway.record.ablation_document import ablation_document
    from fairway.report.ablation_page import write_ablation

    found = read_ablation(root)
    files = [str(path) for path in write_ablation(root, found)]
    emit(
        {**ablation_document(found), "files": files},
        f"{_ablation_text(found)}\n\nwritten: {', '.join(files)}",
        as_json=arguments.json,
    )
    return 0


def _ablation_text(found: "Ablation") -> str:
    from fairway.report.ablation_tables import sentences, tables

    parts = [f"{item.title}\n\n{table(item.rows, item.header)}" for item in tables(found)]
    return "\n\n".join([*parts, "\n".join(sentences(found))])


def _text(found: "Comparison") -> str:
    """Tables of runs, means, tests and pairs, then the sentences."""
    parts = [_runs(found), _means(found), _tests(found), _paired(found), _needed(found)]
    sentences = [*found.conclusions, *(f"Discrepancy: {sentence}." for sentence in found.discrepancies)]
    return "\n\n".join([*(part for part in parts if part), "\n".join(sentences)])


def _runs(found: "Comparison") -> str:
    rows = [
        (
            side,
            result.name,
            result.stated.seed,
            result.recipe_name,
            result.pass_name or "",
            f"{result.bits_per_byte:.6f}",
            f"{result.nats_per_token:.6f}",
            f"{result.stated.total_bytes:,}" if result.stated.total_bytes is not None else "",
        )
        for side, group in (("new", found.new), ("against", found.reference))
        for result in group.results
    ]
    return table(rows, ("side", "run", "seed", "recipe", "pass", "bpb", "nats/token", "total bytes"))


def _means(found: "Comparison") -> str:
    from fairway.record.units import Unit, per_bpb

    units = (Unit.BPB, Unit.NATS_PER_TOKEN)
    rows = []
    for name, side in (("new", found.new), ("against", found.reference)):
        for unit in units:
            summary = side.summary(unit)
            deviation = "unknown" if summary.deviation is None else f"{summary.deviation:.6f}"
            rows.append((name, unit.label, str(summary.count), f"{summary.mean:.6f}", deviation))
    rows += [("gap", unit.label, "", f"{found.gap(unit):+.6f}", "") for unit in units]
    factor = per_bpb(Unit.NATS_PER_TOKEN, found.text)
    return "\n".join(
        [
            table(rows, ("side", "unit", "runs", "mean", "deviation (ddof 1)")),
            f"A positive gap is better. {found.text}: 1 bpb is {factor:.6f} nats per token and 0.693147 nats per byte.",
        ]
    )


def _tests(found: "Comparison") -> str:
    """One row per test; t, degrees and p hold in every unit, for all runs scored one text."""
    from fairway.record.units import Unit, convert

    rows = [
        (
            item.test,
            f"{item.significance.margin:.6f}",
            f"{convert(item.significance.margin, Unit.BPB, Unit.NATS_PER_TOKEN, found.text):.6f}",
            f"{item.significance.t:.3f}",
            f"{item.significance.degrees:.2f}",
            f"{item.significance.p:.3g}",
            item.rule,
            f"{'yes' if item.accepted else 'no'}: p {'<' if item.accepted else '>='} {item.level:g}",
        )
        for item in found.answers
    ]
    header = ("test", "margin bpb", "nats/token", "t", "degrees", "p", "question", "answer")
    return table(rows, header) if rows else ""


def _paired(found: "Comparison") -> str:
    pair = found.paired
    if pair is None:
        return ""
    return (
        f"Paired over {pair.documents} documents: {pair.difference:+.6f} bpb, standard error {pair.standard_error:.6f}, "
        f"t {pair.t:.2f}, p {pair.p:.2g}; better on {pair.better} of {pair.documents}."
    )


def _needed(found: "Comparison") -> str:
    needed = found.needed
    if not needed:
        return ""
    seeds = needed["seeds_for_this_gap"]
    enough = f"this gap would need {seeds:,} seeds on each side" if seeds else "no number of seeds would do for this gap"
    return (
        f"To show {found.margin} at p < 0.01 with a deviation of {needed['deviation_bpb']:.6f} bpb: {needed['seeds']} seeds on "
        f"each side need a gap of {needed['gap_bpb']:.6f} bpb; {enough}."
    )

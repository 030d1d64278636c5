"""Runs against runs: what may be compared, what the numbers are, which rule each p-value answers, and what they do not show."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from fairway.record.checks import Limits
from fairway.record.claim import claim_audit
from fairway.record.comparable import differing_settings, listed, refuse_different_text, refuse_mixed_side, refuse_repeated_runs
from fairway.record.figures import Claim, digest_of
from fairway.record.paired import Paired, paired_difference
from fairway.record.results import Result
from fairway.record.statistics import NO_MARGIN, Significance, Summary, gap_needed, one_sample_test, seeds_needed, welch_test
from fairway.record.units import Margin, TextSize, Unit

LEADERBOARD_LEVEL = 0.25
RECORD_LEVEL = 0.01
RECORD_MARGIN = Margin(0.005, Unit.NATS_PER_TOKEN)


@dataclass(frozen=True)
class Side:
    """Runs that differ in their seed alone."""

    results: tuple[Result, ...]

    def summary(self, unit: Unit) -> Summary:
        """Mean and deviation in ``unit``."""
        text = self.results[0].text
        return Summary.of([result.bits_per_byte for result in self.results], Unit.BPB, text).in_unit(unit)


@dataclass(frozen=True)
class Answer:
    """One test, and the rule that its p-value answers."""

    test: str
    rule: str
    level: float
    """The rule accepts a p-value below this."""
    significance: Significance
    """In bits per byte; ``t``, degrees and p are the same in nats per token, for both sides scored one text."""

    @property
    def accepted(self) -> bool:
        """Whether the rule is met."""
        return self.significance.p < self.level


@dataclass(frozen=True)
class Comparison:
    """Everything that a comparison says."""

    new: Side
    reference: Side
    margin: Margin
    answers: tuple[Answer, ...]
    paired: Paired | None
    needed: dict[str, float | int | None]
    """What would show the margin: pooled deviation, gap needed with the seeds at hand, seeds needed for the gap seen."""
    conclusions: tuple[str, ...]
    """What can and what cannot be concluded, a sentence each."""
    discrepancies: tuple[str, ...]
    """What the runs state and their files do not show."""

    @property
    def text(self) -> TextSize:
        """The text that every run scored."""
        return self.new.results[0].text

    def gap(self, unit: Unit) -> float:
        """Reference mean minus new mean; positive when the new runs are better."""
        return self.reference.summary(unit).mean - self.new.summary(unit).mean

    def to_dict(self) -> dict[str, Any]:
        """The comparison as JSON can hold it."""
        units = (Unit.BPB, Unit.NATS_PER_TOKEN)
        sides = {"new": self.new, "reference": self.reference}
        return {
            "tokens": self.text.tokens,
            "bytes": self.text.bytes,
            "sides": {
                name: {
                    "runs": [_run_document(result) for result in side.results],
                    **{unit.value: _summary_document(side.summary(unit)) for unit in units},
                }
                for name, side in sides.items()
            },
            "gap": {unit.value: self.gap(unit) for unit in units},
            "margin": {
                "value": self.margin.value,
                "unit": self.margin.unit.value,
                **{f"in_{unit.value}": self.margin.in_unit(unit, self.text, self.text) for unit in units},
            },
            "tests": [
                {
                    "test": item.test,
                    "rule": item.rule,
                    "level": item.level,
                    "accepted": item.accepted,
                    **asdict(item.significance),
                }
                for item in self.answers
            ],
            "paired": _finite(asdict(self.paired)) if self.paired else None,
            "needed": self.needed,
            "conclusions": list(self.conclusions),
            "discrepancies": list(self.discrepancies),
        }


def _finite(figures: dict[str, Any]) -> dict[str, Any]:
    """JSON has no infinities: the ``t`` of a difference without any error becomes null."""
    return {name: value if math.isfinite(value) else None for name, value in figures.items()}


def _run_document(result: Result) -> dict[str, Any]:
    return {
        "run": result.name,
        "seed": result.stated.seed,
        "recipe": result.recipe_name,
        "pass": result.pass_name,
        "mode": result.mode,
        "bits_per_byte": result.bits_per_byte,
        "nats_per_token": result.nats_per_token,
        "total_bytes": result.stated.total_bytes,
    }


def _summary_document(summary: Summary) -> dict[str, float | int | None]:
    return {"mean": summary.mean, "deviation": summary.deviation, "runs": summary.count}


def compare(new: Sequence[Result], reference: Sequence[Result], margin: Margin = RECORD_MARGIN) -> Comparison:
    """Compare two sides.

    Args:
        new: Runs that should be better.
        reference: Runs they should beat.
        margin: Improvement to show besides none at all.

    Raises:
        DataError: the sides cannot be compared, or a side is not several seeds of one thing.
        MachineError: scipy is missing.
    """
    refuse_different_text([*new, *reference])
    refuse_repeated_runs([*new, *reference])
    for side in (new, reference):
        refuse_mixed_side(side)
    sides = Side(tuple(new)), Side(tuple(reference))
    answers, notes = _answers(*sides, margin)
    paired, pairing = _paired(*sides)
    return Comparison(
        *sides,
        margin=margin,
        answers=tuple(answers),
        paired=paired,
        needed=_needed(*sides, margin),
        conclusions=(*notes, *pairing, *_remarks(*sides)),
        discrepancies=tuple(sentence for side in sides for sentence in discrepancies(side)),
    )


def _answers(new: Side, reference: Side, margin: Margin) -> tuple[list[Answer], list[str]]:
    """The tests that the numbers of runs allow, and what they leave open."""
    counts = len(new.results), len(reference.results)
    ours, theirs = new.summary(Unit.BPB), reference.summary(Unit.BPB)
    if counts[0] == 1:
        who = "Each side" if counts[1] == 1 else "The new side"
        return [], [
            f"{who} is a single run: how far another seed would move it is unknown, so nothing can be concluded about the "
            "method, only about the artifact at hand; run at least 2 more seeds."
        ]
    if not ours.deviation and not theirs.deviation:
        return [], ["The runs of a side all gave the same value, so no spread can be estimated; check that their seeds differ."]
    rules = [("is it better at all? leaderboard rule", LEADERBOARD_LEVEL, NO_MARGIN)]
    if margin.value > 0:
        rule = "is it better by the margin? README rule" if margin == RECORD_MARGIN else "is it better by the margin?"
        rules.append((rule, RECORD_LEVEL, margin))
    if counts[1] == 1:
        answers = [
            Answer("one-sample", rule, level, one_sample_test(ours, theirs.mean, needed)) for rule, level, needed in rules
        ]
        return answers, [
            "The reference is a single run, taken here as an exact number: the tests answer whether the new mean lies below "
            "that number, not whether the new method is better, for another seed could move it; run at least 2 more seeds."
        ]
    return [Answer("Welch", rule, level, welch_test(ours, theirs, needed)) for rule, level, needed in rules], []


def _needed(new: Side, reference: Side, margin: Margin) -> dict[str, float | int | None]:
    """What would show the margin at the README's level, from the spread that was seen; empty without a spread."""
    spreads = [side.summary(Unit.BPB).deviation for side in (new, reference)]
    known = [spread for spread in spreads if spread is not None]
    if not any(known):
        return {}
    deviation = (sum(spread**2 for spread in known) / len(known)) ** 0.5
    text = new.results[0].text
    least = margin.in_unit(Unit.BPB, text, text)
    seeds = max(2, min(len(new.results), len(reference.results)))
    gap = reference.summary(Unit.BPB).mean - new.summary(Unit.BPB).mean
    return {
        "deviation_bpb": deviation,
        "seeds": seeds,
        "gap_bpb": gap_needed(deviation, seeds, least, RECORD_LEVEL),
        "seeds_for_this_gap": seeds_needed(gap, deviation, least, RECORD_LEVEL),
    }


def _paired(new: Side, reference: Side) -> tuple[Paired | None, list[str]]:
    """The paired comparison where every run kept its ledger."""
    costs = [[result.costs for result in side.results] for side in (new, reference)]
    ours, theirs = ([item for item in side if item is not None] for side in costs)
    if len(ours) < len(new.results) or len(theirs) < len(reference.results):
        return None, ["No paired comparison: not every run has a ledger.npz, the cost of every target."]
    if len(ours[0].starts) < 2:
        return None, ["No paired comparison: the text is a single document."]
    if not all(ours[0].same_text(other) for other in (*ours, *theirs)):
        return None, ["No paired comparison: the ledgers are of different texts or tokenizers."]
    return paired_difference(ours, theirs), [
        "The paired comparison is about these packed models on text like this; it does not show what other seeds would give."
    ]


def _remarks(new: Side, reference: Side) -> Iterator[str]:
    """What a reader should know about how the runs were made."""
    everything = (*new.results, *reference.results)
    for name, side in (("new", new), ("reference", reference)):
        if len({result.stated.seed for result in side.results}) < len(side.results):
            yield f"A seed occurs twice on the {name} side: such runs differ by timing alone and understate the spread."
    first = new.results[0], reference.results[0]
    changed = [item for item in differing_settings(*first) if not item.startswith(("name ", "summary "))]
    if changed:
        yield f"Settings that differ, new and reference: {listed(changed)}."
    passes = [side.results[0].pass_name for side in (new, reference)]
    if None not in passes and passes[0] != passes[1]:
        yield f"The sides are different passes ({passes[0]} and {passes[1]}): the gap includes the way of scoring."
    if any(result.mode not in (None, "strict") for result in everything):
        yield "A score is not in strict mode; a record can be claimed from strict alone."
    if any(result.partial for result in everything):
        yield "Only a leading part of the text was scored."
    if any(result.data_fingerprint is None for result in everything):
        yield "A published record does not name its data; that its text is the same was checked by tokens and bytes alone."
    codes = [digest_of(result.folder.code) for result in everything if result.folder]
    if len(set(codes)) > 1:
        yield "The runs were made by different versions of the code."


def discrepancies(side: Side) -> list[str]:
    """Test Q on one side: what is stated against the ledgers and files, or for a record against itself."""
    caps = [result.byte_cap for result in side.results if result.byte_cap is not None]
    limits = Limits(
        bytes=float(max(caps)) if caps else 16_000_000.0,
        train_seconds=float("inf"),
        eval_seconds=float("inf"),
        seeds=1,
        files=(),
    )
    claim = side.results[0].record or Claim(
        name=side.results[0].recipe_name,
        bits_per_byte=side.summary(Unit.BPB).mean,
        seeds=tuple(replace(result.stated, seed=_label(result)) for result in side.results),
    )
    # Versions of the code are remarked on for both sides together.
    evidence = [replace(result.measured(), seed=_label(result)) for result in side.results if result.folder]
    found = claim_audit(claim, evidence, limits=limits).details["discrepancies"]
    return [item["sentence"] for item in found if not item["kind"].startswith("mixed code")]


def _label(result: Result) -> str:
    """A name of the run that no other has, even where two have one seed."""
    return f"{result.stated.seed} ({result.name})"

"""Why runs cannot be handed in as a record: every reason, each an error that says what, value, limit and remedy."""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from fairway.base.errors import BudgetError, DataError, FairwayError, ValidityError
from fairway.record.comparable import differing_settings, listed, refuse_mixed_side, refuse_repeated_runs
from fairway.record.compare import Comparison, discrepancies
from fairway.record.evidence import SeedRun
from fairway.record.statistics import gap_needed, seeds_needed
from fairway.record.units import Unit

CLOCK_NOISE = 1e-6
"""Seconds by which two records of one phase may differ."""
NOT_COMPARED = ("seed", "weights_sha256", "data_fingerprint")
"""Fields of an artifact's header that seeds do not share, or that are compared by themselves."""
UNDECIDED_ELSEWHERE = ("budget", "undecided")
"""What an audit says of seconds that were not taken on the track's hardware; bytes and seconds are measured here anyway."""
SCORE_AGAIN = "score the run again with fairway score"


class Refused(ValidityError):
    """A record that was not written, with every reason."""

    def __init__(self, reasons: Sequence[FairwayError], *, readable: bool = True) -> None:
        """Keep ``reasons``; the message numbers them.

        Args:
            reasons: Each an error of its own.
            readable: Whether the runs could be read, so that a draft could be made of them.
        """
        self.reasons = tuple(reasons)
        self.remedy = "--draft writes a folder that says so" if readable else "not even a draft can be made of unreadable runs"
        numbered = "; ".join(f"({number}) {reason}" for number, reason in enumerate(reasons, start=1))
        many = f"{len(reasons)} reasons stand" if len(reasons) != 1 else "one reason stands"
        super().__init__(f"{many} against this record, nothing was written: {numbered}; {self.remedy}")


def of_runs(runs: Sequence[SeedRun]) -> Iterator[FairwayError]:
    """What is wrong with single runs, then with all of them together; figures and caps are the claim audit's."""
    for run in runs:
        yield from run.problems
        yield from _of_one(run)
    yield from _repeated(runs)
    for run in runs[1:]:
        yield from _mixed(runs[0], run)


def _of_one(run: SeedRun) -> Iterator[FairwayError]:
    name, score = run.result.name, run.score
    if run.result.mode != "strict":
        yield ValidityError(
            f"{name} was scored in mode {run.result.mode}; a record can be claimed from strict alone, score it again with "
            "--score.mode strict"
        )
    if run.events and run.stop is None:
        yield DataError(f"{name}/metrics.jsonl tells no end of training; finish the run with fairway run --resume")
    cap, asked = score["byte_cap"], run.recipe.artifact.byte_cap
    if cap != asked:
        yield BudgetError(f"{name}/score.json was held to {cap:,} bytes, its recipe's cap is {asked:,}; {SCORE_AGAIN}")
    digest = score.get("ledger_sha256")
    if digest is not None and digest != run.digests.get(run.folder.ledger.name):
        yield ValidityError(
            f"{run.folder.ledger} was altered: its SHA-256 is not {str(digest)[:16]}..., which score.json names; {SCORE_AGAIN}"
        )
    steps, train = run.stated.steps, run.recipe.train
    if train.budget_unit == "steps" and steps is not None and steps > train.budget:
        yield BudgetError(f"{name} took {steps:,} steps, its budget is {train.budget:,.0f}; make the run again")
    yield from _other_artifact(run)
    yield from _other_clock(run)
    yield from _other_data(run)
    yield from _unaudited(run)


def _other_artifact(run: SeedRun) -> Iterator[FairwayError]:
    """The artifact carries what it was made of and how it is scored; a swapped one shows."""
    scored, packed = (_provable(settings) for settings in (run.score.get("settings"), run.header.get("score")))
    if None not in (scored, packed) and scored != packed:
        yield ValidityError(
            f"{run.result.name} was scored with other settings than its artifact carries, so a proof of the artifact does not "
            "speak of this score; score it again without --score.*"
        )
    told = {"seed": run.recipe.seed, "recipe": run.recipe.name, "data_fingerprint": run.result.data_fingerprint}
    for name, expected in told.items():
        found = run.header.get(name, expected)
        if found != expected:
            yield ValidityError(
                f"{run.folder.artifact} was packed for {name} {found!r}, the run is of {expected!r}; pack it again with "
                "fairway pack"
            )
    weights = run.digests.get(run.folder.weights.name)
    if weights is not None and run.header.get("weights_sha256", weights) != weights:
        yield ValidityError(
            f"{run.folder.artifact} was packed from other weights than {run.folder.weights.name} now holds; pack it again with "
            "fairway pack"
        )


def _provable(settings: Any) -> dict[str, Any] | None:
    """Settings of a score that a proof depends on, if they are stated."""
    if not isinstance(settings, dict):
        return None
    return {name: value for name, value in settings.items() if name not in ("passes", "proof_targets", "windows_per_forward")}


def _other_clock(run: SeedRun) -> Iterator[FairwayError]:
    """Seconds stand in three files, which must agree."""
    scored = {name: phase["seconds"] for name, phase in run.score["clock"].items()}
    logged = {event["name"]: event.get("seconds") for event in run.events if event["event"] == "phase" and "name" in event}
    trained = {name: phase.get("seconds") for name, phase in run.clock.items() if isinstance(phase, dict)}
    for file, found in (("clock.json", trained), ("metrics.jsonl", {"train": logged["train"]} if "train" in logged else {})):
        for phase, seconds in found.items():
            stated = scored.get(phase)
            if not isinstance(seconds, int | float) or stated is None or abs(seconds - stated) > CLOCK_NOISE:
                yield ValidityError(
                    f"{run.result.name}/{file} gives {phase} {seconds} s, score.json {stated} s; one of them is of another "
                    f"run, {SCORE_AGAIN}"
                )


def _other_data(run: SeedRun) -> Iterator[FairwayError]:
    trained = run.environment.get("data_fingerprint", run.result.data_fingerprint)
    if trained != run.result.data_fingerprint:
        yield ValidityError(
            f"{run.result.name} was trained on data {trained} and scored on {run.result.data_fingerprint}; nothing shows that "
            f"their documents differ, {SCORE_AGAIN} --data of its training"
        )


def _unaudited(run: SeedRun) -> Iterator[FairwayError]:
    """An audit of the pass that gives the result, which passed."""
    audited, result = run.audited, run.result
    if audited is None:
        return
    yield from _other_sizes(run)
    again = f"run: fairway audit {result.name}"
    if audited.pass_name != result.pass_name:
        yield ValidityError(
            f"{result.name}/audit.json is about pass {audited.pass_name}, the result is of {result.pass_name}; {again}"
        )
    open_ = [
        f"{name}: {reason or verdict}"
        for name, (verdict, reason) in audited.conditions.items()
        if verdict not in ("pass", "not applicable") and (name, verdict) != UNDECIDED_ELSEWHERE
    ]
    if audited.verdict != "pass" or open_:
        what = listed(open_) or "a core condition is open"
        yield ValidityError(f"{result.name}: audit {audited.verdict}: {what}; every condition must pass, {again}")


def _other_sizes(run: SeedRun) -> Iterator[FairwayError]:
    """An audit names the sizes that it measured; files of other sizes are not those that it was about."""
    assert run.audited is not None
    for name, path in (("artifact_bytes", run.folder.artifact), ("code_bytes", run.folder.code)):
        found = run.audited.sizes.get(name)
        if found is not None and path.exists() and found != path.stat().st_size:
            yield ValidityError(
                f"{run.result.name}/audit.json is about {name} {found}, {path.name} now has {path.stat().st_size}; "
                f"run: fairway audit {run.result.name}"
            )


def _repeated(runs: Sequence[SeedRun]) -> Iterator[FairwayError]:
    for seed, count in Counter(run.stated.seed for run in runs).items():
        if count > 1:
            names = ", ".join(run.result.name for run in runs if run.stated.seed == seed)
            yield ValidityError(
                f"seed {seed} is given {count} times ({names}); every run needs a seed of its own, leave one out"
            )
    yield from caught(refuse_repeated_runs, [run.result for run in runs])


def _mixed(first: SeedRun, other: SeedRun) -> Iterator[FairwayError]:
    """Everything but the seed must be the same: settings, code, data, tokenizer, environment."""
    yield from caught(refuse_mixed_side, [first.result, other.result])
    names = f"{first.result.name} and {other.result.name}"
    remedy = "make the runs again with one release, one data folder and one machine"
    code, their = (run.digests.get(run.folder.code.name) for run in (first, other))
    if code and their and code != their:
        yield ValidityError(f"{names} were made by different code, SHA-256 {code[:16]}... and {their[:16]}...; {remedy}")
    pairs = [
        ("data", first.result.data_fingerprint, other.result.data_fingerprint),
        *((name, first.environment.get(name), other.environment.get(name)) for name in ("versions", "device_name", "ranks")),
        *((name, first.header.get(name), other.header.get(name)) for name in sorted({*first.header, *other.header})),
    ]
    told = {"model", "quant", "score", "recipe", "byte_cap"} if differing_settings(first.result, other.result) else set()
    for name, one, two in pairs:
        if one != two and name not in NOT_COMPARED and name not in told and None not in (one, two):
            yield ValidityError(f"{names} differ in {name}: {_short(one)} and {_short(two)}; {remedy}")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def caught(refuse: Callable[..., None], *arguments: object) -> Iterator[FairwayError]:
    """The error that a check raises, if it raises one."""
    try:
        refuse(*arguments)
    except FairwayError as error:
        yield error


def of_reference(found: Comparison, runs: Sequence[SeedRun]) -> Iterator[FairwayError]:
    """What is wrong with the runs to beat, and whether they are beaten."""
    side = found.reference
    for result in side.results:
        if result.mode not in (None, "strict"):
            yield ValidityError(
                f"the reference {result.name} was scored in mode {result.mode}; score it again with --score.mode strict"
            )
    record = side.results[0].record
    if record is not None and record.document.get("draft"):
        yield ValidityError(f"the reference {record.name} is a draft, not a record; hand it in first, without --draft")
    for sentence in discrepancies(side):
        yield ValidityError(f"the reference: {sentence}; give other runs with --against")
    caps = {result.byte_cap for result in side.results if result.byte_cap is not None}
    ours = max(run.score["byte_cap"] for run in runs)
    if caps and ours > min(caps):
        yield BudgetError(f"the cap is {ours:,} bytes, that of the reference {min(caps):,}; pack under the same cap")
    yield from _significance(found)


def _significance(found: Comparison) -> Iterator[FairwayError]:
    """The last answer is the rule that is asked for: README's with a margin, the leaderboard's without."""
    if not found.answers:
        yield ValidityError(f"significance cannot be shown: {found.conclusions[0]}")
        return
    answer = found.answers[-1]
    if answer.test != "Welch":
        yield ValidityError(
            "the reference is a single run, so how far another seed would move it is unknown and significance cannot be shown; "
            "give at least 2 more seeds of it with --against"
        )
    if answer.accepted:
        return
    test = answer.significance
    spread = float(found.needed.get("deviation_bpb") or math.nan)
    seeds = int(found.needed.get("seeds") or 2)
    gap = gap_needed(spread, seeds, test.margin, answer.level)
    more = seeds_needed(test.gap, spread, test.margin, answer.level)
    enough = f"this gap would need {more:,} seeds on each side" if more else "no number of seeds would do for this gap"
    yield ValidityError(
        f"significance is not there: a gap of {test.gap:+.6f} bpb ({found.gap(Unit.NATS_PER_TOKEN):+.6f} nats per token) does "
        f"not show an improvement of {found.margin} at p < {answer.level:g}: {answer.test}'s t {test.t:.3f}, "
        f"{test.degrees:.2f} degrees, p {test.p:.3g}; {seeds} seeds on each side with this spread need a gap of {gap:.6f} bpb, "
        f"and {enough}"
    )

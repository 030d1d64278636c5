"""``README.md`` of a record: what it is, what it scored, against what, whether it is valid, and how to make it again."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fairway.record.compare import Comparison
from fairway.record.evidence import PROVED, SeedRun
from fairway.record.generations import Change, Generation, Told, base_of, flags, generations
from fairway.record.pooled import LEVEL
from fairway.record.submission import labels, summaries
from fairway.record.units import Unit, per_bpb

PASS_TITLES = {"float": "float bpb", "plain": "quantized bpb", "sliding": "sliding bpb", "adapted": "adapted bpb"}
INTERVAL = f"interval_{100 * LEVEL:.0f}"
"""What the bounds of an interval are called in ``submission.json``."""
DRAFT = "**DRAFT, not a record.**"


def readme(runs: Sequence[SeedRun], found: Comparison | None, document: Mapping[str, Any], files: Mapping[str, str]) -> str:
    """The page, from ``submission.json``, the runs behind it and the names of the folder's files with what each is."""
    parts = [
        *_draft(document),
        f"# {cell(document['name'])}",
        cell(document["blurb"]),
        _headline(runs, document),
        "## Lineage",
        *_lineage(generations(runs[0].recipe)),
        "## Results",
        *_results(runs),
        "## Comparison",
        *(_comparison(found, document["comparison"]) if found else [NO_COMPARISON]),
        "## Validity",
        *_validity(runs, document),
        "## How to make it again",
        *_reproduce(runs, document, found),
        "## Files",
        _table([(f"`{name}`", what) for name, what in files.items()], ("file", "what it is")),
    ]
    return "\n\n".join(parts) + "\n"


NO_COMPARISON = "These runs were compared with nothing, or cannot be compared with what was given, so no improvement is shown."


def cell(value: object) -> str:
    """Text that cannot break a table or begin another line."""
    return " ".join(str(value).replace("|", "\\|").split())


def _table(rows: Sequence[Sequence[object]], header: Sequence[str]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cell(item) for item in line)} |" for line in lines)


def _draft(document: Mapping[str, Any]) -> Iterator[str]:
    if document.get("draft"):
        reasons = document["draft_reasons"]
        yield f"{DRAFT} What stands against it: {len(reasons)} {'reason' if len(reasons) == 1 else 'reasons'}, listed here."
        yield "\n".join(f"- {cell(reason)}" for reason in reasons) or "- Nothing; it was asked for as a draft."


def _headline(runs: Sequence[SeedRun], document: Mapping[str, Any]) -> str:
    bpb, nats = summaries(runs)
    track = document["track"]
    where = f"Track: {track}." if track else f"Outside the challenge's track: {'; '.join(document['off_track_because'])}."
    spread = f", sample deviation {bpb.deviation:.8f}" if bpb.deviation is not None else ""
    return (
        f"**val_bpb {bpb.mean:.8f}** bits per byte ({nats.mean:.8f} nats per token), mean of {_count(bpb.count, 'seed')}"
        f"{spread}; at most {document['bytes_total']:,} of {document['byte_cap']:,} bytes. Pass `{document['pass']}`, "
        f"mode `{document['mode']}`. {cell(where)}"
    )


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _lineage(ancestors: Sequence[Generation]) -> Iterator[str]:
    line = " → ".join(cell(item.name) for item in ancestors)
    yield f"Oldest first; each is its parent with what stands under it: {line}. The whole recipe is in `record.json`."
    for item in ancestors:
        origin = f"from {item.parent}" if item.parent else "the root"
        head = f"**{cell(item.name)}**, {origin}: {cell(item.summary)}."
        lines = [f"- {_told(told)}" for told in item.techniques]
        if item.settings:
            lines.append(f"- settings: {_changes(item.settings)}")
        yield "\n\n".join([head, *(["\n".join(lines)] if lines else [])])


def _told(told: Told) -> str:
    """What a technique is, what it is for, where it comes from, and what it changed."""
    technique = told.technique
    text = f"{cell(technique.title)}: {cell(technique.why)} ({cell(technique.source)})"
    return f"{text}: {_changes(told.changes)}" if told.changes else f"{text}: no setting of this recipe differs by it"


def _changes(changes: Sequence[Change]) -> str:
    return ", ".join(f"`{item.path}` {_value(item.was)} → {_value(item.now)}" for item in changes)


def _value(value: object) -> str:
    if isinstance(value, tuple):
        return "(" + ", ".join(map(str, value)) + ")"
    return ("on" if value else "off") if isinstance(value, bool) else str(value) or "empty"


def _results(runs: Sequence[SeedRun]) -> Iterator[str]:
    passes = [name for name in runs[0].score["passes"] if all(name in run.score["passes"] for run in runs)]
    header = ("seed", "steps", "training s", *(PASS_TITLES.get(name, f"{name} bpb") for name in passes), "nats/token")
    header += ("artifact bytes", "code bytes", "total bytes", "headroom", "evaluation s")
    rows = []
    for name, run in zip(labels(runs), runs, strict=True):
        score, stated = run.score, run.stated
        rows.append(
            (
                name, "not logged" if stated.steps is None else f"{stated.steps:,}", f"{stated.train_seconds:.1f}",
                *(f"{score['passes'][item]['bits_per_byte']:.8f}" for item in passes), f"{score['nats_per_token']:.8f}",
                f"{score['artifact_bytes']:,}", f"{score['code_bytes']:,}", f"{score['total_bytes']:,}",
                f"{score['byte_cap'] - score['total_bytes']:,}", f"{stated.eval_seconds:.1f}",
            )
        )  # fmt: skip
    yield _table(rows, header)
    bpb, nats = summaries(runs)
    rows = [
        (
            item.unit.label,
            f"{item.mean:.8f}",
            "unknown: one seed" if item.deviation is None else f"{item.deviation:.8f}",
            item.count,
        )
        for item in (bpb, nats)
    ]
    yield _table(rows, ("unit", "mean", "deviation (ddof 1)", "seeds"))
    text, name = runs[0].result.text, runs[0].result.pass_name
    yield (
        f"The result is the pass `{name}`. {text}: 1 bpb is {per_bpb(Unit.NATS_PER_TOKEN, text):.6f} nats per token. Training "
        "seconds count calibration, which reads training text; evaluation seconds are those of the pass that gives the result, "
        f"loading and hint tables included. {_limits(runs[0])}"
    )


def _limits(run: SeedRun) -> str:
    """The caps that the recipe sets, or what its clock counts instead of seconds."""
    training, scoring = run.caps
    if math.isfinite(training):
        return f"Limits: {run.score['byte_cap']:,} bytes, {training:g} s of training, {scoring:g} s of evaluation."
    train = run.recipe.train
    return (
        f"Limits: {run.score['byte_cap']:,} bytes, {train.budget:,g} {train.budget_unit} of training; seconds are not limited."
    )


def _comparison(found: Comparison, document: Mapping[str, Any]) -> Iterator[str]:
    new, reference = (side.summary(Unit.BPB) for side in (found.new, found.reference))
    values = ", ".join(f"{result.stated.seed}: {result.bits_per_byte:.8f}" for result in found.reference.results)
    yield f"Against {cell(document['reference'])}, {_count(reference.count, 'seed')}: {values} bpb."
    yield _table(
        [
            (
                unit.label,
                *(f"{side.summary(unit).mean:.8f}" for side in (found.new, found.reference)),
                f"{found.gap(unit):+.8f}",
                f"{found.margin.in_unit(unit, found.text, found.text):.8f}",
            )
            for unit in (Unit.BPB, Unit.NATS_PER_TOKEN)
        ],
        ("unit", "these seeds", "reference", "gap (positive is better)", "margin to show"),
    )
    if document["tests"]:
        header = ("test", "question", "margin", "t", "degrees", "p", "answer")
        yield _table([_test(test) for test in document["tests"]], header)
        yield _bounds(document["tests"][-1])
    yield _how_compared(found, new.count, reference.count)
    yield "\n".join(f"- {cell(sentence)}" for sentence in found.conclusions)


def _test(test: Mapping[str, Any]) -> tuple[str, ...]:
    answer = f"{'yes' if test['accepted'] else 'no'}, p {'<' if test['accepted'] else '≥'} {test['level']:g}"
    figures = f"{test['t']:.4f}", f"{test['df']:.3f}", f"{test['p']:.3g}"
    return test["test"], test["question"], _both_units(test, "margin", ""), *figures, answer


def _bounds(test: Mapping[str, Any]) -> str:
    """Two-sided interval of the gap, and the one-sided bound that the rule asks about."""
    low, high, least = (_both_units(test, name, "+") for name in (f"{INTERVAL}_low", f"{INTERVAL}_high", "least_gap"))
    return (
        f"The gap lies between {low} and {high} at {LEVEL:.0%} (two-sided), and above {least} at {1 - test['level']:.0%} "
        "(one-sided); a rule is met where that last bound is above its margin."
    )


def _both_units(test: Mapping[str, Any], name: str, sign: str) -> str:
    return f"{test['bpb'][name]:{sign}.6f} bpb = {test['nats_per_token'][name]:{sign}.6f} nats/token"


def _how_compared(found: Comparison, new: int, reference: int) -> str:
    kind = found.answers[-1].test if found.answers else ""
    seeds = {
        "Welch": (
            f"The test is unpaired: Welch's, one-sided, over the spread of {new} and {reference} trainings, with sample "
            "deviations (ddof 1). Equal seeds on both sides are no pairs, for another method makes something else of a seed."
        ),
        "one-sample": f"The test takes the reference for an exact number and uses the spread of {new} trainings alone.",
        "": "No test over seeds was possible.",
    }[kind]
    pair = found.paired
    if pair is None:
        return seeds
    return (
        f"{seeds} Beside it stands the difference paired over {pair.documents} documents: {pair.difference:+.8f} bpb, standard "
        f"error {pair.standard_error:.8f}, better on {pair.better}. It is about these packed models on text like this one, "
        "says nothing about other seeds, and decides nothing here."
    )


def _validity(runs: Sequence[SeedRun], document: Mapping[str, Any]) -> Iterator[str]:
    names = labels(runs)
    conditions = list(dict.fromkeys(name for run in runs if run.audited for name in run.audited.conditions))
    rows = [
        (
            condition,
            *(run.audited.conditions.get(condition, ("not examined", ""))[0] if run.audited else "no audit" for run in runs),
        )
        for condition in conditions
    ]
    rows.append(("audit as a whole", *(run.audited.verdict if run.audited else "no audit" for run in runs)))
    yield _table(rows, ("condition", *(f"seed {name}" for name in names)))
    open_ = {
        f"- {cell(condition)} {verdict}: {cell(reason)}."
        for run in runs
        if run.audited
        for condition, (verdict, reason) in run.audited.conditions.items()
        if verdict not in ("pass", "not applicable") and reason
    }
    if open_:
        yield "\n".join(sorted(open_))
    yield "\n".join(f"- Seed {name}: {_proved(run)}" for name, run in zip(names, runs, strict=True))
    side = cell("; ".join(document["side_information"])) or "none"
    yield (
        f"Side information that the score uses: {side}. What no test of a scorer sees: text inside the artifact, settings "
        "tuned on the text, and runs that were made and are not listed here."
    )


def _proved(run: SeedRun) -> str:
    if run.proof is None:
        return "not proved by decoding; the audit's test D decodes a short stream of its own."
    pass_name, targets, size, blocks, coded, processes, coded_bpb, scored_bpb = (run.proof[name] for name in PROVED)
    return (
        f"{targets:,} targets ({size:,} bytes of text, pass `{cell(pass_name)}`, revealed in {_count(blocks, 'block')}) came "
        f"back exactly from {coded:,} bytes in {processes} fresh processes; coded {coded_bpb:.6f}, scored {scored_bpb:.6f} bpb."
    )


def _reproduce(runs: Sequence[SeedRun], document: Mapping[str, Any], found: Comparison | None) -> Iterator[str]:
    first, name = runs[0], base_of(runs[0].recipe).name
    folders = [f"runs/{name}-{label}" for label in labels(runs)]
    extra = "".join(f" {word}" for word in flags(first.recipe))
    lines = [
        "pip install -r requirements.txt",
        *(
            f"fairway run {name} --seed {run.stated.seed}{extra} --data DATA --out {folder}"
            for run, folder in zip(runs, folders, strict=True)
        ),
        *(f"fairway audit {folder}" for folder in folders),
        f"fairway record {' '.join(folders)}{' --against REFERENCE' if found else ''} --out RECORD",
    ]
    yield "\n".join(["```bash", *lines, "```"])
    data, libraries = document["data"], {**document["versions"], "fairway": document["fairway"]}
    yield (
        f"`DATA` is a data folder with fingerprint `{data['fingerprint']}`{_split(data)}; `fairway data verify DATA` prints "
        f"it. The runs were made on {cell(document['hardware'])}: "
        + ", ".join(f"{cell(library)} {cell(version)}" for library, version in libraries.items())
        + f"; `{first.code_name}` is the source that was counted. A budget in seconds gives another machine "
        "another number of steps."
    )


def _split(data: Mapping[str, Any]) -> str:
    """Which documents belong to which split, where the data says."""
    if "validation_documents" not in data:
        return ""
    validation, training = (_range(data[f"{split}_documents"]) for split in ("validation", "training"))
    return f", documents {validation} for validation and {training} for training"


def _range(pair: Sequence[int]) -> str:
    return f"{pair[0]:,} to {pair[1] - 1:,}"

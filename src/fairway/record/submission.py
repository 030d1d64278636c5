"""``submission.json``: what a record states about itself, every figure taken from the runs' own files."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from fairway.audit.accounting import KNOWN_TOTALS
from fairway.audit.caps import REFERENCE_COUNT, REFERENCE_DEVICE
from fairway.base.errors import DataError
from fairway.base.values import to_dict
from fairway.record.compare import Comparison
from fairway.record.evidence import SeedRun, pass_figures
from fairway.record.logs import fairway_version, started, versions
from fairway.record.pooled import LEVEL, student_interval
from fairway.record.record_file import FORMAT, VERSION
from fairway.record.statistics import Significance, Summary
from fairway.record.units import Unit, convert, per_bpb

CHALLENGE_BYTES = 16_000_000
CHALLENGE_SECONDS = 600.0
TRACK = "track_10min_16mb"
CONDITION_FLAGS = {
    "causal": "causal",
    "normalised": "normalised",
    "score before update": "score_first_ttt",
    "single pass": "single_pass",
    "bytes": "bytes_of_the_original_text",
}


@dataclass(frozen=True, kw_only=True)
class About:
    """What no file of a run knows."""

    name: str = ""
    """Title; by default the recipe's name."""
    blurb: str = ""
    """One sentence; by default the recipe's summary."""
    author: str = ""
    github_id: str = ""

    def __post_init__(self) -> None:
        for field, value in asdict(self).items():
            if any(ord(letter) < 32 or 0xD800 <= ord(letter) < 0xE000 for letter in value):
                raise DataError(f"{field}={value!r} holds control characters or is no UTF-8; give one line of plain text")


def labels(runs: Sequence[SeedRun]) -> list[str]:
    """A name for every run: its seed, with more where that is not enough to tell runs apart (in drafts alone)."""
    seeds = [run.stated.seed for run in runs]
    found = []
    for index, seed in enumerate(seeds):
        found.append(seed if seeds.count(seed) == 1 else f"{seed}-{index + 1}")
    return found


def title(runs: Sequence[SeedRun], about: About) -> str:
    """The record's name."""
    return about.name or runs[0].recipe.name


def summaries(runs: Sequence[SeedRun]) -> tuple[Summary, Summary]:
    """Mean and deviation (ddof 1) of the runs, in bits per byte and in nats per token."""
    text = runs[0].result.text
    return (
        Summary.of([run.score["bits_per_byte"] for run in runs], Unit.BPB, text),
        Summary.of([run.score["nats_per_token"] for run in runs], Unit.NATS_PER_TOKEN, text),
    )


def submission(
    runs: Sequence[SeedRun], found: Comparison | None, about: About, reasons: Sequence[str], *, draft: bool
) -> dict[str, Any]:
    """The document; ``reasons`` stand in a draft alone.

    Fields and their names are those in use in the challenge's submissions, and deviations are sample deviations.
    """
    bpb, nats = summaries(runs)
    first, names = runs[0], labels(runs)
    track, off_track = track_of(runs)
    return {
        **({"draft": True, "draft_reasons": list(reasons)} if draft else {}),
        **{name: value for name, value in (("author", about.author), ("github_id", about.github_id)) if value},
        "name": title(runs, about),
        "blurb": about.blurb or first.recipe.summary,
        "date": max(started(run) for run in runs)[:10],
        "track": track,
        "off_track_because": off_track,
        "val_bpb": bpb.mean,
        "val_loss": nats.mean,
        "val_bpb_std": bpb.deviation,
        "val_loss_std": nats.deviation,
        "std_ddof": 1,
        "units": {"val_bpb": "bits per byte", "val_loss": "nats per token"},
        "seeds": names,
        "seed_results": {name: seed_result(run) for name, run in zip(names, runs, strict=True)},
        "bytes_total": max(run.score["total_bytes"] for run in runs),
        "bytes_code": max(run.score["code_bytes"] for run in runs),
        "byte_cap": first.score["byte_cap"],
        "all_runs": names,
        "comparison": comparison_document(found) if found else None,
        "data": data_document(first),
        "side_information": list(map(str, first.score.get("side_information", []))),
        "hardware": hardware(first),
        "versions": dict(versions(first)),
        "fairway": fairway_version(first),
        "recipe": first.recipe.name,
        "pass": first.result.pass_name,
        "mode": first.result.mode,
        "partial": first.result.partial,
        "byte_rule": first.result.byte_rule,
        "compliance": compliance(runs),
    }


def seed_result(run: SeedRun) -> dict[str, Any]:
    """Figures of one run, equal to those of its files; milliseconds are the same seconds, rounded."""
    score, stated = run.score, run.stated
    assert stated.train_seconds is not None
    assert stated.eval_seconds is not None
    figures: dict[str, Any] = {
        "val_bpb": score["bits_per_byte"],
        "val_loss": score["nats_per_token"],
        "scored_targets": score["tokens"],
        "scored_bytes": score["bytes"],
        "model_bytes": score["artifact_bytes"],
        "code_bytes": score["code_bytes"],
        "total_bytes": score["total_bytes"],
        "headroom_bytes": score["byte_cap"] - score["total_bytes"],
        "steps": stated.steps,
        "train_seconds": stated.train_seconds,
        "eval_seconds": stated.eval_seconds,
        "train_wallclock_ms": round(1000 * stated.train_seconds),
        "eval_wallclock_ms": round(1000 * stated.eval_seconds),
        "phases_ms": {name: round(1000 * phase["seconds"]) for name, phase in score["clock"].items()},
        "started": started(run),
    }
    for name, part in score["passes"].items():
        if name != run.result.pass_name:
            figures |= pass_figures(name, part["bits_per_byte"], part["nats_per_token"])
    return figures | {f"{word}_sha256": digest for word, digest in digests(run).items()}


def digests(run: SeedRun) -> dict[str, str]:
    """What was run, by SHA-256: artifact, code and ledger."""
    files = {"artifact": run.folder.artifact, "code": run.folder.code, "ledger": run.folder.ledger}
    return {word: run.digests[path.name] for word, path in files.items() if path.name in run.digests}


def track_of(runs: Sequence[SeedRun]) -> tuple[str | None, list[str]]:
    """The challenge's track, where the runs are of its size, hardware and text; else why they are not."""
    run = runs[0]
    device, ranks = str(run.environment.get("device_name", run.environment.get("device"))), run.environment.get("ranks", 1)
    train, cap = run.recipe.train, run.score["byte_cap"]
    why = []
    if REFERENCE_DEVICE not in device or ranks != REFERENCE_COUNT:
        why.append(f"timed on {ranks} x {device}, the track's hardware is {REFERENCE_COUNT} x {REFERENCE_DEVICE}")
    if cap > CHALLENGE_BYTES:
        why.append(f"the cap is {cap:,} bytes, the track's {CHALLENGE_BYTES:,}")
    if train.budget_unit != "seconds" or train.budget > CHALLENGE_SECONDS:
        why.append(f"the budget is {train.budget:g} {train.budget_unit}, the track's {CHALLENGE_SECONDS:g} seconds")
    if run.result.partial:
        why.append("only a leading part of the validation text was scored")
    if KNOWN_TOTALS.get(run.result.text.tokens) != run.result.text.bytes:
        why.append(f"{run.result.text} were scored, which is no published export of the challenge's validation split")
    return (None if why else TRACK), why


def compliance(runs: Sequence[SeedRun]) -> dict[str, bool]:
    """What can be told from the files; a condition is true where every run's audit passed it."""
    audits = [run.audited for run in runs]
    conditions = {
        flag: all(audited is not None and audited.conditions.get(name, ("",))[0] == "pass" for audited in audits)
        for name, flag in CONDITION_FLAGS.items()
    }
    return {
        "artifact_under_16mb": all(run.score["total_bytes"] <= CHALLENGE_BYTES for run in runs),
        "under_byte_cap": all(run.score["total_bytes"] <= run.score["byte_cap"] for run in runs),
        "train_under_600s": all((run.stated.train_seconds or 0.0) <= CHALLENGE_SECONDS for run in runs),
        "eval_under_600s": all((run.stated.eval_seconds or 0.0) <= CHALLENGE_SECONDS for run in runs),
        "three_seeds": len({run.stated.seed for run in runs}) >= 3,
        "strict_order": all(run.result.mode == "strict" for run in runs),
        "full_validation_targets": not any(run.result.partial for run in runs),
        "proved_by_decoding": all(run.proved for run in runs),
        **conditions,
    }


def hardware(run: SeedRun) -> str:
    """Device and number of ranks, as the run recorded them."""
    device = run.environment.get("device_name", run.environment.get("device", "unknown hardware"))
    cpus = run.environment.get("host_cpus")
    host = f" with {cpus} cores" if cpus and device == "cpu" else ""
    return f"{run.environment.get('ranks', 1)} x {device}{host}"


def data_document(run: SeedRun) -> dict[str, Any]:
    """Which data, by digests and document numbers; never the data, nor where it lies."""
    costs = run.result.costs if run.measured is not None else None
    found: dict[str, Any] = {
        "fingerprint": run.result.data_fingerprint,
        "scored_tokens": run.score["tokens"],
        "scored_bytes": run.score["bytes"],
        "scored_documents": len(costs.starts) if costs else None,
        "text_sha256": costs.text if costs else None,
        "tokenizer_sha256": run.header.get("tokenizer_sha256"),
    }
    if run.manifest is not None:
        val, train = run.manifest.val, run.manifest.train
        found |= {
            "validation_shards_sha256": [shard.sha256 for shard in run.manifest.val_shards],
            "validation_documents": [val.first_document, val.end_document],
            "training_documents": [train.first_document, train.end_document],
            "text_transform": run.manifest.text_transform,
        }
    return {name: value for name, value in found.items() if value is not None}


def gap_interval(test: Significance) -> tuple[float, float]:
    """Two-sided interval of the true gap at ``pooled.LEVEL``, in the unit of ``test``."""
    interval = student_interval(test.gap, test.error, test.degrees)
    return interval.low, interval.high


def comparison_document(found: Comparison) -> dict[str, Any]:
    """The comparison with its units; ``least_gap`` is the one-sided bound that the rule's level asks about."""
    reference, text = found.reference, found.text
    document: dict[str, Any] = {
        "reference": reference.results[0].recipe_name,
        "reference_seeds": {result.stated.seed: result.bits_per_byte for result in reference.results},
        "reference_val_bpb": reference.summary(Unit.BPB).mean,
        "reference_val_bpb_std": reference.summary(Unit.BPB).deviation,
        "gap": {unit.value: found.gap(unit) for unit in (Unit.BPB, Unit.NATS_PER_TOKEN, Unit.NATS_PER_BYTE)},
        "margin": {"value": found.margin.value, "unit": found.margin.unit.value},
        "nats_per_token_per_bpb": per_bpb(Unit.NATS_PER_TOKEN, text),
        "tests": [],
    }
    for answer in found.answers:
        test = answer.significance
        low, high = gap_interval(test)
        figures = {
            "gap": test.gap, "margin": test.margin, "error": test.error, "least_gap": test.least(answer.level),
            f"interval_{100 * LEVEL:.0f}_low": low, f"interval_{100 * LEVEL:.0f}_high": high,
        }  # fmt: skip
        document["tests"].append(
            {
                "test": answer.test, "sides": "unpaired, one-sided", "question": answer.rule, "t": test.t, "df": test.degrees,
                "p": test.p, "level": answer.level, "accepted": answer.accepted, "bpb": figures,
                "nats_per_token": {
                    name: convert(value, Unit.BPB, Unit.NATS_PER_TOKEN, text) for name, value in figures.items()
                },
            }
        )  # fmt: skip
    if found.paired is not None:
        pair = {name: value if math.isfinite(value) else None for name, value in asdict(found.paired).items()}
        document["paired_over_documents"] = {"unit": Unit.BPB.value, **pair}
    return document


def missing_author(about: About) -> list[DataError]:
    """The fields that every submission has and that no file knows."""
    needed = (("author", about.author, "--author NAME"), ("github_id", about.github_id, "--github-id ID"))
    return [
        DataError(f"submission.json needs {field}, which no file of a run knows and which is empty; give {flag}")
        for field, value, flag in needed
        if not value.strip()
    ]


def record_document(
    runs: Sequence[SeedRun], document: Mapping[str, Any], costs: Mapping[str, tuple[str, str]]
) -> dict[str, Any]:
    """``record.json``: see ``record_file``.

    Args:
        runs: The runs.
        document: ``submission.json``.
        costs: Run's label -> name and SHA-256 of its file of costs by document.
    """
    first = runs[0]
    shared = (
        "draft", "draft_reasons", "name", "date", "val_bpb", "val_loss", "val_bpb_std", "val_loss_std", "std_ddof",
        "bytes_total", "byte_cap", "comparison", "data", "pass", "mode", "partial", "byte_rule",
    )  # fmt: skip
    seeds = {}
    for name, run in zip(labels(runs), runs, strict=True):
        seeds[name] = {**document["seed_results"][name], "nats": run.score["nats"], "configuration": run.result.configuration}
        if name in costs:
            seeds[name] |= {"costs": costs[name][0], "costs_sha256": costs[name][1]}
    return {
        "format": FORMAT,
        "version": VERSION,
        **{name: document[name] for name in shared if name in document},
        "tokens": first.score["tokens"],
        "bytes": first.score["bytes"],
        "data_fingerprint": first.result.data_fingerprint,
        "recipe_name": first.recipe.name,
        "recipe": to_dict(first.recipe),
        "seeds": seeds,
    }

"""An ablation as one JSON document, every figure in it unrounded."""

from typing import Any

from fairway.record.ablation import Ablation, Difference, Gain, GroupRuns
from fairway.record.ablation_plan import technique_document
from fairway.record.pooled import LEVEL


def ablation_document(found: Ablation) -> dict[str, Any]:
    """What ``fairway compare --json`` prints: groups, pooled deviations, and every difference with its interval."""
    whole = found.whole_ladder
    return {
        "seeds": list(found.plan.seeds),
        "data_fingerprint": found.plan.data_fingerprint,
        "level": LEVEL,
        "unit": "bits per byte; a positive gain is better",
        "missing_runs": list(found.missing),
        "sources": found.sources,
        "groups": [_group(group) for group in found.groups.values()],
        "pooled_deviation": {
            name: {"deviation": spread.deviation, "degrees": spread.degrees} if spread else None
            for name, spread in found.spreads.items()
        },
        "systems": [_difference(item) for item in found.systems],
        "ladder": [_difference(item) for item in found.ladder],
        "whole_ladder": _difference(whole) if whole else None,
    }


def _group(item: GroupRuns) -> dict[str, Any]:
    return {
        "name": item.group.name,
        "trained_by": item.group.trainer,
        "seeds": list(item.runs),
        "passes": {
            name: {"mean": item.mean(name), "deviation": item.deviation(name), "values": item.values(name)}
            for name in item.passes
        },
        "steps": item.steps,
        "artifact_bytes": item.stated("model_bytes"),
        "code_bytes": item.stated("code_bytes"),
        "total_bytes": item.stated("total_bytes"),
        "byte_cap": item.byte_cap,
        "train_seconds": item.stated("train_seconds"),
        "eval_seconds": item.stated("eval_seconds"),
    }


def _difference(item: Difference) -> dict[str, Any]:
    return {
        "new": item.new,
        "old": item.old,
        "technique": technique_document(item.technique),
        "verdict": item.verdict,
        "gains": {name: _gain(value) for name, value in item.gains.items()},
    }


def _gain(item: Gain) -> dict[str, Any]:
    return {
        "gain": item.value,
        "low": item.interval.low if item.interval else None,
        "high": item.interval.high if item.interval else None,
        "standard_error": item.error,
        "degrees": item.degrees,
        "noise": item.noise,
        "verdict": item.verdict or None,
        "paired_low": item.paired.low if item.paired else None,
        "paired_high": item.paired.high if item.paired else None,
        "by_seed": {str(seed): value for seed, value in item.by_seed.items()},
    }

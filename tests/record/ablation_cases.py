"""Folders of ablations with chosen bits per byte, made without training anything."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from fairway.base.values import with_fields
from fairway.config import Recipe
from fairway.recipes import Technique, recipe
from fairway.record.ablation_plan import Group, Plan, Rung, run_folder
from record.record_cases import make_scored_run

PASSES = ("float", "plain", "sliding", "adapted")


def technique(name: str, **changes: object) -> Technique:
    settings = {path.replace("__", "."): value for path, value in changes.items()}
    return Technique(name=name, title=f"the technique {name}", why="to have one", source="PR #1", changes=settings)


STEPS = (
    ("tiny", None),
    ("tiny+gain", technique("gain", model__query_gain=2.0)),
    ("tiny+clip", technique("clip", quant__mlp__clip_sigmas=16.0)),
    ("tiny+decay", technique("decay", optim__matrices__weight_decay=0.2)),
)
"""Each on top of the one before; the clip needs no training of its own."""


def make_plan(seeds: Sequence[int] = (1, 2, 3)) -> Plan:
    """A ladder of four groups, of which the first and the last are systems too."""
    groups: list[Group] = []
    current = recipe("tiny")
    for name, step in STEPS:
        current = replace(with_fields(current, dict(step.changes)) if step else current, name=name)
        groups.append(Group(current, groups[-1].trainer if name == "tiny+clip" else name))
    rungs = tuple(Rung(name, step) for name, step in STEPS)
    return Plan(tuple(groups), ("tiny", "tiny+decay"), rungs, tuple(seeds), "0" * 16)


def make_ablation(
    root: Path, shifts: Mapping[str, Sequence[float]], *, seeds: Sequence[int] = (1, 2, 3), documents: int = 40
) -> Path:
    """Write the plan and one scored run per shift, in bits per byte: ``shifts[group][i]`` is of the i-th seed."""
    plan = make_plan(seeds)
    root.mkdir()
    (root / "ablation.json").write_text(json.dumps(plan.to_dict()))
    for group in plan.groups:
        for seed, shift in zip(plan.seeds, shifts.get(group.name, ()), strict=False):
            make_member(root, group, seed, shift, documents)
    return root


def make_member(root: Path, group: Group, seed: int, shift: float, documents: int = 40) -> Path:
    folder = make_scored_run(
        run_folder(root, group.name, seed),
        seed=seed,
        shift=shift,
        documents=documents,
        passes=PASSES,
        changes=_changes(group.recipe),
    )
    # The helper's recipe is called tiny; an ablation's run has the name of its group.
    content = json.loads((folder / "recipe.json").read_text())
    (folder / "recipe.json").write_text(json.dumps({**content, "name": group.name, "summary": group.recipe.summary}))
    events = [{"event": "train", "step": 4}, {"event": "stop", "reason": "budget", "step": 100 + seed, "seconds": 9.0}]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    if group.trainer != group.name:
        (folder / "trained_by.json").write_text(json.dumps({"run": f"{group.trainer}-{seed}"}))
    return folder


def _changes(wanted: Recipe) -> dict[str, object]:
    return {
        "model.query_gain": wanted.model.query_gain,
        "quant.mlp.clip_sigmas": wanted.quant.mlp.clip_sigmas,
        "optim.matrices.weight_decay": wanted.optim.matrices.weight_decay,
    }


def bits(folder: Path, name: str) -> float:
    """Bits per byte as ``score.json`` states them."""
    return json.loads((folder / "score.json").read_text())["passes"][name]["bits_per_byte"]

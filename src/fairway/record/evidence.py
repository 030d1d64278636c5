"""Everything that one finished run says about itself, from its own files; what is missing or damaged is listed, not hidden."""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from fairway.artifact.bundle import MAGIC
from fairway.artifact.container import read_layout
from fairway.audit.caps import REFERENCE_COUNT, REFERENCE_DEVICE, SCORING_SECONDS, wall_clock
from fairway.base.errors import DataError, FairwayError
from fairway.base.fields import Fields, objects
from fairway.base.files import read_json, sha256_file
from fairway.base.runs import RunFolder
from fairway.config import Recipe
from fairway.data.manifest import Manifest, read_manifest
from fairway.record.figures import SeedFigures
from fairway.record.paired import read_costs
from fairway.record.results import Result, read_run

V = TypeVar("V")

MADE_BY = {
    "environment": "fairway run",
    "metrics": "fairway train",
    "clock": "fairway train",
    "artifact": "fairway pack",
    "code": "fairway pack",
    "ledger": "fairway score",
    "audit": "fairway audit",
}
"""Files of a run folder without which it cannot be handed in, besides recipe and score, and the command that makes each."""
SCRIPT = "train_gpt.py"
"""The code of a submission that the track's rules ask for."""
PASS_WORDS = {"float": "prequant", "plain": "quantized"}
"""Pass -> word that its figures bear in published submissions; other passes bear their own name."""
PROVED = (
    "pass_name", "targets", "text_bytes", "blocks", "coded_bytes", "decoded_exactly", "coded_bits_per_byte",
    "scored_bits_per_byte",
)  # fmt: skip
"""Figures of ``proof.json`` that are told."""


@dataclass(frozen=True, kw_only=True)
class Audited:
    """What ``audit.json`` says: of which pass, and what of each condition."""

    pass_name: str
    verdict: str
    conditions: Mapping[str, tuple[str, str]]
    """Condition -> verdict and reason."""
    sizes: Mapping[str, Any]
    """Bytes that its test Z measured, where it says."""
    document: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class SeedRun:
    """One run that is handed in."""

    result: Result
    folder: RunFolder
    recipe: Recipe
    score: Mapping[str, Any]
    """Content of ``score.json``."""
    stated: SeedFigures
    """Figures of ``score.json``, seconds and steps included."""
    measured: SeedFigures | None
    """The same from ledger and files; None where these cannot be read."""
    environment: Mapping[str, Any]
    events: tuple[Mapping[str, Any], ...]
    """Lines of ``metrics.jsonl``."""
    clock: Mapping[str, Any]
    """Content of ``clock.json``, written before the run was scored."""
    header: Mapping[str, Any]
    """Header of the artifact."""
    audited: Audited | None
    proof: Mapping[str, Any] | None
    manifest: Manifest | None
    """Of the data folder, where that is still at hand and still the one that was scored."""
    archived: bool
    """Whether the code is an archive of sources, not a script that runs by itself."""
    digests: Mapping[str, str]
    """Name of a file -> SHA-256."""
    problems: tuple[FairwayError, ...]
    """What is missing or damaged."""

    @property
    def caps(self) -> tuple[float, float]:
        """Seconds of training and of scoring that are allowed; infinite where the recipe counts no seconds."""
        train = self.recipe.train
        return (train.budget, SCORING_SECONDS) if train.budget_unit == "seconds" else (math.inf, math.inf)

    @property
    def code_name(self) -> str:
        """What the code is called in a record: an archive keeps its name, a script bears that of the track's rules."""
        return self.folder.code.name if self.archived else SCRIPT

    @property
    def proved(self) -> bool:
        """Whether the pass that gives the result was proved by decoding."""
        proof = self.proof
        return proof is not None and proof["pass_name"] == self.result.pass_name and proof["decoded_exactly"] > 0

    @property
    def stop(self) -> Mapping[str, Any] | None:
        """The event that ended training."""
        return next((event for event in reversed(self.events) if event.get("event") == "stop"), None)


def read_seed(root: Path) -> SeedRun:
    """Read one run folder.

    Raises:
        DataError: there is no run, no score, or a recipe of another release; everything else is listed in ``problems``.
    """
    result = read_run(root)
    folder, recipe = result.folder, result.recipe
    assert folder is not None
    assert recipe is not None
    problems: list[FairwayError] = [
        DataError(f"{root} has no {path.name}, so the run is incomplete; make it with {command} {root}")
        for path, command in ((getattr(folder, name), command) for name, command in MADE_BY.items())
        if not path.exists()
    ]
    if folder.state.exists():
        problems.append(DataError(f"{root} still holds a training state, so training has not ended; finish it with --resume"))

    def read(path: Path, reader: Callable[[Path], V], missing: V) -> V:
        """What ``reader`` makes of a file; where that is nothing, why not is a problem."""
        try:
            return reader(path) if path.exists() else missing
        except FairwayError as error:
            problems.append(error)
            return missing

    score = _score(folder.score)
    events = read(folder.metrics, read_events, ())
    environment = read(folder.environment, lambda path: Fields(read_json(path), str(path)).content, {})
    stated = _seconds_and_steps(result.stated, score["clock"], events)
    measured = read(folder.score, lambda path: _measured(result, score["passes"]), None)
    return SeedRun(
        result=result,
        folder=folder,
        recipe=recipe,
        score=score,
        stated=stated,
        measured=None if measured is None else _seconds_and_steps(measured, score["clock"], events),
        environment=environment,
        events=events,
        clock=read(folder.clock, lambda path: Fields(read_json(path), str(path)).content, {}),
        header=read(folder.artifact, lambda path: read_layout(path).header, {}),
        audited=read(folder.audit, read_audited, None),
        proof=read(folder.proof, _proof, None),
        manifest=_manifest(environment, result.data_fingerprint),
        archived=not folder.code.exists() or _begins(folder.code, MAGIC),
        digests={
            path.name: sha256_file(path)
            for path in (folder.artifact, folder.code, folder.ledger, folder.weights, folder.score)
            if path.exists()
        },
        problems=tuple(problems),
    )


def _begins(path: Path, magic: bytes) -> bool:
    with path.open("rb") as file:
        return file.read(len(magic)) == magic


def _score(path: Path) -> Mapping[str, Any]:
    """Content of ``score.json``, with every figure that is told of it."""
    content = Fields(read_json(path), str(path))
    for part in (content, *(part for _, part in content.named_parts("passes"))):
        for name in ("bits_per_byte", "nats_per_token", "nats"):
            part.number(name, least=0.0)
        for name in ("tokens", "bytes"):
            part.whole(name, least=1)
    return content.content


def read_events(path: Path) -> tuple[Mapping[str, Any], ...]:
    """Lines of ``metrics.jsonl``.

    Raises:
        DataError: a line is no JSON object with an event.
    """
    events = []
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        where = f"{path} line {number}"
        try:
            content = Fields(json.loads(line), where)
        except ValueError as error:
            if isinstance(error, FairwayError):
                raise
            raise DataError(f"{where} is not valid JSON ({error}); restore the file or make the run again") from None
        content.text("event")
        events.append(content.content)
    return tuple(events)


def read_audited(path: Path) -> Audited:
    """The verdicts of ``audit.json``.

    Raises:
        DataError: the file is malformed.
    """
    content = Fields(read_json(path), str(path))
    conditions = {
        item.text("condition"): (item.text("verdict"), str(item.content.get("reason", "")))
        for item in objects(content.content.get("conditions"), f"{path}: field 'conditions'")
    }
    findings = list(objects(content.content.get("findings"), f"{path}: field 'findings'"))
    sizes = next((item.content.get("details") for item in findings if item.text("test") == "Z"), None)
    return Audited(
        pass_name=content.text("scorer").rpartition(" ")[2],
        verdict=content.text("verdict"),
        conditions=conditions,
        sizes=sizes if isinstance(sizes, dict) else {},
        document=content.content,
    )


def pass_figures(name: str, bits_per_byte: float, nats_per_token: float) -> dict[str, float]:
    """Figures of a pass that is not the result, under the names that published submissions use."""
    word = PASS_WORDS.get(name, name)
    return {f"{word}_bpb": bits_per_byte, f"{word}_loss": nats_per_token}


def _measured(result: Result, passes: Mapping[str, Any]) -> SeedFigures:
    """Figures from ledger and files, those of the earlier passes included."""
    figures, folder = result.measured(), result.folder
    assert folder is not None
    further = {}
    for name in passes if folder.ledger.exists() else ():
        if name != result.pass_name:
            costs = read_costs(folder.ledger, name)
            further |= pass_figures(name, costs.bits_per_byte, float(costs.nats.sum()) / costs.tokens)
    return replace(figures, further=further)


def _proof(path: Path) -> Mapping[str, Any]:
    content = Fields(read_json(path), str(path))
    content.text("pass_name")
    for name in PROVED[1:]:
        content.number(name, least=0.0)
    return content.content


def _seconds_and_steps(figures: SeedFigures, clock: Mapping[str, Any], events: tuple[Mapping[str, Any], ...]) -> SeedFigures:
    """Seconds as the audit counts them: calibration and hint tables belong to their budget whatever their own flag says."""
    used = wall_clock(clock, REFERENCE_DEVICE, REFERENCE_COUNT).details["used"]
    step = next((event.get("step") for event in reversed(events) if event["event"] == "stop"), None)
    return replace(
        figures,
        train_seconds=used["training"],
        eval_seconds=used["scoring"],
        steps=step if isinstance(step, int) else None,
    )


def _manifest(environment: Mapping[str, Any], fingerprint: str | None) -> Manifest | None:
    """The manifest of the data, where it is still there; a published export has none of this form."""
    try:
        manifest = read_manifest(Path(str(environment.get("data", ""))))
    except DataError:
        return None
    return manifest if manifest.fingerprint == fingerprint else None

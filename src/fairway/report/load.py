"""From a run folder to ``RunData``: every file optional except ``recipe.json``, every present file read strictly."""

import json
import math
import typing
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from fairway.audit.finding import Verdict
from fairway.base.errors import DataError, RecipeError
from fairway.base.fields import REMEDY, Fields, objects
from fairway.base.files import read_json
from fairway.base.values import from_dict
from fairway.config import PassName, Recipe, ScoreConfig
from fairway.report.records import (
    AuditRecord,
    ConditionRecord,
    FindingRecord,
    Ledger,
    Metrics,
    PassScore,
    Phase,
    ProofRecord,
    RunData,
    Sample,
    Score,
    Stop,
    TensorRecord,
    TrainCurve,
    ValidationCurve,
)

PASS_NAMES: tuple[str, ...] = typing.get_args(PassName)
"""Names of passes in the order in which they improve."""

MADE_BY = {
    "environment.json": "Versions and hardware are unknown: environment.json is missing; fairway run writes it.",
    "metrics.jsonl": "Training curves are missing: no metrics.jsonl; fairway train writes it.",
    "tensors.json": "Tensor figures are missing: no tensors.json; fairway pack writes it.",
    "score.json": "There is no score yet: no score.json; fairway score writes it.",
    "ledger.npz": "Costs per target are missing: no ledger.npz; fairway score writes it.",
    "proof.json": "The score is not proved: no proof.json; fairway prove writes it.",
    "audit.json": "The score is not audited: no audit.json; fairway audit writes it.",
    "samples.json": "There is no sample text: no samples.json; fairway run writes it.",
}
LARGEST_BITS_PER_WEIGHT = 64.0
VERDICTS: tuple[str, ...] = typing.get_args(Verdict)


def load_run(run: Path) -> RunData:
    """Read all files of a run folder that the report shows.

    Raises:
        DataError: the folder or ``recipe.json`` does not exist, or a file is malformed; the message names file and field.
    """
    run = Path(run)
    if not run.is_dir():
        raise DataError(f"{run} is not a folder; name the folder that fairway run wrote with --out")
    recipe = _recipe(run / "recipe.json")
    present = {name for name in MADE_BY if (run / name).exists()}
    metrics, warnings = _metrics(run / "metrics.jsonl") if "metrics.jsonl" in present else (None, [])
    score = _score(run / "score.json") if "score.json" in present else None
    ledger = _ledger(run / "ledger.npz") if "ledger.npz" in present else None
    if score is not None and ledger is not None:
        warnings += _contradictions(score, ledger)
    audit = read_audit(run / "audit.json") if "audit.json" in present else None
    if score is not None and audit is not None:
        warnings += _other_pass(score, audit)
    return RunData(
        path=run,
        recipe=recipe,
        environment=_environment(run / "environment.json") if "environment.json" in present else None,
        metrics=metrics,
        score=score,
        ledger=ledger,
        tensors=_tensors(run / "tensors.json") if "tensors.json" in present else None,
        samples=_samples(run / "samples.json") if "samples.json" in present else None,
        proof=read_proof(run / "proof.json") if "proof.json" in present else None,
        audit=audit,
        missing=tuple(sentence for name, sentence in MADE_BY.items() if name not in present),
        warnings=tuple(warnings),
    )


def _recipe(path: Path) -> Recipe:
    try:
        return from_dict(Recipe, read_json(path))
    except RecipeError as error:
        raise DataError(f"{path}: {error}; {REMEDY}") from None


def _environment(path: Path) -> dict[str, object]:
    content = Fields(read_json(path), str(path))
    if "versions" in content.content:
        content.part("versions")
    return dict(content.content)


def _events(path: Path) -> tuple[list[Fields], list[str]]:
    """All events, and a warning when a killed process left half a line at the end."""
    events: list[Fields] = []
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{path} line {number}"
        try:
            content = json.loads(line)
        except ValueError as error:
            if number == len(lines):
                return events, ["The last line of metrics.jsonl is incomplete and was left out: the run was interrupted there."]
            raise DataError(f"{where} is not valid JSON ({error}); {REMEDY}") from None
        events.append(Fields(content, where))
    return events, []


def _metrics(path: Path) -> tuple[Metrics, list[str]]:
    events, warnings = _events(path)
    kinds: dict[str, list[Fields]] = {"start": [], "train": [], "validation": [], "stop": [], "phase": []}
    for event in events:
        kind = event.text("event")
        if kind in kinds:
            kinds[kind].append(event)
    train = _train_curve(kinds["train"])
    diverged = np.flatnonzero(~np.isfinite(train.loss))
    if len(diverged):
        warnings.append(f"The training loss is not a finite number from step {train.step[diverged[0]]} on.")
    start = kinds["start"][0] if kinds["start"] else None
    stop = kinds["stop"][-1] if kinds["stop"] else None
    metrics = Metrics(
        train=train,
        validation=_validation_curve(kinds["validation"]),
        phases=_merged(kinds["phase"]),
        parameters=start.whole("parameters") if start else None,
        seed=start.whole("seed") if start else None,
        stop=_stop(stop) if stop else None,
    )
    return metrics, warnings


def _stop(event: Fields) -> Stop:
    peak = event.optional("peak_memory_bytes", least=0.0)
    return Stop(event.text("reason"), event.whole("step"), event.number("seconds", least=0.0), int(peak or 0))


def _rising(steps: list[int], events: list[Fields]) -> np.ndarray:
    for before, after, event in zip(steps, steps[1:], events[1:], strict=False):
        if after <= before:
            raise event.refuse("step", f"above the step before it, {before}")
    return np.array(steps, dtype=np.int64)


def _train_curve(events: list[Fields]) -> TrainCurve:
    return TrainCurve(
        **_times(events),
        progress=_numbers(events, "progress"),
        loss=_numbers(events, "loss", finite=False),
        learning_rate=_numbers(events, "learning_rate"),
        momentum=_numbers(events, "momentum"),
        gradient_norm=_numbers(events, "gradient_norm", finite=False),
        tokens_per_second=_numbers(events, "tokens_per_second"),
        recurrent=np.array([event.flag("recurrent") for event in events], dtype=np.bool_),
    )


def _validation_curve(events: list[Fields]) -> ValidationCurve:
    return ValidationCurve(
        **_times(events),
        nats_per_token=_numbers(events, "nats_per_token", finite=False),
        bits_per_byte=_numbers(events, "bits_per_byte", finite=False),
    )


def _times(events: list[Fields]) -> dict[str, np.ndarray]:
    """What every curve is drawn over."""
    return {
        "step": _rising([event.whole("step") for event in events], events),
        "tokens": np.array([event.whole("tokens") for event in events], dtype=np.int64),
        "seconds": _numbers(events, "seconds"),
    }


def _numbers(events: list[Fields], name: str, *, finite: bool = True) -> np.ndarray:
    return np.array([event.number(name, finite=finite) for event in events], dtype=np.float64)


def _merged(events: list[Fields]) -> tuple[Phase, ...]:
    phases: dict[str, Phase] = {}
    for event in events:
        name, seconds, counted = event.text("name"), event.number("seconds", least=0.0), event.flag("counted")
        earlier = phases[name].seconds if name in phases else 0.0
        phases[name] = Phase(name, earlier + seconds, counted)
    return tuple(phases.values())


def _score(path: Path) -> Score:
    content = Fields(read_json(path), str(path))
    passes = {name: _pass(name, part) for name, part in content.named_parts("passes")}
    for name in passes:
        if name not in PASS_NAMES:
            raise content.refuse("passes", f"made of {', '.join(PASS_NAMES)}, not {name!r}")
    result = content.text("pass")
    if result not in passes:
        raise content.refuse("pass", f"one of the passes, {', '.join(passes) or 'of which there is none'}")
    score = Score(
        bits_per_byte=content.number("bits_per_byte", least=0.0),
        nats_per_token=content.number("nats_per_token", least=0.0),
        tokens=content.whole("tokens", least=1),
        bytes=content.whole("bytes", least=1),
        nats=content.number("nats", least=0.0),
        mode=content.text("mode"),
        predictor=content.text("predictor"),
        artifact_bytes=content.whole("artifact_bytes"),
        code_bytes=content.whole("code_bytes"),
        total_bytes=content.whole("total_bytes"),
        byte_cap=content.whole("byte_cap", least=1),
        passes=tuple(sorted(passes.values(), key=lambda item: (item.name == result, PASS_NAMES.index(item.name)))),
        clock=tuple(
            Phase(name, part.number("seconds", least=0.0), part.flag("counted")) for name, part in content.named_parts("clock")
        ),
        seed=content.whole("seed"),
        data_fingerprint=content.text("data_fingerprint"),
        partial=content.flag("partial"),
        settings=_settings(content),
    )
    _agree(content, score)
    if score.total_bytes != score.artifact_bytes + score.code_bytes:
        raise content.refuse("total_bytes", f"artifact_bytes + code_bytes = {score.artifact_bytes + score.code_bytes}")
    return score


def _settings(content: Fields) -> ScoreConfig | None:
    if "settings" not in content.content:
        return None
    try:
        return from_dict(ScoreConfig, content.content["settings"], "settings")
    except RecipeError as error:
        raise content.refuse("settings", f"settings of a score ({error})") from None


def read_proof(path: Path) -> ProofRecord:
    """``proof.json`` of a run.

    Raises:
        DataError: the file is malformed.
    """
    content = Fields(read_json(path), str(path))
    return ProofRecord(
        pass_name=content.text("pass_name"),
        targets=content.whole("targets", least=1),
        text_bytes=content.whole("text_bytes", least=1),
        blocks=content.whole("blocks", least=1),
        coded_bytes=content.whole("coded_bytes", least=1),
        decoded_exactly=content.whole("decoded_exactly", least=1),
        coded_bits_per_byte=content.number("coded_bits_per_byte", least=0.0),
        scored_bits_per_byte=content.number("scored_bits_per_byte", least=0.0),
    )


def read_audit(path: Path) -> AuditRecord:
    """``audit.json`` of a run; findings without a ``meaning`` are those of earlier versions.

    Raises:
        DataError: the file is malformed, or its verdict is not that of its conditions.
    """
    content = Fields(read_json(path), str(path))
    conditions = tuple(
        ConditionRecord(
            item.text("condition"),
            _verdict(item),
            {letter: _verdict(item.part("tests"), letter) for letter in item.part("tests").content},
        )
        for item in objects(content.content.get("conditions"), f"{path}: field 'conditions'")
    )
    findings = tuple(
        FindingRecord(
            test=item.text("test"),
            name=item.text("name"),
            verdict=_verdict(item),
            reason=item.text("reason"),
            meaning=item.text("meaning") if "meaning" in item.content else "",
        )
        for item in objects(content.content.get("findings"), f"{path}: field 'findings'")
    )
    audit = AuditRecord(content.text("scorer"), _verdict(content), conditions, findings)
    if audit.verdict == "not applicable" or (audit.verdict == "fail") != any(item.verdict == "fail" for item in conditions):
        raise content.refuse("verdict", "fail where a condition fails, elsewhere pass or undecided")
    return audit


def _verdict(fields: Fields, name: str = "verdict") -> str:
    found = fields.text(name)
    if found not in VERDICTS:
        raise fields.refuse(name, f"one of {', '.join(VERDICTS)}")
    return found


def _other_pass(score: Score, audit: AuditRecord) -> Iterator[str]:
    """The audit names the pass that it examined after the artifact; it may not be the one that gave the result."""
    name, result = audit.scorer.rpartition(" ")[2], score.passes[-1].name
    if name in PASS_NAMES and name != result:
        remedy = f"run: fairway audit RUN --pass {result}"
        yield f"audit.json is about the pass {name}, the result is that of the pass {result}; {remedy}"


def _pass(name: str, part: Fields) -> PassScore:
    result = PassScore(
        name=name,
        bits_per_byte=part.number("bits_per_byte", least=0.0),
        nats_per_token=part.number("nats_per_token", least=0.0),
        tokens=part.whole("tokens", least=1),
        bytes=part.whole("bytes", least=1),
        nats=part.number("nats", least=0.0),
        seconds=part.number("seconds", least=0.0),
    )
    _agree(part, result)
    return result


def _agree(fields: Fields, result: PassScore | Score) -> None:
    """``nats / ln 2 / bytes`` is ``bits_per_byte``, or one of the three is of another run."""
    expected = result.nats / math.log(2.0) / result.bytes
    if not math.isclose(result.bits_per_byte, expected, rel_tol=1e-6, abs_tol=1e-9):
        raise fields.refuse("bits_per_byte", f"nats / ln 2 / bytes = {expected:.9g}")


def _ledger(path: Path) -> Ledger:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise DataError(f"{path} is one array, not an archive of arrays; {REMEDY}")
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} cannot be read as a NumPy archive ({error}); {REMEDY}") from None

    def array(name: str, kind: str, dimensions: int = 1) -> np.ndarray:
        found = arrays.get(name)
        if found is None:
            raise DataError(f"{path}: array {name!r} is missing; {REMEDY}")
        if found.dtype.kind not in kind or found.ndim != dimensions:
            raise DataError(f"{path}: array {name!r} is {found.dtype} with {found.ndim} axes; {REMEDY}")
        return found

    byte_costs = array("bytes", "u").astype(np.uint16, copy=False)
    if not len(byte_costs):
        raise DataError(f"{path}: array 'bytes' is empty; {REMEDY}")
    nats = {}
    for name in PASS_NAMES:
        if f"{name}_nll" in arrays:
            found = array(f"{name}_nll", "f")
            if len(found) != len(byte_costs):
                raise DataError(f"{path}: array '{name}_nll' has {len(found)} targets, 'bytes' has {len(byte_costs)}; {REMEDY}")
            if not np.isfinite(found).all():
                raise DataError(f"{path}: array '{name}_nll' holds a cost that is not a finite number; {REMEDY}")
            nats[name] = found
    if not nats:
        raise DataError(f"{path}: there is no array of a pass, such as 'plain_nll'; {REMEDY}")
    context = int(array("context", "iu", 0))
    if context < 1:
        raise DataError(f"{path}: 'context' is {context}; it must be at least 1; {REMEDY}")
    return Ledger(nats, byte_costs, _documents(array("documents", "iu"), len(byte_costs), path), context)


def _documents(starts: np.ndarray, targets: int, path: Path) -> np.ndarray:
    starts = starts.astype(np.int64)
    if len(starts) and (starts[0] < 0 or starts[-1] >= targets or (np.diff(starts) <= 0).any()):
        raise DataError(f"{path}: array 'documents' must rise inside 0..{targets - 1}; {REMEDY}")
    return np.concatenate([[0], starts]).astype(np.int64) if len(starts) and starts[0] else starts


def _contradictions(score: Score, ledger: Ledger) -> Iterator[str]:
    """Passes whose sum over the ledger is not the score; float32 costs add up to better than 1e-4."""
    for result in score.passes:
        costs = ledger.nats.get(result.name)
        if costs is None:
            yield f"ledger.npz has no costs of the pass {result.name}, which score.json reports."
            continue
        nats, text = float(costs.sum(dtype=np.float64)), int(ledger.bytes.sum(dtype=np.int64))
        bits = nats / math.log(2.0) / text if text else math.nan
        if not math.isclose(bits, result.bits_per_byte, rel_tol=1e-4):
            yield (
                f"score.json says {result.bits_per_byte:.6f} bits per byte for the pass {result.name}, the costs in "
                f"ledger.npz add up to {bits:.6f}; the two files are not of the same run."
            )


def _tensors(path: Path) -> tuple[TensorRecord, ...]:
    most = LARGEST_BITS_PER_WEIGHT
    records = []
    for item in objects(read_json(path), str(path)):
        entropy, coded = (item.optional(name, least=0.0) for name in ("entropy_bits", "coded_bits"))
        if entropy is not None and entropy > most:
            raise item.refuse("entropy_bits", f"in bits per weight, at most {most:g}")
        if coded is not None and coded > most:
            raise item.refuse("coded_bits", f"in bits per weight, at most {most:g}")
        records.append(
            TensorRecord(
                name=item.text("name"),
                role=item.text("role"),
                shape=item.shape("shape"),
                bits=item.whole("bits", least=1),
                scheme=item.text("scheme"),
                entropy_bits=entropy,
                coded_bits=coded,
                bytes=item.whole("bytes"),
                rms_error=item.optional("rms_error", least=0.0),
                hessian_error=item.optional("hessian_error", least=0.0),
            )
        )
    return tuple(records)


def _samples(path: Path) -> tuple[Sample, ...]:
    return tuple(Sample(item.text("prompt"), item.text("text")) for item in objects(read_json(path), str(path)))

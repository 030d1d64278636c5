"""From finished runs to one folder that can be handed in, or to every reason why it cannot."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fairway.audit.finding import Finding
from fairway.base.errors import BudgetError, DataError, FairwayError, ValidityError
from fairway.base.files import read_json, sha256_file, write_bytes, write_json, write_text
from fairway.record.checks import Limits
from fairway.record.claim import claim_audit
from fairway.record.compare import RECORD_MARGIN, Comparison, compare
from fairway.record.evidence import SCRIPT, SeedRun, read_seed
from fairway.record.figures import GapClaim, SeedFigures, claim_from_json
from fairway.record.folder import atomic_folder, refuse_taken
from fairway.record.logs import requirements, train_log
from fairway.record.paired import write_document_costs
from fairway.record.readme import readme
from fairway.record.reasons import Refused, of_reference, of_runs
from fairway.record.record_file import RECORD
from fairway.record.results import Result, read_results
from fairway.record.submission import About, labels, missing_author, record_document, submission
from fairway.record.units import Margin, Unit

README, SUBMISSION, REQUIREMENTS = "README.md", "submission.json", "requirements.txt"

BUDGET_KINDS = ("over the byte cap", "uncounted files", "over the time cap")
TOLD_ELSEWHERE = ("mixed settings", "mixed code", "mixed code sizes")
"""Kinds of discrepancies that the reasons of the runs tell too, with names and values."""
REMEDIES = {
    "over the byte cap": "pack it smaller: fewer bits, larger quant.*.clip_sigmas or a smaller model",
    "over the time cap": "train again with a larger train.reserve_seconds, or score with fewer epochs",
    "too few seeds": "run more seeds: fairway run RECIPE --seed N",
    "missing file": "the track needs it; make the runs with a release whose code is one script",
    "differs from the log": "score the run again with fairway score",
}
ELSE = "make the runs agree with their files"


@dataclass(frozen=True)
class HandedIn:
    """What was written."""

    folder: Path
    document: Mapping[str, Any]
    """``submission.json``."""
    comparison: Comparison | None
    reasons: tuple[FairwayError, ...]
    """What stands against it; empty unless it is a draft."""


def hand_in(
    paths: Sequence[Path],
    against: Sequence[Path],
    out: Path,
    *,
    about: About | None = None,
    margin: Margin = RECORD_MARGIN,
    draft: bool = False,
    overwrite: bool = False,
) -> HandedIn:
    """Write the folder of a record, whole or not at all.

    Args:
        paths: Run folders, seeds of one recipe.
        against: Run folders, or a record, that they must beat by ``margin`` at p < 0.01; with a margin of 0, at p < 0.25.
        out: The folder to write.
        about: Author and title, which no run knows.
        margin: Needed improvement.
        draft: Write the folder whatever stands against it; its first lines say so and list the reasons.
        overwrite: Replace an earlier folder of a record.

    Raises:
        Refused: something stands against it and it is no draft; or, even for a draft, a run cannot be read at all.
        DataError: ``out`` is taken, or no run is given.
        MachineError: scipy is missing, the disk is full or the folder cannot be written.
    """
    about, out = about or About(), out.absolute()
    if not paths:
        raise DataError("a record needs run folders: fairway record RUN... --against RUN... --out DIR")
    refuse_taken(out, overwrite=overwrite, mark=RECORD)
    runs, unreadable = _read(paths)
    reference, unread = _reference(against)
    if unreadable:
        raise Refused([*unreadable, *(() if draft else (*unread, *missing_author(about)))], readable=False)
    found, incomparable = _compare(runs, reference, margin)
    reasons = [*of_runs(runs), *unread, *incomparable, *(of_reference(found, runs) if found else ()), *missing_author(about)]
    document = submission(runs, found, about, (), draft=draft)
    reasons += _discrepancies(_claim(document, runs, found, list(_names(runs))))
    reasons = list({str(reason): reason for reason in reasons}.values())
    if reasons and not draft:
        raise Refused(reasons)
    document = submission(runs, found, about, [_without_places(reason, [*paths, *against]) for reason in reasons], draft=draft)
    with atomic_folder(out, overwrite=overwrite, mark=RECORD) as folder:
        _write(folder, runs, found, document)
        if not draft:
            _check(folder, runs, found)
    return HandedIn(out, document, found, tuple(reasons))


def _read(paths: Sequence[Path]) -> tuple[list[SeedRun], list[FairwayError]]:
    """The runs in the order of their seeds, and why others cannot be read."""
    runs: list[SeedRun] = []
    errors: list[FairwayError] = []
    for path in paths:
        try:
            runs.append(read_seed(path))
        except FairwayError as error:
            errors.append(error)
    return sorted(runs, key=lambda run: run.recipe.seed), errors


def _reference(against: Sequence[Path]) -> tuple[list[Result], list[FairwayError]]:
    """Results of the other side, and what keeps them from being read."""
    if not against:
        return [], [DataError("nothing is given to compare with, so significance cannot be shown; name it with --against")]
    results: list[Result] = []
    errors: list[FairwayError] = []
    for path in against:
        try:
            results += read_results(path)
        except FairwayError as error:
            errors.append(error)
    return ([], errors) if errors else (results, [])


def _compare(
    runs: Sequence[SeedRun], reference: Sequence[Result], margin: Margin
) -> tuple[Comparison | None, list[FairwayError]]:
    if not reference:
        return None, []
    try:
        return compare([run.result for run in runs], reference, margin), []
    except DataError as error:
        return None, [error]


def _names(runs: Sequence[SeedRun]) -> dict[str, str]:
    """Every file of the folder and what it is."""
    first = runs[0]
    files = {
        README: "this page",
        SUBMISSION: "the figures of this page, as a machine reads them",
        RECORD: "what a later `fairway record --against` or `fairway compare --against` reads",
        REQUIREMENTS: "the libraries",
    }
    if first.folder.code.exists():
        files[first.code_name] = "the source whose bytes count"
    for name, run in zip(labels(runs), runs, strict=True):
        files[f"train_seed{name}.log"] = f"seed {name}: what training and scoring logged"
        if run.measured is not None and run.result.costs is not None:
            files[f"costs_seed{name}.npz"] = f"seed {name}: nats and bytes of every document, summed from the ledger"
        if run.audited is not None:
            files[f"audit_seed{name}.json"] = f"seed {name}: the audit's verdicts and evidence"
        if run.proof is not None:
            files[f"proof_seed{name}.json"] = f"seed {name}: the proof by decoding"
    return files


def _write(folder: Path, runs: Sequence[SeedRun], found: Comparison | None, document: Mapping[str, Any]) -> None:
    first, files = runs[0], _names(runs)
    if first.folder.code.exists():
        write_bytes(folder / first.code_name, first.folder.code.read_bytes())
    write_text(folder / REQUIREMENTS, requirements(first))
    costs = {}
    for name, run in zip(labels(runs), runs, strict=True):
        write_text(folder / f"train_seed{name}.log", without_folders(train_log(run)))
        if (own := f"costs_seed{name}.npz") in files and run.result.costs is not None:
            write_document_costs(folder / own, run.result.costs)
            costs[name] = own, sha256_file(folder / own)
        if run.audited is not None:
            write_json(folder / f"audit_seed{name}.json", _shareable(run))
        if run.proof is not None:
            write_json(folder / f"proof_seed{name}.json", _without_folders(run.proof))
    write_json(folder / SUBMISSION, document)
    write_json(folder / RECORD, record_document(runs, document, costs))
    write_text(folder / README, without_folders(readme(runs, found, document, files)))


def _shareable(run: SeedRun) -> dict[str, Any]:
    """``audit.json`` without places of one machine, and without the text that a witness may quote."""
    assert run.audited is not None
    document = _without_folders(dict(run.audited.document))
    document["scorer"] = f"{run.folder.artifact.name} {run.audited.pass_name}"
    for finding in document.get("findings", ()):
        if isinstance(finding, dict) and isinstance(finding.get("witness"), dict):
            finding["witness"]["tokens"] = {}
    return document


def _claim(document: Mapping[str, Any], runs: Sequence[SeedRun], found: Comparison | None, files: Sequence[str]) -> Finding:
    """Test Q of what ``submission.json`` states, with the ledgers and files of the runs as its evidence."""
    claim = claim_from_json(document, SUBMISSION)
    evidence = [_evidence(run, name) for run, name in zip(runs, labels(runs), strict=True)]
    caps = [run.caps for run in runs]
    limits = Limits(
        bytes=float(min(min(run.score["byte_cap"], run.recipe.artifact.byte_cap) for run in runs)),
        train_seconds=min(train for train, _ in caps),
        eval_seconds=min(scoring for _, scoring in caps),
        files=(*_names(runs), *((SCRIPT,) if document["track"] else ())),
    )
    gaps = []
    if found is not None:
        p = next(
            (item.significance.p for item in found.answers if item.test == "Welch" and item.significance.margin == 0), None
        )
        gaps = [
            GapClaim(reference=found.reference.summary(Unit.BPB), gap=document["comparison"]["gap"][unit.value], unit=unit, p=p)
            for unit in (Unit.BPB, Unit.NATS_PER_TOKEN)
        ]
    return claim_audit(
        claim, evidence, every_run=[run.score["bits_per_byte"] for run in runs], gaps=gaps, files=files, limits=limits
    )


def _evidence(run: SeedRun, name: str) -> SeedFigures:
    """Measured figures; of a run whose ledger cannot be read, only the seconds and steps are known."""
    if run.measured is not None:
        return replace(run.measured, seed=name)
    return SeedFigures(
        seed=name, train_seconds=run.stated.train_seconds, eval_seconds=run.stated.eval_seconds, steps=run.stated.steps
    )


def _discrepancies(finding: Finding) -> list[FairwayError]:
    """Discrepancies as reasons, but for those that the runs' own reasons tell."""
    reasons: list[FairwayError] = []
    for item in finding.details["discrepancies"]:
        if item["kind"] in TOLD_ELSEWHERE:
            continue
        kind = BudgetError if item["kind"] in BUDGET_KINDS else ValidityError
        reasons.append(kind(f"{item['sentence']}; {REMEDIES.get(item['kind'], ELSE)}"))
    return reasons


def _check(folder: Path, runs: Sequence[SeedRun], found: Comparison | None) -> None:
    """Read back what was written and audit it: what we write must pass our own check, and a later reader's.

    Raises:
        ValidityError: it does not, although nothing stood against the runs; they changed while they were read.
    """
    files = sorted(path.name for path in folder.iterdir())
    finding = _claim(read_json(folder / SUBMISSION), runs, found, files)
    again = read_results(folder / RECORD)
    stated = [run.score["bits_per_byte"] for run in runs]
    same = [result.bits_per_byte for result in again] == stated
    changed = [
        run.result.name for run in runs for name, digest in run.digests.items() if sha256_file(run.folder.root / name) != digest
    ]
    if finding.verdict != "pass" or not same or changed:
        what = finding.reason if finding.verdict != "pass" else f"the files of {', '.join(changed) or 'the runs'} changed"
        raise ValidityError(f"what was written does not pass the claim audit: {what}; leave the runs alone and try again")


def _without_places(reason: FairwayError, paths: Sequence[Path]) -> str:
    """A reason without the folders of this machine, for a file that others read."""
    text = f"{type(reason).__name__}: {reason}"
    for path in sorted({*map(str, paths), *(str(path.resolve()) for path in paths)}, key=len, reverse=True):
        if Path(path).name not in ("", path):
            text = text.replace(path, Path(path).name)
    return without_folders(text)


def without_folders(text: str) -> str:
    """``text`` with absolute paths cut to their last part: others have no use for the places of this machine."""
    return re.sub(r"(?<![\w.:/])/(?:[^\s/:;,'\"]+/)+(?=[^\s/])", "", text)


def _without_folders(value: Any) -> Any:
    """The same for every text of a JSON value; a new value, so that the original stays as it was read."""
    if isinstance(value, Mapping):
        return {name: _without_folders(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_without_folders(item) for item in value]
    return without_folders(value) if isinstance(value, str) else value

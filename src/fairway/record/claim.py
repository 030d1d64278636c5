"""Test Q: does a claim follow from its evidence? Recompute everything that is stated, and list what does not agree."""

import math
from collections.abc import Collection, Sequence
from dataclasses import asdict, replace

from fairway.audit.finding import Finding, Witness
from fairway.audit.runner import Outcome, Sheet
from fairway.base.files import read_json
from fairway.base.runs import RunFolder
from fairway.record import checks
from fairway.record.checks import Discrepancy, Limits
from fairway.record.figures import Claim, GapClaim, Number, SeedFigures
from fairway.record.results import read_run
from fairway.record.units import TextSize

SHEET = Sheet(
    "Q",
    "claim",
    ("claim", "budget"),
    "discrepancies between what is stated and what the evidence shows",
    "runs that nobody wrote down, logs that were made up, and whether the score itself is valid",
    "Something that is stated does not follow from the recorded figures, or what would prove it is missing. So the claim "
    "cannot stand as it is.",
)


def claim_audit(
    claim: Claim,
    evidence: Sequence[SeedFigures] = (),
    *,
    every_run: Sequence[Number] = (),
    gaps: Sequence[GapClaim] = (),
    files: Collection[str] | None = None,
    export: TextSize | None = None,
    limits: Limits | None = None,
) -> Finding:
    """Recompute a claim from its evidence.

    Args:
        claim: What is stated.
        evidence: Figures of each seed from its log or its files; without it a claim is only checked against itself.
        every_run: Bits per byte of every run that was made, reported or not.
        gaps: Improvements that are stated over other runs.
        files: Names of the files of the submission's folder.
        export: Size of the official text, where the claim is about it.
        limits: Caps; by default those of the ten-minute track.

    Returns:
        A failure when anything does not agree; ``details["discrepancies"]`` has one entry for each.
    """
    limits = limits or Limits()
    values = checks.seed_values(claim, evidence)
    found = [
        *checks.missing(claim, evidence, values, files, limits),
        *checks.mean_and_spread(claim, values),
        *checks.against_logs(claim, evidence),
        *checks.repeated(claim, evidence),
        *checks.over_the_caps(claim, evidence, limits),
        *checks.mixed_runs(evidence or claim.seeds),
        *checks.one_text(claim, evidence, export),
        *checks.selected_seeds(values, every_run),
        *(item for gap in gaps for item in checks.stated_gap(gap, values, checks.text_size(claim, evidence))),
    ]
    witness = next((item for item in found if item.claimed is not None and item.found is not None), None)
    reason = "; ".join(item.sentence for item in found) or f"{claim.name}: every stated figure follows from {len(values)} runs"
    details = {"discrepancies": [asdict(item) for item in found], "values": values}
    return SHEET.finding(Outcome("fail" if found else "pass", float(len(found)), 0.0, reason, _witness(witness), details))


def nothing_stated() -> Finding:
    """Test Q where there is no run folder, so that it has nothing to examine."""
    sheet = replace(SHEET, blind_to="all of it, for there is no run folder")
    return sheet.not_applicable("there is no run folder, so nothing is stated")


def run_claim(run: RunFolder, byte_cap: int) -> Finding:
    """Test Q on one run: does what ``score.json`` states follow from its ledger and its files? The worst of its passes.

    One run is no record: it needs no second seed, and its seconds are test W's, which knows the machine.

    Args:
        run: The run folder.
        byte_cap: Most bytes of artifact and code.

    Raises:
        DataError: a file of the run is missing or damaged.
    """
    limits = Limits(bytes=float(byte_cap), train_seconds=math.inf, eval_seconds=math.inf, seeds=1, files=())
    results = [read_run(run.root)]
    results += [read_run(run.root, name) for name in read_json(run.score)["passes"] if name != results[0].pass_name]
    findings = []
    for result in results:
        claim = Claim(name=f"pass {result.pass_name}", bits_per_byte=result.bits_per_byte, seeds=(result.stated,))
        findings.append(claim_audit(claim, [result.measured()], limits=limits))
    found = next((finding for finding in findings if finding.verdict == "fail"), findings[0])
    if found.verdict == "fail":
        return found
    if not run.ledger.exists():
        return replace(found, verdict="undecided", reason=f"{run.ledger} does not exist, so the losses cannot be recomputed")
    return replace(found, reason=f"every stated figure of {len(results)} passes follows from the ledger and the files")


def _witness(item: Discrepancy | None) -> Witness | None:
    if item is None or item.claimed is None or item.found is None:
        return None
    return Witness(-1, {}, expected=float(item.found), found=float(item.claimed), how=item.sentence)

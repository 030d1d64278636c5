"""Test Q: does a claim follow from its evidence? Recompute everything that is stated, and list what does not agree."""

from collections.abc import Collection, Sequence
from dataclasses import asdict

from fairway.audit.finding import Finding, Witness
from fairway.record import checks
from fairway.record.checks import Discrepancy, Limits
from fairway.record.figures import Claim, GapClaim, Number, SeedFigures
from fairway.record.units import TextSize


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
    return Finding(
        test="Q",
        name="claim",
        verdict="fail" if found else "pass",
        conditions=("claim", "budget"),
        statistic=float(len(found)),
        tolerance=0.0,
        measures="discrepancies between what is stated and what the evidence shows",
        blind_to="runs that nobody wrote down, logs that were made up, and whether the score itself is valid",
        reason="; ".join(item.sentence for item in found)
        or f"{claim.name}: every stated figure follows from {len(values)} runs",
        witness=_witness(witness),
        details={"discrepancies": [asdict(item) for item in found], "values": values},
    )


def _witness(item: Discrepancy | None) -> Witness | None:
    if item is None or item.claimed is None or item.found is None:
        return None
    return Witness(-1, {}, expected=float(item.found), found=float(item.claimed), how=item.sentence)

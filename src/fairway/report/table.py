"""The final table of ``fairway run``: one row per stage and pass with its result, seconds and bytes. Plain text."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fairway.report.budgets import training_seconds
from fairway.report.load import load_run
from fairway.report.look import PASS_MEANING, plot_label, thousands
from fairway.report.records import ProofRecord, RunData


@dataclass(frozen=True)
class Row:
    """One stage or pass of a run."""

    stage: str
    result: str
    seconds: float | None
    bytes: int | None
    what: str
    """What the bytes are, or what the pass does."""


def final_table(run: Path) -> str:
    """The stages and passes of a run as aligned text, then where the report is, the verdict on the byte budget, and the proof.

    Raises:
        DataError: the folder is not a run, or a file in it is malformed.
    """
    data = load_run(run)
    head = ("stage", "result", "seconds", "bytes", "")
    cells = [head, *(_cells(row) for row in rows(data))]
    widths = [max(len(row[column]) for row in cells) for column in range(4)]
    lines = []
    for stage, result, seconds, size, what in cells:
        line = f"{stage:<{widths[0]}}  {result:<{widths[1]}}  {seconds:>{widths[2]}}  {size:>{widths[3]}}  {what}"
        lines.append(line.rstrip())
    lines.insert(1, "-" * max(len(line) for line in lines))
    proof = [proof_sentence(data.proof)] if data.proof is not None else []
    page = [f"report: {run / 'report.html'}"] if (run / "report.html").exists() else []
    return "\n".join([*lines, "", *page, verdict(data), *proof]) + "\n"


def _cells(row: Row) -> tuple[str, str, str, str, str]:
    seconds = "" if row.seconds is None else f"{row.seconds:,.1f}"
    return row.stage, row.result, seconds, "" if row.bytes is None else thousands(row.bytes), row.what


def rows(data: RunData) -> tuple[Row, ...]:
    """The rows of the final table: training, packing, then each pass."""
    found = []
    if data.metrics is not None:
        found.append(_training_row(data))
    tensors = data.tensors or ()
    if tensors or data.score is not None:
        weights = sum(record.weights for record in tensors)
        result = f"{8 * sum(record.bytes for record in tensors) / weights:.3f} bits per weight" if weights else "packed"
        seconds = [phase.seconds for phase in data.clock if phase.name in ("hessian", "quantize", "pack")]
        size = data.score.artifact_bytes if data.score is not None else sum(record.bytes for record in tensors)
        found.append(Row("pack", result, sum(seconds) if seconds else None, size, "artifact" if data.score else "tensors"))
    if data.score is not None:
        found.append(Row("code", "", None, data.score.code_bytes, "source of the scorer"))
        for item in data.score.passes:
            result = f"{item.bits_per_byte:.5f} bits per byte"
            found.append(Row(item.name, result, item.seconds, item.bytes, f"of text; {PASS_MEANING[item.name]}"))
    return tuple(found)


def _training_row(data: RunData) -> Row:
    metrics = data.metrics
    assert metrics is not None
    result, what = "no step logged", ""
    if len(metrics.validation) and np.isfinite(metrics.validation.nats_per_token[-1]):
        result = f"{metrics.validation.nats_per_token[-1]:.4f} nats per token, validation"
    elif len(metrics.train):
        result = f"{metrics.train.loss[-1]:.4f} nats per token, training"
    if metrics.stop is not None:
        what = f"{thousands(metrics.stop.step)} steps, stopped: {plot_label(metrics.stop.reason, 60)}"
        if metrics.stop.peak_memory_bytes:
            what += f"; {metrics.stop.peak_memory_bytes / 2**30:.1f} GiB at most"
    elif len(metrics.train):
        what = f"{thousands(int(metrics.train.step[-1]))} steps so far"
    return Row("train", result, training_seconds(data), None, what)


def verdict(data: RunData) -> str:
    """One sentence: the result and whether it fits the byte budget."""
    score = data.score
    if score is None:
        return "no score yet; run: fairway score RUN"
    last = score.passes[-1]
    part = ", a leading part of the text only" if score.partial else ""
    room = score.byte_cap - score.total_bytes
    fits = f"fits with {thousands(room)} to spare" if room >= 0 else f"OVER the budget by {thousands(-room)}"
    return (
        f"{score.bits_per_byte:.5f} bits per byte ({last.name}, {plot_label(score.mode)}{part}); "
        f"{thousands(score.total_bytes)} of {thousands(score.byte_cap)} bytes: {fits}"
    )


def proof_sentence(proof: ProofRecord) -> str:
    """One line: what was coded, that it came back, and how the coded size compares with the score."""
    return (
        f"proof: {thousands(proof.targets)} targets ({proof.pass_name}, {thousands(proof.text_bytes)} bytes of text, "
        f"revealed in {thousands(proof.blocks)} blocks) came back exactly from {thousands(proof.coded_bytes)} bytes in "
        f"{proof.decoded_exactly} fresh processes; coded {proof.coded_bits_per_byte:.5f}, "
        f"scored {proof.scored_bits_per_byte:.5f} bits per byte"
    )

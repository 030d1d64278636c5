"""N, replay: the score of a beginning is the beginning of the score."""

import numpy as np

from fairway.audit.future import gaps
from fairway.audit.probes import probe_entries
from fairway.audit.runner import FLOAT32, Outcome, Runner, Sheet, Tolerances, audit_test
from fairway.audit.scorer import Meta, Scheduled
from fairway.audit.streams import AuditStream
from fairway.audit.witness import Case, difference

SHEET = Sheet(
    "N",
    "replay",
    ("causal", "single pass"),
    "largest difference in nats between a target of a beginning and the same target of the whole",
    "dependence on the target itself; declared side information is held at its full value",
    "The beginning of the text costs something else when it is scored alone than when the rest follows it. A decoder that "
    "reads the beginning does not have the rest, so it cannot repeat those predictions.",
)


@audit_test(SHEET)
def replay_prefixes(
    runner: Runner, stream: AuditStream, *, seed: int = 0, probes: int = 6, tolerances: Tolerances = FLOAT32
) -> Outcome:
    """``score(x[: c + 1])`` against ``score(x)[: c]``: only a scorer that reads its text once, forwards, agrees.

    The number of targets, where declared, is held at that of the whole; else a schedule over the length of the text shows
    here. Document starts, where declared, are held too.

    Args:
        runner: The scorer.
        stream: The text.
        seed: Seed of the cuts.
        probes: Number of cuts.
        tolerances: ``other_shape`` applies.

    Source: rules of the challenge, test N.
    """
    if isinstance(runner.scorer, Scheduled):
        return Outcome("not applicable", 0.0, 0.0, "the order of coding is not that of the stream, so a beginning is no part")
    whole = Case(stream.tokens, stream.meta())
    base = runner.nats(whole.tokens, whole.meta)
    cuts = [entry + 1 for entry in probe_entries(stream, probes + 1, seed) if entry + 1 < stream.targets][:probes]
    worst = 0.0
    for cut in cuts:
        part = _beginning(runner, stream, cut)
        found = runner.nats(part.tokens, part.meta)
        gap = gaps(base[:cut], found)
        worst = max(worst, float(gap.max()))
        if worst > tolerances.other_shape:
            entry = int(gap.argmax())
            how = f"nats of target {entry + 1} in a text of {stream.targets} targets, and in its first {cut} alone"
            witness = difference(how, whole, part, entry, float(base[entry]), float(found[entry]))
            reason = f"target {entry + 1} costs {base[entry]:.6g} nats in the whole and {found[entry]:.6g} in a beginning of it"
            return Outcome("fail", worst, tolerances.other_shape, reason, witness)
    if not cuts:
        return Outcome("undecided", 0.0, tolerances.other_shape, "the stream is too short to be cut")
    return Outcome("pass", worst, tolerances.other_shape, f"{len(cuts)} beginnings score as they do in the whole")


def _beginning(runner: Runner, stream: AuditStream, cut: int) -> Case:
    declares, tokens = runner.scorer.declares, stream.tokens[: cut + 1]
    starts = stream.document_starts
    if "documents" not in declares:
        starts = tuple(start for start in starts if start <= cut)
    return Case(np.ascontiguousarray(tokens), Meta(stream.targets if "targets" in declares else cut, starts))

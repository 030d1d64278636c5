"""X, coverage: every target counts once, and none is free."""

import numpy as np

from fairway.audit.finding import Witness
from fairway.audit.runner import FLOAT32, FREE_NATS, Outcome, Runner, Sheet, Tolerances, audit_test
from fairway.audit.streams import AuditStream
from fairway.audit.witness import Case

SHEET = Sheet(
    "X",
    "coverage",
    ("single pass", "normalised"),
    "targets without exactly one finite cost, ids outside the vocabulary, and targets that are free whatever they are",
    "targets scored under a wrong id (use S)",
    "A part of the text has no proper cost: it was left out, cannot be written at all, or is free although something else "
    "could stand there. So the sum of the costs is not what the whole text takes.",
)
FREE_PROBES = 4


@audit_test(SHEET)
def coverage(runner: Runner, stream: AuditStream, *, seed: int = 0, tolerances: Tolerances = FLOAT32) -> Outcome:
    """One finite cost per target; ids in ``[0, V)``; a target of cost zero excludes all others.

    A target that costs nothing claims probability one, so another token in its place must be impossible. Declared document
    markers may cost nothing.

    Args:
        runner: The scorer.
        stream: The text.
        seed: Seed of the tokens tried in place of free ones.
        tolerances: ``total`` applies to the sum over the free token and another.

    Source: rules of the challenge, test X.
    """
    case = Case(stream.tokens, stream.meta())
    outside = np.flatnonzero((stream.tokens < 0) | (stream.tokens >= runner.scorer.vocab_size))
    if len(outside):
        place, token = int(outside[0]), int(stream.tokens[outside[0]])
        content = {"compare": "ids", "first": case.to_dict()}
        witness = Witness(place - 1, content, runner.scorer.vocab_size - 1.0, float(token), "largest id, and the id found")
        reason = f"token {token} at {place} is outside the vocabulary of {runner.scorer.vocab_size}"
        return Outcome("fail", float(len(outside)), 0.0, reason, witness)
    nats = runner.nats(case.tokens, case.meta)
    infinite = np.flatnonzero(~np.isfinite(nats))
    if len(infinite):
        entry = int(infinite[0])
        witness = Witness(entry, {"compare": "nats", "first": case.to_dict()}, 0.0, np.inf, "nats of the target")
        return Outcome("fail", float(len(infinite)), 0.0, f"target {entry + 1} costs infinitely many nats", witness)
    free = np.flatnonzero(nats <= FREE_NATS)
    if "documents" in runner.scorer.declares:
        free = np.setdiff1d(free, np.array(stream.document_starts) - 1)
    for entry in free[np.linspace(0, len(free) - 1, min(FREE_PROBES, len(free))).round().astype(int)].tolist():
        found = _free(runner, stream, entry, seed, tolerances)
        if found is not None:
            return found
    return Outcome("pass", 0.0, 0.0, f"{stream.targets} targets have one finite cost each")


def _free(runner: Runner, stream: AuditStream, entry: int, seed: int, tolerances: Tolerances) -> Outcome | None:
    """Whether another token in the place of a free one is free, or likely, as well."""
    target = int(stream.tokens[entry + 1])
    alphabet = stream.alphabet(runner.scorer)
    others = np.random.default_rng([seed, entry]).permutation(alphabet[alphabet != target])[:8]
    for other in others.tolist():
        changed = stream.tokens.copy()
        changed[entry + 1] = other
        cost = float(runner.nats(changed, stream.meta())[entry])
        total = 1.0 + float(np.exp(-cost))
        if total > 1.0 + tolerances.total:
            content = {"compare": "sum", "first": Case(stream.tokens, stream.meta()).to_dict(), "tried": [target, other]}
            content["substituted"] = [target, other]
            how = f"target {entry + 1} as {target} and as {other}; exp(-nats) summed, at most 1 for a distribution"
            reason = f"target {entry + 1} is free as token {target}, yet token {other} there costs only {cost:.4g} nats"
            return Outcome("fail", 1.0, 0.0, reason, Witness(entry, content, 1.0, total, how))
    return None

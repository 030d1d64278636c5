"""E, determinism: the same text costs the same, whatever was scored before."""

import numpy as np

from fairway.audit.future import gaps
from fairway.audit.runner import FLOAT32, Outcome, Runner, Sheet, Tolerances, audit_test
from fairway.audit.streams import AuditStream
from fairway.audit.witness import Case, difference

SHEET = Sheet(
    "E",
    "determinism",
    ("single pass", "causal"),
    "largest difference in nats of a target between two runs",
    "state that survives in a way that this order of runs does not show; runs on another machine",
    "The same text was scored several times and did not cost the same each time. A decoder has to repeat every prediction "
    "exactly, so it goes wrong where two runs differ.",
)


@audit_test(SHEET)
def determinism(runner: Runner, stream: AuditStream, *, seed: int = 0, tolerances: Tolerances = FLOAT32) -> Outcome:
    """Score a text twice, then once more after another text: three equal lists of nats.

    A difference between the first two is chance, or memory of the text itself; one that appears only after the other text
    is memory of that.

    Args:
        runner: The scorer.
        stream: The text.
        seed: Seed of the text in between.
        tolerances: ``same_shape`` applies.

    Source: rules of the challenge, test E.
    """
    case = Case(stream.tokens, stream.meta())
    rng = np.random.default_rng(seed)
    other = stream.tokens.copy()
    places = np.flatnonzero(~stream.fixed(runner.scorer))
    other[places] = rng.choice(stream.alphabet(runner.scorer), len(places))
    between = Case(other, stream.changed_meta(runner.scorer, other, seed))
    base = runner.nats(case.tokens, case.meta)
    worst = 0.0
    for said, middle in (("at once", None), ("after another text", between)):
        if middle is not None:
            runner.nats(middle.tokens, middle.meta)
        again = runner.nats(case.tokens, case.meta)
        gap = gaps(base, again)
        worst = max(worst, float(gap.max()))
        if worst > tolerances.same_shape:
            entry = int(gap.argmax())
            how = f"nats of target {entry + 1} in a first run, and in a second one {said}"
            witness = difference(how, case, case, entry, float(base[entry]), float(again[entry]))
            if middle is not None:
                witness.tokens["between"] = middle.to_dict()
            reason = f"target {entry + 1} costs {base[entry]:.6g} nats, and {again[entry]:.6g} when the text is scored {said}"
            return Outcome("fail", worst, tolerances.same_shape, reason, witness)
    return Outcome("pass", worst, tolerances.same_shape, "three runs cost the same, one of them after another text")

"""O, online protocol: the environment keeps the text and hands out one token at a time, after it was paid for."""

from typing import Any

import numpy as np

from fairway.audit.finding import Witness
from fairway.audit.future import gaps
from fairway.audit.order import coding_order
from fairway.audit.runner import FLOAT32, Outcome, Runner, Sheet, Tolerances, audit_test
from fairway.audit.scorer import Meta, Scorer, Stepwise
from fairway.audit.streams import AuditStream
from fairway.audit.witness import Case

SHEET = Sheet(
    "O",
    "online protocol",
    ("causal", "normalised", "score before update", "single pass"),
    "largest difference in nats between what is handed over before a token is told and the score",
    "the artifact's content, and the bytes",
    "The text was handed over one token at a time, each only after it was predicted, as a decoder gets it. The "
    "predictions made so were not those that the score counts, did not add up to one, or changed when asked for again.",
)
WITHHELD_TARGETS = 17
"""Added to the number of targets that a scorer is told without having declared its use."""


def told(scorer: Scorer, meta: Meta) -> Meta:
    """The side information that the scorer has declared; the rest is false, but harmless to one that does not look."""
    targets = meta.targets if "targets" in scorer.declares else meta.targets + WITHHELD_TARGETS
    return Meta(targets, meta.document_starts if "documents" in scorer.declares else (0,))


@audit_test(SHEET)
def online_protocol(runner: Runner, stream: AuditStream, *, tolerances: Tolerances = FLOAT32) -> Outcome:
    """Walk: ``propose`` a distribution, commit the token's nats, ``reveal`` the token; compare with the claimed score.

    A proposal is asked twice and must not change. Causality, score before update and the single pass hold for the walk by
    construction, so a score that equals it has them too.

    Args:
        runner: The scorer, stepwise.
        stream: The text, which the scorer does not get.
        tolerances: ``other_shape`` to the score, ``total`` for the sums, ``same_shape`` between two equal questions.

    Source: rules of the challenge, test O.
    """
    scorer = runner.scorer
    if not isinstance(scorer, Stepwise):
        return Outcome("not applicable", 0.0, 0.0, "the scorer cannot be driven one target at a time")
    case = Case(stream.tokens, stream.meta())
    claimed = runner.nats(case.tokens, case.meta)
    meta = told(scorer, case.meta)
    order = coding_order(scorer, case.meta)
    session = scorer.start(int(stream.tokens[0]), meta)
    runner.runs += 1
    content: dict[str, Any] = {
        "compare": "walk",
        "second_is": "score",
        "first": case.to_dict(),
        "order": order.tolist(),
        "told_targets": meta.targets,
        "told_starts": list(meta.document_starts),
    }
    handed, worst = np.zeros(stream.targets), 0.0
    for entry in order.tolist():
        proposal = np.asarray(session.propose(), dtype=np.float64)
        total = float(np.exp(proposal).sum())
        if proposal.shape != (scorer.vocab_size,) or not abs(total - 1.0) <= tolerances.total:
            witness = Witness(entry, {**content, "second_is": "sum"}, 1.0, total, "sum of the proposed probabilities")
            return Outcome(
                "fail", abs(total - 1.0), tolerances.total, f"the proposal for target {entry + 1} sums to {total:.6g}", witness
            )
        again = float(gaps(proposal, np.asarray(session.propose(), dtype=np.float64)).max())
        if again > tolerances.same_shape:
            witness = Witness(entry, content, 0.0, again, "largest difference between two proposals for one target")
            return Outcome("fail", again, tolerances.same_shape, f"asking twice changes the proposal at {entry + 1}", witness)
        token = int(stream.tokens[entry + 1])
        handed[entry] = -proposal[token]
        worst = max(worst, float(gaps(handed[entry : entry + 1], claimed[entry : entry + 1])[0]))
        if worst > tolerances.other_shape:
            how = "nats handed over before the token was told, and nats of the score"
            witness = Witness(entry, content, float(handed[entry]), float(claimed[entry]), how)
            reason = (
                f"target {entry + 1} cost {handed[entry]:.6g} nats before it was told, and {claimed[entry]:.6g} in the score"
            )
            return Outcome("fail", worst, tolerances.other_shape, reason, witness)
        session.reveal(token)
    details = {"handed_nats": float(handed.sum()), "claimed_nats": float(claimed.sum())}
    reason = f"{stream.targets} targets were priced before they were told, at the claimed nats"
    return Outcome("pass", worst, tolerances.other_shape, reason, details=details)

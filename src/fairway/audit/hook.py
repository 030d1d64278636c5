"""H, hook consistency: the distribution shown for a target does not know the target, and is what the score used."""

import math
import time

import numpy as np

from fairway.audit.finding import Witness
from fairway.audit.future import gaps
from fairway.audit.probes import candidates, probe_entries
from fairway.audit.runner import FLOAT32, Outcome, Runner, Sheet, Tolerances, audit_test
from fairway.audit.scorer import Distributional
from fairway.audit.streams import AuditStream
from fairway.audit.witness import Case

SHEET = Sheet(
    "H",
    "hook consistency",
    ("normalised", "causal"),
    "largest disagreement in nats between distributions shown for different targets, or between one and the score",
    "a hook that shows another distribution than the score uses for tokens other than the target: read it with S",
    "The prediction shown for a place depends on the token that stands there, does not add up to one, or is not what the "
    "score counts. A decoder needs one whole prediction before it knows the token.",
)
TRIES = 8
FEWEST_PROBES = 2


@audit_test(SHEET)
def hook_consistency(
    runner: Runner,
    stream: AuditStream,
    *,
    seed: int = 0,
    probes: int = 12,
    tolerances: Tolerances = FLOAT32,
    deadline: float = math.inf,
) -> Outcome:
    """``dist(x with x_t := v, t)`` is the same for all ``v``, sums to one, and ``-dist[x_t]`` is the score.

    Args:
        runner: The scorer, with whole distributions.
        stream: The text.
        seed: Seed of targets and tokens.
        probes: Number of targets.
        tolerances: ``same_shape`` between distributions, ``hook`` to the score, ``total`` for the sum.
        deadline: Moment of ``time.perf_counter`` after which no further target is begun, once two are done.

    Source: rules of the challenge, test H.
    """
    if not isinstance(runner.scorer, Distributional):
        return Outcome("not applicable", 0.0, 0.0, "the scorer shows no distributions")
    worst = 0.0
    entries = [entry for entry in probe_entries(stream, probes, seed) if not runner.is_given(stream, entry)]
    nats = runner.nats(stream.tokens, stream.meta())
    shown = runner.distributions(stream.tokens, stream.meta(), np.array(entries))
    done = 0
    for entry, original in zip(entries, shown, strict=True):
        if done >= FEWEST_PROBES and time.perf_counter() > deadline:
            break
        done += 1
        found = _sum_and_score(stream, entry, original, float(nats[entry]), tolerances)
        if isinstance(found, Outcome):
            return found
        worst = max(worst, found)
        for token in candidates(stream, entry, TRIES + 1, seed, np.argsort(-original, kind="stable")):
            changed = stream.tokens.copy()
            changed[entry + 1] = token
            other = runner.distributions(changed, stream.meta(), np.array([entry]))[0]
            gap = float(gaps(original, other).max())
            if gap > tolerances.same_shape:
                return _gated(stream, entry, token, original, other, tolerances)
    return Outcome("pass", worst, tolerances.hook, f"{done} distributions are the same whatever their target is")


def _sum_and_score(stream: AuditStream, entry: int, shown: np.ndarray, nats: float, tolerances: Tolerances) -> Outcome | float:
    case = Case(stream.tokens, stream.meta()).to_dict()
    total, target = float(np.exp(shown).sum()), int(stream.tokens[entry + 1])
    if not abs(total - 1.0) <= tolerances.total:
        witness = Witness(
            entry, {"compare": "normalisation", "first": case}, 1.0, total, "sum of the probabilities that the hook shows"
        )
        reason = f"the distribution of target {entry + 1} sums to {total:.6g}"
        return Outcome("fail", abs(total - 1.0), tolerances.total, reason, witness)
    gap = float(gaps(-shown[[target]], np.array([nats]))[0])
    if gap > tolerances.hook * max(1.0, nats):
        content = {"compare": "hook", "second_is": "score", "first": case, "second": case, "token": target}
        how = f"nats of token {target} by the distribution shown, and by the score"
        witness = Witness(entry, content, float(-shown[target]), nats, how)
        reason = f"target {entry + 1} costs {nats:.6g} nats, the distribution shown says {-shown[target]:.6g}"
        return Outcome("fail", gap, tolerances.hook, reason, witness)
    return gap


def _gated(
    stream: AuditStream, entry: int, token: int, original: np.ndarray, other: np.ndarray, tolerances: Tolerances
) -> Outcome:
    """The distribution is another one when the target is: both targets, and the token whose probability moves most."""
    gap = gaps(original, other)
    moved, target = int(np.where(np.isfinite(gap), gap, 0.0).argmax()), int(stream.tokens[entry + 1])
    changed = stream.tokens.copy()
    changed[entry + 1] = token
    content = {
        "compare": "hook",
        "second_is": "distribution",
        "first": Case(stream.tokens, stream.meta()).to_dict(),
        "second": Case(changed, stream.meta()).to_dict(),
        "token": moved,
        "substituted": [target, token],
    }
    how = f"nats of token {moved} in the distribution shown while the target is {target}, and while it is {token}"
    witness = Witness(entry, content, float(-original[moved]), float(-other[moved]), how)
    reason = (
        f"the distribution of target {entry + 1} depends on the target: token {moved} costs {-original[moved]:.6g} nats when "
        f"{target} is to come and {-other[moved]:.6g} when it is {token}"
    )
    return Outcome("fail", float(gap[moved]), tolerances.same_shape, reason, witness)

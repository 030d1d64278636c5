"""S, substitution sum: the probabilities of all tokens that could stand at one place add up to one."""

import math
import time

import numpy as np
from jaxtyping import Float64, Int64

from fairway.audit.finding import Witness
from fairway.audit.future import gaps
from fairway.audit.probes import candidates, probe_entries
from fairway.audit.runner import FLOAT32, Outcome, Runner, Sheet, Tolerances, audit_test
from fairway.audit.scorer import Distributional
from fairway.audit.shrink import latest_start
from fairway.audit.streams import AuditStream
from fairway.audit.witness import Case

SHEET = Sheet(
    "S",
    "substitution sum",
    ("normalised", "causal", "score before update"),
    "largest |sum over v of exp(-nats(v)) - 1| at a probed target",
    "breaches at targets that were not probed, and dependence on text that never changes",
    "Other tokens were tried in one place, and the probabilities claimed for them do not add up to one, or are not those of "
    "the prediction that was shown. So they are not parts of one prediction, made before the token was known.",
)
FEWEST_PROBES = 4
SMALL_VOCABULARY = 64
"""Up to here every token is tried; beyond, a hook names the tokens worth trying."""
TRIED = 12
"""Tokens tried at a target of a large vocabulary."""


@audit_test(SHEET)
def substitution_sum(
    runner: Runner,
    stream: AuditStream,
    *,
    seed: int = 0,
    probes: int = 16,
    tolerances: Tolerances = FLOAT32,
    most_runs: int = 50_000,
    deadline: float = math.inf,
) -> Outcome:
    """``S_t = sum over v of exp(-nats_t(x with x_t := v))``, the rest of the stream held; a distribution gives 1.

    With a vocabulary beyond 64 and a hook, the whole distribution ``q`` is asked once per target, must sum to one, and the
    score of likely, repeated and random tokens must be ``-ln q``. Without a hook all tokens are tried while ``most_runs``
    lasts; a part of the vocabulary whose sum is above one is proof enough.

    Args:
        runner: The scorer.
        stream: The text; targets are chosen where contexts repeat, documents begin and chunks end.
        seed: Seed of the choice.
        probes: Number of targets; fewer than four leave a pass undecided.
        tolerances: ``total`` applies.
        most_runs: Runs that the test may cost.
        deadline: Moment of ``time.perf_counter`` after which no further target is begun, once four are done.

    Source: rules of the challenge, test S.
    """
    hook = stream.vocab_size > SMALL_VOCABULARY and isinstance(runner.scorer, Distributional)
    each = TRIED + 1 if hook else stream.vocab_size
    entries = probe_entries(stream, min(probes, max(1, most_runs // each)), seed)
    tried = stream.vocab_size if not hook and each <= most_runs else min(TRIED if hook else most_runs, stream.vocab_size)
    worst, sums = 0.0, {}
    for entry in entries:
        if len(sums) >= FEWEST_PROBES and time.perf_counter() > deadline:
            break
        if runner.is_given(stream, entry):
            continue
        tokens = np.arange(stream.vocab_size)
        shown = None
        if hook:
            shown = runner.distributions(stream.tokens, stream.meta(), np.array([entry]))[0]
        if tried < stream.vocab_size:
            likely = np.argsort(-shown, kind="stable") if shown is not None else np.zeros(0, dtype=np.int64)
            tokens = np.array(candidates(stream, entry, tried, seed, likely))
        probabilities = _substituted(runner, stream, entry, tokens)
        total, off = _judge(probabilities, tokens, shown, tried == stream.vocab_size)
        sums[str(entry)] = total
        worst = max(worst, off)
        if off > tolerances.total:
            if shown is not None:
                return _hook_breach(stream, entry, tokens, probabilities, shown, tolerances)
            return _sum_breach(runner, stream, entry, tokens, probabilities, tolerances)
    if tried < stream.vocab_size and not hook:
        reason = f"only {tried} of {stream.vocab_size} tokens could be tried at a target; give a hook or more time"
        return Outcome("undecided", worst, tolerances.total, reason, details={"sums": sums})
    if len(sums) < FEWEST_PROBES:
        return Outcome("undecided", worst, tolerances.total, f"only {len(sums)} targets were probed", details={"sums": sums})
    what = f"{tried} likely and random tokens agree with a distribution that sums to 1" if hook else "all tokens sum to 1"
    return Outcome("pass", worst, tolerances.total, f"{what} at {len(sums)} targets", details={"sums": sums})


def _substituted(
    runner: Runner, stream: AuditStream, entry: int, tokens: Int64[np.ndarray, " tried"]
) -> Float64[np.ndarray, " tried"]:
    """``exp(-nats)`` of the entry with each token as its target."""
    found = np.empty(len(tokens))
    for place, token in enumerate(tokens):
        changed = stream.tokens.copy()
        changed[entry + 1] = token
        found[place] = np.exp(-runner.nats(changed, stream.meta())[entry])
    return found


def _judge(
    probabilities: Float64[np.ndarray, " tried"],
    tokens: Int64[np.ndarray, " tried"],
    shown: Float64[np.ndarray, " vocab"] | None,
    whole: bool,
) -> tuple[float, float]:
    """The sum, and how far it is from what a distribution allows.

    With a hook the untried tokens take the probability that it shows, and every tried one must agree with it.
    """
    total = float(probabilities.sum())
    if shown is None:
        return total, abs(total - 1.0) if whole else max(0.0, total - 1.0)
    total += float(np.delete(np.exp(shown), tokens).sum())
    return total, max(abs(total - 1.0), float(_disagreement(probabilities, shown[tokens]).max()))


def _disagreement(probabilities: Float64[np.ndarray, " tried"], shown: Float64[np.ndarray, " tried"]) -> np.ndarray:
    """Nats between scores and the distribution shown, relative above one nat."""
    with np.errstate(divide="ignore"):
        nats = -np.log(probabilities)
    return gaps(nats, -shown) / np.maximum(1.0, np.minimum(nats, -shown))


def _sum_breach(
    runner: Runner,
    stream: AuditStream,
    entry: int,
    tokens: Int64[np.ndarray, " tried"],
    probabilities: Float64[np.ndarray, " tried"],
    tolerances: Tolerances,
) -> Outcome:
    """The sum in the whole stream, and as witness the shortest stream in which it is wrong in the same direction.

    A stream cut down to where nothing is learned yet can sum to less than one although the whole sums to far more, so what
    is kept must lie on the same side of one and have at least half of the excess.
    """
    excess, part, start, shown = float(probabilities.sum()) - 1.0, stream, 0, probabilities

    def fails(candidate: AuditStream, first: int) -> bool:
        kept = float(_substituted(runner, candidate, entry - first, tokens).sum()) - 1.0
        return kept * math.copysign(1.0, excess) >= max(0.5 * abs(excess), tolerances.total)

    if len(tokens) <= 4 * SMALL_VOCABULARY:
        short = stream.part(0, entry + 2)
        base = short if fails(short, 0) else stream
        start = latest_start(entry, base, runner.scorer, lambda first: fails(base.part(first, len(base.tokens)), first))
        part = base.part(start, len(base.tokens))
        shown = _substituted(runner, part, entry - start, tokens)
    pair, costs = _likeliest(tokens, shown), _costs(tokens, shown)
    content = {
        "compare": "sum",
        "first": Case(part.tokens, part.meta()).to_dict(),
        "substituted": pair,
        "tried": tokens.tolist(),
        "nats": costs,
    }
    how = (
        f"target {entry - start + 1} replaced by each of {len(tokens)} tokens, such as {pair[0]} and {pair[1]}; "
        "exp(-nats) summed, which for a distribution gives 1"
    )
    named = ", ".join(
        f"{token} ({_costs(tokens, probabilities)[str(token)] or 0.0:.4f} nats)" for token in _likeliest(tokens, probabilities)
    )
    reason = f"at target {entry + 1} the substitutions {named} and the others sum to {1.0 + excess:.6g} instead of 1"
    witness = Witness(entry - start, content, 1.0, float(shown.sum()), how)
    return Outcome("fail", abs(excess), tolerances.total, reason, witness, {"full_stream_position": entry})


def _likeliest(tokens: Int64[np.ndarray, " tried"], probabilities: Float64[np.ndarray, " tried"]) -> list[int]:
    """The two tokens with the largest probabilities; ties in the order of the tokens, whatever the machine's sort."""
    return tokens[np.argsort(-probabilities, kind="stable")[:2]].tolist()


def _costs(tokens: Int64[np.ndarray, " tried"], probabilities: Float64[np.ndarray, " tried"]) -> dict[str, float | None]:
    """Token -> nats; None where the probability is zero."""
    return {str(int(token)): float(-np.log(p)) if p > 0 else None for token, p in zip(tokens, probabilities, strict=True)}


def _hook_breach(
    stream: AuditStream,
    entry: int,
    tokens: Int64[np.ndarray, " tried"],
    probabilities: Float64[np.ndarray, " tried"],
    shown: Float64[np.ndarray, " vocab"],
    tolerances: Tolerances,
) -> Outcome:
    """The token whose score is furthest from the distribution shown, or the distribution that does not sum to one."""
    claimed, case = np.exp(shown), Case(stream.tokens, stream.meta())
    wrong = _disagreement(probabilities, shown[tokens])
    total = float(claimed.sum() - claimed[tokens].sum() + probabilities.sum())
    reason = f"at target {entry + 1} the scores of {len(tokens)} tokens and the hook's values of the others sum to {total:.6g}"
    if wrong.max() <= tolerances.total:
        content = {"compare": "normalisation", "first": case.to_dict()}
        witness = Witness(entry, content, 1.0, total, "sum of the probabilities that the hook shows")
        return Outcome("fail", abs(total - 1.0), tolerances.total, reason, witness)
    worst = int(wrong.argmax())
    token = int(tokens[worst])
    changed = stream.tokens.copy()
    changed[entry + 1] = token
    content = {
        "compare": "hook",
        "second_is": "score",
        "first": case.to_dict(),
        "second": Case(changed, stream.meta()).to_dict(),
        "token": token,
        "substituted": [int(stream.tokens[entry + 1]), token],
        "sum": total,
    }
    expected, found = float(-shown[token]), float(-np.log(max(probabilities[worst], 1e-300)))
    how = (
        f"nats of token {token} by the distribution shown while token {stream.tokens[entry + 1]} stood there, and by the score"
    )
    witness = Witness(entry, content, expected, found, how)
    return Outcome("fail", float(wrong.max()), tolerances.total, reason, witness)

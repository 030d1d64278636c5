"""U, incompressible stream: nobody beats the distribution that the text was drawn from, but for luck."""

import numpy as np

from fairway.audit.finding import Witness
from fairway.audit.order import coding_order
from fairway.audit.runner import Outcome, Runner, Sheet, audit_test
from fairway.audit.streams import AuditStream
from fairway.audit.witness import Case

SHEET = Sheet(
    "U",
    "incompressible stream",
    ("causal", "normalised", "score before update"),
    "nats below the source's own cost, at the beginning of the stream where that is largest",
    "breaches that do not pay on these sources, above all where the scorer's base is far from them",
    "Random text, drawn with known odds, costs less by the score than those odds allow, by more than luck explains. So "
    "the score has seen what it was to predict, or counts too little.",
)
LUCK_NATS = 20.0
"""A valid scorer gains this much by luck with probability below e**-20 = 2e-9."""


@audit_test(SHEET)
def incompressible_stream(runner: Runner, *streams: AuditStream, luck: float = LUCK_NATS) -> Outcome:
    """``gain = max over beginnings of sum(source nats - nats)``; for any valid scorer ``P(gain >= k) <= e**-k``.

    The probability ratio of two sequential distributions is a martingale of mean one, so the bound holds for the largest
    gain over all beginnings in the order of coding at once, not only for the whole stream.

    Args:
        runner: The scorer.
        streams: Streams of known source cost.
        luck: Largest gain in nats that is put down to luck.

    Source: rules of the challenge, test U; Ville's inequality.
    """
    best, gains, witness, reason = -np.inf, {}, None, ""
    for stream in streams:
        assert stream.source_nats is not None, "the stream's source must be known"
        nats = runner.nats(stream.tokens, stream.meta())
        order = coding_order(runner.scorer, stream.meta())
        running = np.cumsum((stream.source_nats - nats)[order])
        end = int(running.argmax())
        gain = float(running[end])
        gains[stream.name] = {"targets": stream.targets, "gain_nats": gain, "whole_stream_gain_nats": float(running[-1])}
        if gain > best:
            best, coded = gain, order[: end + 1]
            cost = float(stream.source_nats[coded].sum())
            content = {"compare": "total", "first": Case(stream.tokens, stream.meta()).to_dict(), "order": coded.tolist()}
            how = f"nats of the first {end + 1} targets coded: under the {stream.name} source, and by the score"
            witness = Witness(-1, content, cost, float(nats[coded].sum()), how)
            reason = (
                f"{end + 1} targets of the {stream.name} source cost {cost:.1f} nats there and {cost - gain:.1f} by the score"
            )
    if not streams:
        return Outcome("not applicable", 0.0, luck, "no stream of a known source was given")
    if best > luck:
        return Outcome("fail", best, luck, f"{reason}: {best:.1f} nats of luck", witness, gains)
    return Outcome(
        "pass", best, luck, f"the score never gains more than {max(best, 0.0):.1f} nats on its source", details=gains
    )

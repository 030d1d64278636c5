"""D, lossless decoding: the text comes back from coded bytes and the scorer alone, in as many bits as the score claims."""

import math
from collections.abc import Callable, Iterator
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float64, Int64

from fairway.audit.finding import Witness
from fairway.audit.online import told
from fairway.audit.order import coding_order
from fairway.audit.runner import FLOAT32, Outcome, Runner, Sheet, Tolerances, audit_test
from fairway.audit.scorer import Distributional, Meta, Scorer, Stepwise
from fairway.audit.streams import AuditStream
from fairway.audit.witness import Case
from fairway.base.errors import ArtifactError
from fairway.score.token_coder import TokenDecoder, TokenEncoder

SHEET = Sheet(
    "D",
    "lossless decoding",
    ("causal", "normalised", "score before update", "single pass"),
    "coded bits beyond nats / ln 2; infinite where the text did not come back",
    "what is in the artifact, the bytes, time and size",
    "The text was written down with the score's own predictions and read back, and it did not come back or took more bits "
    "than the score claims. So the score is not a size in which this text can be stored.",
)
FIXED_BITS = 80.0
"""Coded bits beyond the claim that do not grow with the text: the coder's last words."""
BITS_PER_TARGET = 0.002
"""Coded bits beyond the claim per target: what 24-bit probabilities cost, and float32 sums."""
FIXED_NATS = 1e-3
"""Difference of two sums of nats that needs no explanation."""
FEWEST_TARGETS = 64


@runtime_checkable
class Codable(Protocol):
    """A scorer with a coder of its own."""

    def code(
        self, tokens: Int64[np.ndarray, " targets_plus_1"], meta: Meta
    ) -> tuple[Int64[np.ndarray, " targets_plus_1"], float, float]:
        """Encode, decode from the bits alone in fresh state, and return what came back, the coded bits, and the nats."""
        ...


@audit_test(SHEET)
def lossless_decoding(runner: Runner, stream: AuditStream, *, tolerances: Tolerances = FLOAT32) -> Outcome:
    """Encode with one walk of the scorer, decode with another that has the bits alone; compare text and length.

    A stepwise scorer walks by itself. One that shows distributions is asked for one target after the other, with a constant
    token in place of all that is not decoded yet, so that both sides feed equal shapes. Token ids are coded in two steps by
    a range coder with 24-bit probabilities.

    Args:
        runner: A scorer that is stepwise, shows distributions, or is ``Codable``.
        stream: The text.
        tolerances: ``other_shape`` per target between the nats of the walk and those of the score.

    Source: rules of the challenge, test D.
    """
    scorer = runner.scorer
    if not isinstance(scorer, Codable | Stepwise | Distributional):
        return Outcome("not applicable", 0.0, 0.0, "the scorer shows no distributions that could be coded with")
    case = Case(stream.tokens, stream.meta())
    claimed = float(runner.nats(case.tokens, case.meta).sum())
    allowed = FIXED_BITS + BITS_PER_TARGET * stream.targets
    if isinstance(scorer, Codable):
        decoded, bits, walked = scorer.code(case.tokens.copy(), case.meta)
    else:
        decoded, bits, walked = code_and_decode(scorer, case)
    runner.runs += 2
    details = {"coded_bits": bits, "claimed_bits": claimed / math.log(2), "walked_nats": walked, "targets": stream.targets}
    content = {"compare": "decoding", "first": case.to_dict()}
    wrong = np.flatnonzero(decoded != stream.tokens)
    if len(wrong):
        place = int(wrong[0])
        how = "token that was coded, and token that came back"
        witness = Witness(place - 1, content, float(stream.tokens[place]), float(decoded[place]), how)
        reason = f"the text did not come back: token {place} is {stream.tokens[place]} and was decoded as {decoded[place]}"
        return Outcome("fail", float("inf"), allowed, reason, witness, details)
    excess = bits - claimed / math.log(2)
    if excess > allowed:
        witness = Witness(-1, content, claimed / math.log(2), bits, "bits by the score, and bits of the coded text")
        reason = f"the text came back, but took {bits:.0f} bits where the score claims {claimed / math.log(2):.0f}"
        return Outcome("fail", excess, allowed, reason, witness, details)
    slack = tolerances.other_shape * stream.targets + FIXED_NATS
    if walked - claimed > slack:
        how = "nats of the distributions that coded the text, and nats of the score"
        reason = f"the text was coded at {walked:.6g} nats where the score claims {claimed:.6g}"
        witness = Witness(-1, content, walked, claimed, how)
        return Outcome("fail", (walked - claimed) / math.log(2), slack / math.log(2), reason, witness, details)
    if stream.targets < FEWEST_TARGETS:
        return Outcome("undecided", excess, allowed, f"{stream.targets} targets are too few for the constant", details=details)
    reason = f"{stream.targets} targets came back exactly from {bits:.0f} bits; the score claims {claimed / math.log(2):.1f}"
    return Outcome("pass", excess, allowed, reason, details=details)


Distribution = Float64[np.ndarray, " vocab"]


def code_and_decode(scorer: Scorer, case: Case) -> tuple[np.ndarray, float, float]:
    """What a decoder makes of the coded text (-1 after a failure), the coded bits, and the nats of the distributions used."""
    order = coding_order(scorer, case.meta)
    encoder, nats = TokenEncoder(), 0.0
    for entry, row, tell in _walk(scorer, case, order):
        token = int(case.tokens[entry + 1])
        encoder.encode(token, torch.from_numpy(row))
        nats -= float(row[token])
        tell(token)
    words = encoder.words
    decoder = TokenDecoder(words)
    blank = np.zeros_like(case.tokens)
    blank[0] = case.tokens[0]
    decoded = np.full_like(case.tokens, -1)
    decoded[0] = case.tokens[0]
    for entry, row, tell in _walk(scorer, Case(blank, case.meta), order):
        try:
            token = decoder.decode(torch.from_numpy(row))
        except ArtifactError:
            break
        decoded[entry + 1] = token
        tell(token)
    return decoded, 32.0 * len(words), nats


def _walk(
    scorer: Scorer, case: Case, order: Int64[np.ndarray, " targets"]
) -> Iterator[tuple[int, Distribution, Callable[[int], None]]]:
    """Entry after entry: its distribution, and what to call with its token; nothing else of the text is used."""
    meta = told(scorer, case.meta)
    if isinstance(scorer, Stepwise):
        session = scorer.start(int(case.tokens[0]), meta)
        for entry in order.tolist():
            yield entry, np.asarray(session.propose(), dtype=np.float64), session.reveal
        return
    assert isinstance(scorer, Distributional)
    known = np.zeros_like(case.tokens)
    known[0] = case.tokens[0]
    # The array must be as long as the text, so a scorer that reads its number of targets off it cannot be told otherwise.
    full = Meta(case.meta.targets, meta.document_starts)
    for entry in order.tolist():
        row = np.asarray(scorer.distributions(known.copy(), full, np.array([entry])), dtype=np.float64)[0]

        def tell(token: int, place: int = entry + 1) -> None:
            known[place] = token

        yield entry, row, tell

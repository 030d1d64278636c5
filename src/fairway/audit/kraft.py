"""K, Kraft enumeration: over all streams of a tiny alphabet, claimed probabilities add up to one."""

from typing import Protocol, runtime_checkable

import numpy as np

from fairway.audit.finding import Witness
from fairway.audit.runner import FLOAT32, FREE_NATS, Outcome, Runner, Sheet, Tolerances, audit_test
from fairway.audit.scorer import Meta, Scorer
from fairway.audit.streams import MARKER, SMALLEST_MARKED
from fairway.audit.witness import every_stream

SHEET = Sheet(
    "K",
    "Kraft enumeration",
    ("causal", "normalised", "score before update", "single pass"),
    "|sum over all streams of exp(-nats) - 1|",
    "what happens only at full size, and what is in the artifact",
    "Over all texts of a tiny alphabet, the probabilities that the score claims do not add up to one. If they add up to "
    "more, the score promises to tell more texts apart than its bits have room for, and some could never be decoded.",
)
LARGEST_VOCABULARY = 4
MOST_STREAMS = 1024


@runtime_checkable
class Miniature(Protocol):
    """A scorer of any vocabulary that can show the same mechanisms on a tiny one."""

    def miniature(self, vocab_size: int) -> Scorer:
        """The same pass with every mechanism on, over ``vocab_size`` tokens."""
        ...


@audit_test(SHEET)
def kraft_enumeration(
    runner: Runner, *, documents: tuple[int, int] = (4, 5), tolerances: Tolerances = FLOAT32, most_streams: int = MOST_STREAMS
) -> Outcome:
    """``kappa = sum over x in V^n of exp(-sum_t nats_t(x))``: 1 for any code; above 1 no decoder can exist.

    The streams have two documents, the longer one later, whose starts are given from the side. A scorer that charges
    nothing for declared markers has them held in place, for there the token is known.

    Args:
        runner: A scorer of at most four tokens, or one that offers a ``Miniature``.
        documents: Lengths in tokens; the first token of the first is given. Shortened to keep to ``most_streams``.
        tolerances: ``total`` applies.
        most_streams: Runs that the test may cost.

    Source: rules of the challenge, test K.
    """
    scorer = runner.scorer
    if scorer.vocab_size > LARGEST_VOCABULARY and isinstance(scorer, Miniature):
        runner.scorer = scorer = scorer.miniature(2)
    vocab = scorer.vocab_size
    if vocab > LARGEST_VOCABULARY:
        return Outcome("not applicable", 0.0, 0.0, f"{vocab} tokens are too many to enumerate; at most {LARGEST_VOCABULARY}")
    targets = min(sum(documents) - 1, int(np.log(most_streams) / np.log(vocab) + 1e-9))
    starts = (0, min(documents[0], targets - 1))
    fixed = _held(runner, vocab, targets, starts)
    total = 0.0
    for tokens in every_stream(vocab, targets, fixed):
        total += float(np.exp(-runner.nats(tokens, Meta(targets, starts)).sum()))
    off = abs(total - 1.0)
    streams = vocab ** (targets - len(fixed))
    details = {"streams": streams, "vocab_size": vocab, "targets": targets, "document_starts": list(starts), "sum": total}
    if off <= tolerances.total:
        return Outcome("pass", off, tolerances.total, f"the probabilities of all {streams} streams sum to 1", details=details)
    content = {
        "compare": "kraft",
        "vocab_size": vocab,
        "targets": targets,
        "document_starts": list(starts),
        "fixed": {str(place): token for place, token in fixed.items()},
    }
    witness = Witness(-1, content, 1.0, total, f"exp(-nats) summed over all {streams} streams of {targets} targets")
    what = "no decoder can follow such a score" if total > 1 else "probability is lost: the score is not that of a distribution"
    return Outcome("fail", off, tolerances.total, f"all {streams} streams sum to {total:.6g}; {what}", witness, details)


def _held(runner: Runner, vocab: int, targets: int, starts: tuple[int, ...]) -> dict[int, int]:
    """Declared markers that cost nothing whatever stands there."""
    if "documents" not in runner.scorer.declares or vocab >= SMALLEST_MARKED:
        return {}
    tokens = np.full(targets + 1, min(MARKER, vocab - 1))
    nats = runner.nats(tokens, Meta(targets, starts))
    return {start: int(tokens[start]) for start in starts if start > 0 and nats[start - 1] <= FREE_NATS}

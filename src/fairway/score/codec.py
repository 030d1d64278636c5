"""Coding text with a predictor: the driver's walk with a file in place of the ledger's word.

Encoding and decoding are the same walk over the same plan as scoring, one window at a time. The encoder has the text and
writes each target with the distribution that the predictor gave it. The decoder has only the file: in every window it asks
the predictor once per target, with the unknown rest of the window filled by a constant token, reads the target, writes it
into the window and asks again. Shapes are equal on both sides, so a causal predictor gives bit-equal distributions, and what
comes out is the text. It cannot come out if a prediction used its own target, later text, or unnormalised mass.
"""

from collections.abc import Callable, Iterable
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float32, Int, UInt32
from torch import Tensor

from fairway.base.errors import ArtifactError
from fairway.score.driver import checked_distributions, cost, cut, score, scored_inputs
from fairway.score.lanes import LanePlan, LaneRows, coding_order, cut_rows, decoded_order, in_coding_order, in_stream_order
from fairway.score.ledger import Ledger
from fairway.score.plan import Block, Windows
from fairway.score.predictor import Predictor
from fairway.score.token_coder import TokenDecoder, TokenEncoder

Progress = Callable[[int], None]
"""Told the number of targets done so far."""


def silent(targets: int) -> None:
    """Report no progress."""


class EncodedText:
    """Known text that is written to an encoder while it is priced."""

    def __init__(self, tokens: Int[Tensor, " targets_plus_1"], progress: Progress = silent) -> None:
        """Args: tokens: the stream, on the CPU; token 0 is given, the rest are written; progress: told how many are."""
        self.tokens = tokens
        self.progress = progress
        self.encoder = TokenEncoder()

    def price(self, predictor: Predictor, windows: Windows, frontier: int) -> Float32[np.ndarray, " targets"]:
        """Write the targets of one window and return their nats."""
        batch = cut(self.tokens, _single(windows), frontier)
        log_probabilities = checked_distributions(predictor, batch)[0].cpu()
        first = int(batch.starts[0]) + batch.first_scored
        targets = self.tokens[first + 1 : first + 1 + len(log_probabilities)]
        for target, row in zip(targets.tolist(), log_probabilities, strict=True):
            self.encoder.encode(target, row)
        self.progress(first + len(targets))
        return cost(log_probabilities.gather(-1, targets[:, None])).flatten().numpy()

    def price_rows(
        self, predictor: Predictor, rows: LaneRows, before: LaneRows, frontier: int
    ) -> Float32[np.ndarray, " targets"]:
        """Write the targets of one row, as many as it has, and return their nats."""
        batch, inside = cut_rows(self.tokens, _single(rows), before, frontier)
        log_probabilities = checked_distributions(predictor, batch)[0].cpu()[: int(inside.sum())]
        targets = self.tokens[rows.begin + 1 : rows.begin + 1 + len(log_probabilities)]
        for target, row in zip(targets.tolist(), log_probabilities, strict=True):
            self.encoder.encode(target, row)
        self.progress(rows.begin + len(targets))
        return cost(log_probabilities.gather(-1, targets[:, None])).flatten().numpy()


class DecodedText:
    """Text that comes out of a decoder target by target."""

    def __init__(self, words: UInt32[np.ndarray, " words"], first: int, targets: int, progress: Progress = silent) -> None:
        """Begin with the given token.

        Args:
            words: What an `EncodedText` wrote.
            first: Token 0 of the stream, which is not coded.
            targets: Number of targets.
            progress: Called with the number of targets read so far.
        """
        self.progress = progress
        self.tokens = torch.zeros(targets + 1, dtype=torch.int64)
        self.tokens[0] = first
        self.decoder = TokenDecoder(words)

    def price(self, predictor: Predictor, windows: Windows, frontier: int) -> Float32[np.ndarray, " targets"]:
        """Read the targets of one window, each after a prediction that has only the text before it."""
        inputs = scored_inputs(_single(windows)).tolist()
        nats = np.zeros(len(inputs), dtype=np.float32)
        for column, entry in enumerate(inputs):
            batch = cut(self.tokens, windows, frontier, entry + 1)
            row = checked_distributions(predictor, batch)[0, column].cpu()
            token = self.decoder.decode(row)
            self.tokens[entry + 1] = token
            self.progress(entry + 1)
            nats[column] = cost(row[token]).item()
        return nats

    def price_rows(
        self, predictor: Predictor, rows: LaneRows, before: LaneRows, frontier: int
    ) -> Float32[np.ndarray, " targets"]:
        """Read the targets of one row, until the row says that it is over."""
        (only,) = _single(rows).rows
        nats: list[float] = []
        while len(nats) < only.reach(self.tokens, rows.begin)[0]:
            entry = rows.begin + len(nats)
            batch, _ = cut_rows(self.tokens, rows, before, frontier, entry + 1)
            row = checked_distributions(predictor, batch)[0, len(nats)].cpu()
            token = self.decoder.decode(row)
            self.tokens[entry + 1] = token
            self.progress(entry + 1)
            nats.append(cost(row[token]).item())
        return np.array(nats, dtype=np.float32)


def encode(
    predictor: Predictor,
    tokens: Int[Tensor, " targets_plus_1"],
    ledger: Ledger,
    plan: Iterable[Block] | LanePlan,
    progress: Progress = silent,
) -> UInt32[np.ndarray, " words"]:
    """Write the targets of ``tokens`` in the order of ``plan``; ``ledger`` gets what they should cost.

    Raises:
        ValidityError: as ``driver.score``.
    """
    if isinstance(plan, LanePlan):
        order = coding_order(plan, tokens)
        source, walked = EncodedText(in_coding_order(tokens, order), progress), Ledger(ledger.byte_costs[order])
        score(predictor, source, walked, plan, windows_per_forward=1)
        ledger.commit(order, walked.nats)
    else:
        source = EncodedText(tokens, progress)
        score(predictor, source, ledger, plan, windows_per_forward=1)
    return source.encoder.words


def decode(
    predictor: Predictor,
    words: UInt32[np.ndarray, " words"],
    first: int,
    targets: int,
    plan: Iterable[Block] | LanePlan,
    progress: Progress = silent,
) -> Int[Tensor, " targets_plus_1"]:
    """Read back what `encode` wrote with an equal predictor and plan.

    Raises:
        ArtifactError: the words do not belong to this predictor and plan.
    """
    source = DecodedText(words, first, targets, progress)
    ledger = Ledger(np.zeros(targets, dtype=np.uint16))
    score(predictor, source, ledger, plan, windows_per_forward=1)
    if not isinstance(plan, LanePlan):
        return source.tokens
    if ledger.committed != targets:
        raise ArtifactError(f"the coded text ends after {ledger.committed} of its {targets} targets; it is damaged")
    return in_stream_order(source.tokens, decoded_order(plan, source.tokens))


Single = TypeVar("Single", Windows, LaneRows)


def _single(windows: Single) -> Single:
    assert len(windows) == 1, "a coder walks one window at a time"
    return windows

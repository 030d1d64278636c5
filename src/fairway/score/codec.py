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
from jaxtyping import Float, Float32, Int, UInt32
from torch import Tensor

from fairway.base.errors import ArtifactError
from fairway.score.driver import checked_distributions, cost, cut, score, scored_inputs, target_costs, walk
from fairway.score.lanes import LanePlan, LaneRows, cut_rows, decoded_order, in_stream_order
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
        return self._write(log_probabilities, int(batch.starts[0]) + batch.first_scored)

    def price_rows(
        self, predictor: Predictor, rows: LaneRows, before: LaneRows, frontier: int
    ) -> Float32[np.ndarray, " targets"]:
        """Write the targets of one row, as many as it has, and return their nats."""
        batch, inside = cut_rows(self.tokens, _single(rows), before, frontier)
        log_probabilities = checked_distributions(predictor, batch)[0].cpu()[: int(inside.sum())]
        return self._write(log_probabilities, rows.begin)

    def _write(self, log_probabilities: Float[Tensor, "targets vocab"], begin: int) -> Float32[np.ndarray, " targets"]:
        """Write the targets from entry ``begin`` on."""
        targets = self.tokens[begin + 1 : begin + 1 + len(log_probabilities)]
        for target, row in zip(targets.tolist(), log_probabilities, strict=True):
            self.encoder.encode(target, row)
        self.progress(begin + len(targets))
        return target_costs(log_probabilities, targets).numpy()


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
            nats[column] = self._read(checked_distributions(predictor, batch)[0, column].cpu(), entry)
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
            nats.append(self._read(checked_distributions(predictor, batch)[0, len(nats)].cpu(), entry))
        return np.array(nats, dtype=np.float32)

    def _read(self, log_probabilities: Float[Tensor, " vocab"], entry: int) -> float:
        """Read one target and return its nats."""
        token = self.decoder.decode(log_probabilities)
        self.tokens[entry + 1] = token
        self.progress(entry + 1)
        return cost(log_probabilities[token]).item()


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
    source = walk(predictor, tokens, ledger, plan, lambda text: EncodedText(text, progress), windows_per_forward=1)
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

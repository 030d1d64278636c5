"""The n-gram tilt of documents that take turns: hints in the order of coding, or those of PR #2140 in that of the stream."""

import numpy as np
import torch
from jaxtyping import Float, Float64, Int, Int32
from torch import Tensor

from fairway.base.errors import ValidityError
from fairway.config import TiltConfig
from fairway.score.hints import HintScanner, Native
from fairway.score.predictor import LaneBatch, Predictor, Revealed, RevealedLanes, Turn, WindowBatch
from fairway.score.tilt import tilt_at


class TurnTiltedPredictor:
    """Another predictor's distributions, tilted toward what the same context was followed by in text coded before.

    At every turn the scan goes on after the last tokens of that turn's document and of no other; everything that was coded
    before, in whatever document, has been counted. Text is read as soon as a batch shows it as coded.
    """

    def __init__(self, inner: Predictor, config: TiltConfig, *, targets: int, native: Native = "auto") -> None:
        """Wrap a predictor that has observed nothing yet.

        Args:
            inner: Where the distributions come from.
            config: What is counted, and how strongly it tilts.
            targets: Targets of the text, as for `HintScanner`.
            native: Whether native code may or must be used.
        """
        self.inner = inner
        self.scanner = HintScanner(config, targets=targets, vocab_size=inner.vocab_size, native=native, resumes=True)
        self.frontier = 0
        self._forget()

    def _forget(self) -> None:
        self.shown = np.empty(0, np.uint16)
        self.hints = np.empty(0, np.int32)
        self.strengths = np.empty(0, np.float64)
        self.begun = 0

    @property
    def vocab_size(self) -> int:
        """Entries of a distribution."""
        return self.inner.vocab_size

    def predict(self, batch: WindowBatch) -> Float[Tensor, "rows scored vocab"]:
        """The inner predictor's log-probabilities, tilted; columns whose input is not coded yet keep theirs.

        Raises:
            ValidityError: the coded text is not a continuation of what was shown before.
        """
        assert isinstance(batch, LaneBatch), "turns are those of a lane plan"
        self._read(batch.coded, batch.coded_start, batch.turns)
        return tilt_at(self.inner.predict(batch), _entries(batch) - self.frontier, self.hints, self.strengths)

    def observe(self, block: Revealed) -> None:
        """Read what no batch has shown, the last target included, and hand the block on."""
        if isinstance(block, RevealedLanes):
            self._read(block.tokens[:-1], block.start, block.turns)
            self.scanner.push(_ids(block.tokens[-1:]))
            self.frontier += len(block.tokens) - 1
            self._forget()
        self.inner.observe(block)

    def _read(self, coded: Int[Tensor, " coded"], start: int, turns: tuple[Turn, ...]) -> None:
        """Push what is new of the text from the frontier on, turn by turn; entry ``k`` has a hint once token ``k`` is known."""
        tokens, shared = _ids(coded), min(len(coded), len(self.shown))
        if start != self.frontier or not np.array_equal(tokens[:shared], self.shown[:shared]):
            raise ValidityError(
                f"coded text from entry {start} on is not what was shown from entry {self.frontier} on; a scan cannot take "
                "tokens back, start a new one"
            )
        for number, turn in enumerate(turns):
            if number < self.begun - 1:
                continue
            end = turns[number + 1].begin - start if number + 1 < len(turns) else len(tokens)
            if number == self.begun:
                # The turn before ends with a target that is no input of its own rows.
                if number:
                    self.scanner.push(tokens[turn.begin - start :][:1])
                hint, strength = self.scanner.resume(turn.recent.astype(np.uint16))
                self._keep(np.array([hint], np.int32), np.array([strength]))
                self.begun += 1
            new = tokens[len(self.hints) : end]
            if len(new):
                self._keep(*self.scanner.push(new))
        if len(tokens) > len(self.shown):
            self.shown = tokens

    def _keep(self, hints: Int32[np.ndarray, " n"], strengths: Float64[np.ndarray, " n"]) -> None:
        self.hints, self.strengths = np.concatenate([self.hints, hints]), np.concatenate([self.strengths, strengths])


class PublishedTiltedPredictor:
    """The tilt of PR #2140: hints made beforehand, in the order of the stream, for targets that are coded in another order.

    A document's hints then come from documents that are coded after it, which no decoder has.
    """

    def __init__(
        self, inner: Predictor, hints: Int32[np.ndarray, " targets"], strengths: Float64[np.ndarray, " targets"]
    ) -> None:
        """Args: inner: Where the distributions come from. hints, strengths: of every target in the order of coding."""
        self.inner, self.hints, self.strengths = inner, hints, strengths

    @property
    def vocab_size(self) -> int:
        """Entries of a distribution."""
        return self.inner.vocab_size

    def predict(self, batch: WindowBatch) -> Float[Tensor, "rows scored vocab"]:
        """The inner predictor's log-probabilities, tilted."""
        return tilt_at(self.inner.predict(batch), _entries(batch), self.hints, self.strengths)

    def observe(self, block: Revealed) -> None:
        """Hand the block on."""
        self.inner.observe(block)


def _entries(batch: WindowBatch) -> np.ndarray:
    return (batch.starts.cpu()[:, None] + torch.arange(batch.first_scored, batch.inputs.shape[1])).numpy()


def _ids(tokens: Int[Tensor, " tokens"]) -> np.ndarray:
    return tokens.cpu().numpy().astype(np.uint16)

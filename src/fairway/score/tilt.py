"""The n-gram tilt: a predictor that makes the token suggested by the coded text likelier.

    p'(v) = p(v) exp(s [v = h]) / Z,    Z = 1 + p(h) (exp(s) - 1)

with hint h and strength s >= 0 from the n-gram scan of all text before the predicted token. Z is exact for any p that sums to
one, because a single term of the sum changes; a right hint saves at most s nats and a wrong one costs at most s.
Source: PR #1145, #1557 and #2140.
"""

import numpy as np
import torch
from jaxtyping import Float, Float64, Int, Int32, Int64
from torch import Tensor

from fairway.base.errors import DataError, ValidityError
from fairway.config import TiltConfig
from fairway.score.hints import HintScanner, Native
from fairway.score.hints_flags import TokenFlags
from fairway.score.predictor import Predictor, Revealed, WindowBatch


def tilt(
    log_probabilities: Float[Tensor, "*shape vocab"], hints: Int[Tensor, "*shape"], strengths: Float64[Tensor, "*shape"]
) -> Float[Tensor, "*shape vocab"]:
    """Re-weight one token of each distribution; where the strength is 0 nothing changes, bit for bit.

    The normaliser is computed in float64, from one gathered value per distribution.

    Args:
        log_probabilities: Normalised, in nats.
        hints: Token to favour; ignored where the strength is 0.
        strengths: Log-odds added to the hint, >= 0, in nats.
    """
    index = hints.clamp_min(0)[..., None]
    hinted = log_probabilities.gather(-1, index).double()
    strength = strengths[..., None]
    log_normaliser = torch.log1p(hinted.clamp_max(0.0).exp() * torch.expm1(strength))
    tilted = log_probabilities - log_normaliser.to(log_probabilities.dtype)
    return tilted.scatter_(-1, index, (hinted + strength - log_normaliser).to(log_probabilities.dtype))


def tilt_at(
    log_probabilities: Float[Tensor, "rows scored vocab"],
    places: Int64[np.ndarray, "rows scored"],
    hints: Int32[np.ndarray, " known"],
    strengths: Float64[np.ndarray, " known"],
) -> Float[Tensor, "rows scored vocab"]:
    """`tilt` by the hints at ``places``; distributions whose place has none yet stay as they are."""
    coded = places < len(hints)
    if not coded.any():
        return log_probabilities
    known = np.where(coded, places, 0)
    strong = np.where(coded, strengths[known], 0.0)
    if not strong.any():
        return log_probabilities
    device = log_probabilities.device
    return tilt(
        log_probabilities, torch.from_numpy(hints[known].astype(np.int64)).to(device), torch.from_numpy(strong).to(device)
    )


class TiltedPredictor:
    """Another predictor's distributions, tilted toward what the same context was followed by before.

    The scan runs over the stream's tokens whatever the windows are; BOS is an ordinary token, so contexts reach across
    documents. Text is read as soon as a batch shows it as coded, which is before the block that holds it is observed; hints
    are kept by position until then. A prediction depends on the text up to its input alone.
    """

    def __init__(
        self,
        inner: Predictor,
        config: TiltConfig,
        *,
        targets: int,
        flags: TokenFlags | None = None,
        native: Native = "auto",
    ) -> None:
        """Wrap a predictor that has observed nothing yet.

        Args:
            inner: Where the distributions come from.
            config: What is counted, and how strongly it tilts.
            targets: Targets of the stream, as for `HintScanner`.
            flags: Facts about tokens, for the word experts.
            native: Whether native code may or must be used.

        Raises:
            RecipeError, DataError, MachineError: see `HintScanner`.
        """
        self.inner = inner
        self.scanner = HintScanner(config, targets=targets, vocab_size=inner.vocab_size, flags=flags, native=native)
        self.frontier = 0
        self.shown = np.empty(0, np.uint16)
        self.hints = np.empty(0, np.int32)
        self.strengths = np.empty(0, np.float64)

    @property
    def vocab_size(self) -> int:
        """Entries of a distribution."""
        return self.inner.vocab_size

    def predict(self, batch: WindowBatch) -> Float[Tensor, "rows scored vocab"]:
        """The inner predictor's log-probabilities, tilted; columns whose input is not coded yet keep theirs.

        Raises:
            ValidityError: the coded text is not a continuation of what was shown before, or a scored position was already
                observed.
        """
        self._read(batch.coded, batch.coded_start)
        columns = batch.starts.cpu()[:, None] + torch.arange(batch.first_scored, batch.inputs.shape[1])
        places = columns.numpy() - self.frontier
        if places.size and places.min() < 0:
            raise ValidityError(
                f"a distribution is asked for at input {int(columns.min())}, but the text up to input {self.frontier} was "
                "observed; predict a block before it is observed"
            )
        return tilt_at(self.inner.predict(batch), places, self.hints[: len(batch.coded)], self.strengths[: len(batch.coded)])

    def observe(self, block: Revealed) -> None:
        """Read what no batch has shown, forget the hints of the block, and hand it on.

        Raises:
            ValidityError: the block is not what was shown as coded, or does not begin where the last one ended.
        """
        inputs = block.tokens[:-1]
        self._read(inputs, block.start)
        self.frontier += len(inputs)
        self.shown, self.hints, self.strengths = (array[len(inputs) :] for array in (self.shown, self.hints, self.strengths))
        self.inner.observe(block)

    def _read(self, coded: Int[Tensor, " coded"], start: int) -> None:
        """Push what is new of the text that begins at the frontier."""
        tokens = coded.cpu().numpy()
        if start != self.frontier:
            raise ValidityError(
                f"coded text begins at input {start}, but the text up to input {self.frontier} was observed; "
                "show the text from there on"
            )
        shared = min(len(tokens), len(self.shown))
        changed = np.flatnonzero(tokens[:shared] != self.shown[:shared])
        if len(changed):
            place = int(changed[0])
            raise ValidityError(
                f"input {start + place} is {int(tokens[place])}, but was {int(self.shown[place])} when it was shown as coded; "
                "a scan cannot take tokens back, start a new one"
            )
        new = tokens[shared:]
        if not len(new):
            return
        if int(new.min()) < 0 or int(new.max()) >= self.vocab_size:
            raise DataError(f"a token is outside the vocabulary of {self.vocab_size}; use the tokenizer of the model")
        hints, strengths = self.scanner.push(new.astype(np.uint16))
        self.shown = np.concatenate([self.shown, new.astype(np.uint16)])
        self.hints = np.concatenate([self.hints, hints])
        self.strengths = np.concatenate([self.strengths, strengths])

"""Tokens to bytes and back, under distributions that both sides compute.

A token id is coded in two steps, its group of neighbouring ids and its place in the group, each by the range coder of
``constriction`` with 24-bit probabilities. A step over ``n`` symbols keeps ``n / 2^24`` of its mass so that every symbol can
be coded; two steps over ``sqrt(V)`` symbols cost 1.6e-5 bits per token at V = 8,192, where one step would cost 7e-4.
"""

import math
from typing import Any

import numpy as np
from jaxtyping import Float, UInt32
from torch import Tensor

from fairway.artifact.frequencies import stream
from fairway.base.errors import ArtifactError


def group_size(vocab_size: int) -> int:
    """Ids per group, about the square root of the vocabulary: ``ceil(sqrt(V))``."""
    return math.isqrt(vocab_size - 1) + 1


class TokenEncoder:
    """Writes token ids, first in first out."""

    def __init__(self) -> None:
        self._coder = stream.queue.RangeEncoder()

    def encode(self, token: int, log_probabilities: Float[Tensor, " vocab"]) -> None:
        """Append a token that had these natural-log probabilities."""
        mass = _masses(log_probabilities)
        group, place = divmod(token, mass.shape[1])
        for symbol, shares in ((group, mass.sum(axis=1)), (place, mass[group])):
            if len(shares) > 1:
                self._coder.encode(symbol, _model(shares))

    @property
    def words(self) -> UInt32[np.ndarray, " words"]:
        """What has been written, complete to be decoded."""
        return self._coder.get_compressed()


class TokenDecoder:
    """Reads token ids in the order in which they were written."""

    def __init__(self, words: UInt32[np.ndarray, " words"]) -> None:
        self._coder = stream.queue.RangeDecoder(words)

    def decode(self, log_probabilities: Float[Tensor, " vocab"]) -> int:
        """The next token, which was written with the same natural-log probabilities.

        Raises:
            ArtifactError: the words were not written with these distributions.
        """
        mass = _masses(log_probabilities)
        group = self._symbol(mass.sum(axis=1))
        token = group * mass.shape[1] + self._symbol(mass[group])
        if token >= len(log_probabilities):
            raise ArtifactError(f"the coded text names token {token} of {len(log_probabilities)}; the file is damaged")
        return token

    def _symbol(self, shares: np.ndarray) -> int:
        if len(shares) == 1:
            return 0
        try:
            return int(self._coder.decode(_model(shares)))
        except AssertionError as error:
            raise ArtifactError(f"the coded text is damaged, or was coded with another arithmetic ({error})") from None


def _masses(log_probabilities: Float[Tensor, " vocab"]) -> np.ndarray:
    """Probabilities in float64 as rows of groups; the places beyond the vocabulary have none."""
    size = group_size(len(log_probabilities))
    mass = np.zeros(size * -(-len(log_probabilities) // size))
    mass[: len(log_probabilities)] = np.exp(log_probabilities.double().cpu().numpy())
    return mass.reshape(-1, size)


def _model(shares: np.ndarray) -> Any:
    """A coder's model; a group that has no mass at all is taken as uniform, so that it can be coded still."""
    total = shares.sum()
    shares = shares / total if total > 0 else np.full(len(shares), 1 / len(shares))
    return stream.model.Categorical(shares, perfect=False)

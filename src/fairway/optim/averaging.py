"""Exponential moving average of the weights: the weights that are packed and scored."""

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from fairway.base.errors import DataError
from fairway.optim import foreach


class WeightAverage:
    """Float32 average of every parameter, ``e <- decay e + (1 - decay) w`` after each step, starting at the first weights.

    There is no correction for the start: after ``k`` steps the first weights still count ``decay ** k``.

    Source: PR #1394.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        """Start the average at the model's present weights.

        Args:
            model: The network; buffers are not averaged.
            decay: Share of the average that survives a step; 0 keeps a copy of the last weights.
        """
        self.decay = decay
        self.parameters = dict(model.named_parameters())
        self.averages = {name: weight.detach().float().clone() for name, weight in self.parameters.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights after an optimizer step."""
        weights = [weight.float() for weight in self.parameters.values()]
        foreach.move_towards_(list(self.averages.values()), weights, 1 - self.decay)

    def averaged_state(self) -> dict[str, Tensor]:
        """The averages by parameter name, each rounded to its parameter's type (bfloat16 where the embedding is)."""
        return {name: self.averages[name].to(weight.dtype, copy=True) for name, weight in self.parameters.items()}

    @contextlib.contextmanager
    def swap(self) -> Iterator[None]:
        """Put the averages into the network for the length of a ``with`` block, then the raw weights back, bit by bit."""
        raw = {name: weight.detach().clone() for name, weight in self.parameters.items()}
        self._assign(self.averages)
        try:
            yield
        finally:
            self._assign(raw)

    @torch.no_grad()
    def _assign(self, values: Mapping[str, Tensor]) -> None:
        for name, weight in self.parameters.items():
            weight.copy_(values[name])

    def state_dict(self) -> dict[str, Tensor]:
        """The averages by parameter name, float32; the tensors are the live ones."""
        return dict(self.averages)

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Replace the averages; bit-exact.

        Raises:
            DataError: the names are not those of this network's parameters.
        """
        if state.keys() != self.averages.keys():
            odd = sorted(state.keys() ^ self.averages.keys())
            raise DataError(f"averaged weights do not match the network at {odd[0]}; resume with the recipe that wrote them")
        for name, average in self.averages.items():
            average.copy_(state[name])

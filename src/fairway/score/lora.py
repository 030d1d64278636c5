"""Low-rank adapters of documents: lane after lane side by side, one pair (A, B) for every lane, site and block application.

    y' = y + (alpha / rank) * B A x,    A: rank x in,    B: out x rank

``x`` is what the site's branch read (for ``output`` and ``mlp`` too), ``y`` what the map made of it. A begins uniform in
``+-1 / sqrt(in)``, B at zero, so an adapter begins as nothing. Lanes share no number: a batch of them is exactly as many
documents computed alone, but for the order of floating-point sums. Source: PR #1530, #1855, #2140.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from fairway.config import DocumentAdaptationConfig, ModelConfig
from fairway.model.step import Adapt, Site

EPSILON = 1e-10
"""Added to the root of the mean square. PR #1530."""

Draw = Callable[[], dict[Site, Float[Tensor, "applications lanes rank inputs"]]]
"""A fresh A for every lane of every site."""


class Pair(NamedTuple):
    """A and B of one site, or what belongs to them number by number."""

    a: Float[Tensor, "applications lanes rank inputs"]
    b: Float[Tensor, "applications lanes outputs rank"]


def site_widths(model: ModelConfig) -> dict[Site, tuple[int, int]]:
    """Inputs and outputs of every site."""
    width, keys = model.width, model.kv_heads * model.head_width
    return {
        "query": (width, width),
        "key": (width, keys),
        "value": (width, keys),
        "output": (width, width),
        "mlp": (width, width),
        "head": (width, model.vocab_size),
    }


def seeded_draw(config: DocumentAdaptationConfig, model: ModelConfig, applications: int) -> Draw:
    """A that is the same in all lanes and at every draw, so that it depends on ``config.seed`` alone.

    Lanes never meet, so nothing is lost by beginning alike, and a document that starts from a fresh A has the same result in
    whatever lane and round it is.
    """

    def draw() -> dict[Site, Tensor]:
        generator = torch.Generator().manual_seed(config.seed)
        drawn: dict[Site, Tensor] = {}
        for site, (inputs, _) in site_widths(model).items():
            if site in config.sites:
                shape = (1 if site == "head" else applications, 1, config.rank, inputs)
                values = (2 * torch.rand(shape, generator=generator) - 1) * inputs**-0.5
                drawn[site] = values.expand(-1, config.lanes, -1, -1)
        return drawn

    return draw


class Adapters:
    """The adapters of all lanes with the state of their AdamW, whose beta1 is 0."""

    def __init__(
        self, config: DocumentAdaptationConfig, model: ModelConfig, device: torch.device, dtype: torch.dtype, draw: Draw
    ) -> None:
        """Draw the first A.

        Args:
            config: Rank, sites and optimizer.
            model: Widths of the network.
            device: Where to keep them.
            dtype: Their type: float32, or float64 beside such a network.
            draw: Where A comes from.
        """
        self.config, self.draw, self.device, self.dtype = config, draw, device, dtype
        self.scale = config.alpha / config.rank
        self.outputs = {site: outputs for site, (_, outputs) in site_widths(model).items()}
        self.pairs: dict[Site, Pair] = {}
        self.squares: dict[Site, Pair] = {}
        self.steps = 0
        self.renew()

    def renew(self) -> None:
        """Draw A anew and forget everything else."""
        for site, drawn in self.draw().items():
            a = drawn.to(self.device, self.dtype).clone()
            b = a.new_zeros(a.shape[0], a.shape[1], self.outputs[site], a.shape[2])
            self.pairs[site] = Pair(a, b)
            self.squares[site] = Pair(torch.zeros_like(a), torch.zeros_like(b))
        self.steps = 0

    def restart(self) -> None:
        """Begin with other documents: B and the optimizer's state at zero, A as it is, or drawn anew without warm start."""
        if not self.config.warm_start:
            self.renew()
            return
        for site, pair in self.pairs.items():
            for tensor in (pair.b, *self.squares[site]):
                tensor.zero_()
        self.steps = 0

    def of_lanes(self, lanes: Sequence[int]) -> dict[Site, Pair]:
        """The adapters of some lanes, one after the other; all of them in order are not copied."""
        count = next(iter(self.pairs.values())).a.shape[1]
        if list(lanes) == list(range(count)):
            return dict(self.pairs)
        index = torch.tensor(lanes, device=self.device)
        return {site: Pair(pair.a[:, index], pair.b[:, index]) for site, pair in self.pairs.items()}

    def step(self, lanes: Sequence[int], gradients: dict[Site, Pair], decay_only: Sequence[int] = ()) -> None:
        """One step of AdamW with beta1 = 0 on some lanes: no lane learns from another's gradient.

        ``v <- beta2 v + (1 - beta2) g^2``; ``p <- p (1 - rate decay) - rate g / (sqrt(v / (1 - beta2^t)) + 1e-10)``, where
        ``t`` counts the steps since the documents began.

        Args:
            lanes: Lanes that have a gradient.
            gradients: Their gradients, in the same order.
            decay_only: Lanes whose document has ended and whose A decays still, as it did where an optimizer stepped over all
                rows of a batch. PR #2140.
        """
        config = self.config
        self.steps += 1
        shrink, correction = 1 - config.learning_rate * config.weight_decay, 1 - config.beta2**self.steps
        index = torch.tensor(lanes, device=self.device)
        for site, gradient in gradients.items():
            for values, squares, slope in zip(self.pairs[site], self.squares[site], gradient, strict=True):
                square = squares[:, index].mul_(config.beta2).addcmul_(slope, slope, value=1 - config.beta2)
                squares[:, index] = square
                step = slope / (square.div(correction).sqrt_().add_(EPSILON))
                values[:, index] = values[:, index].mul_(shrink).sub_(step, alpha=config.learning_rate)
        if len(decay_only):
            rest = torch.tensor(decay_only, device=self.device)
            for pair in self.pairs.values():
                for values in pair:
                    values[:, rest] *= shrink


def adapts(pairs: dict[Site, Pair], scale: float, applications: int) -> tuple[list[Adapt], Adapt]:
    """What the network wants: a callable for every block application, and one for the head."""
    body: list[Adapt] = []
    for k in range(applications):
        own: dict[Site, Pair] = {site: Pair(a[k], b[k]) for site, (a, b) in pairs.items() if site != "head"}
        body.append(partial(_adapted, own, scale))
    head: dict[Site, Pair] = {site: Pair(a[0], b[0]) for site, (a, b) in pairs.items() if site == "head"}
    return body, partial(_adapted, head, scale)


def _adapted(pairs: dict[Site, Pair], scale: float, site: Site, x: Tensor, y: Tensor) -> Tensor:
    if site not in pairs:
        return y
    a, b = (matrix.to(x.dtype) for matrix in pairs[site])
    return y + torch.bmm(torch.bmm(x, a.mT), b.mT) * scale

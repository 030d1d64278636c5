"""Score-first adaptation: after each scored chunk, a few epochs of SGD or AdamW on it (PR #1413)."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from fairway.config import AdaptationConfig
from fairway.model.gpt import GPT
from fairway.score.neural import NeuralPredictor
from fairway.score.predictor import Revealed, WindowBatch
from fairway.train.distributed import ONE_RANK, Ranks


def cosine_rate(peak: float, chunk: int, chunks: int) -> float:
    """Step size of a chunk: ``peak / 2 * (1 + cos(pi * chunk / max(chunks - 1, 1)))``. PR #1413."""
    return 0.5 * peak * (1.0 + math.cos(math.pi * chunk / max(chunks - 1, 1)))


def adapting_parameters(model: nn.Module, frozen_blocks: int) -> list[nn.Parameter]:
    """Mark what adapts and return it: what training moves, but for ``blocks.0.*`` to ``blocks.{frozen_blocks - 1}.*``.

    Frozen parameters need no gradient from here on, so none is computed for them; backward still passes through their
    blocks on its way to the embedding, which adapts. Names decide, so a matrix that is a view of a bank is frozen too,
    where PR #1533 and #1557, whose matrices live outside their blocks, would freeze the vectors alone.

    Args:
        model: The network.
        frozen_blocks: Leading blocks that stay as they are; 0 for none.

    Source: PR #1776 (9 of 11 blocks; 9,973,776 parameters adapt).
    """
    frozen = tuple(f"blocks.{layer}." for layer in range(frozen_blocks))
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(parameter.requires_grad and not name.startswith(frozen))
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def make_optimizer(parameters: list[nn.Parameter], config: AdaptationConfig) -> torch.optim.Optimizer:
    """The optimizer of the adaptation, its state empty; the rate of each chunk is set before its steps.

    ``sgd``: ``v <- momentum * v + g``, ``theta <- theta - rate * v``. ``adamw``: the usual betas 0.9 and 0.999, epsilon 1e-8
    and bias correction, with decay ``theta <- theta - rate * weight_decay * theta``. Source: PR #1413; PR #1533.
    """
    if config.optimizer == "adamw":
        return torch.optim.AdamW(
            parameters, lr=config.learning_rate, betas=(0.9, 0.999), eps=1e-8, weight_decay=config.weight_decay
        )
    return torch.optim.SGD(parameters, lr=config.learning_rate, momentum=config.momentum)


class AdaptedPredictor:
    """A network whose weights follow the text: after each chunk, steps of SGD or AdamW on the clipped gradient.

    The gradient is that of the mean cross-entropy over rows of ``context`` tokens of the revealed chunk, in order, the
    remainder of the chunk left out. The optimizer's state lives on over epochs and chunks. The number of chunks, which sets
    the cosine, is declared side information: it depends on the length of the text alone.
    """

    def __init__(
        self,
        model: GPT,
        config: AdaptationConfig,
        *,
        context: int,
        chunks: int,
        rows_per_forward: int,
        ranks: Ranks = ONE_RANK,
    ) -> None:
        """Take over ``model``, whose weights change from now on.

        Args:
            model: The network; give a copy if its weights are needed afterwards.
            config: Optimizer, epochs, rate, clip, rows per step, frozen blocks.
            context: Tokens of a training row.
            chunks: Number of chunks of the whole plan.
            rows_per_forward: Rows per forward pass; more rows in a step accumulate gradients.
            ranks: Ranks that share the rows of a step; the step is the same for any number of them.
        """
        self.inner = NeuralPredictor(model)
        self.config = config
        self.context = context
        self.chunks = chunks
        self.rows_per_forward = rows_per_forward
        self.ranks = ranks
        self.observed = 0
        self.steps = 0
        self.parameters = adapting_parameters(model, config.frozen_blocks)
        self.optimizer = make_optimizer(self.parameters, config)

    @property
    def vocab_size(self) -> int:
        """Entries of a distribution."""
        return self.inner.vocab_size

    def predict(self, batch: WindowBatch) -> Float[Tensor, "rows scored vocab"]:
        """Log-probabilities under the current weights."""
        return self.inner.predict(batch)

    def observe(self, block: Revealed) -> None:
        """Train on a scored chunk; the last one is left out, since no target follows that could gain from it."""
        if self.observed + 1 >= self.chunks:
            return
        rate = cosine_rate(self.config.learning_rate, self.observed, self.chunks)
        self.observed += 1
        rows = (len(block.tokens) - 1) // self.context
        if rows == 0:
            return
        used = block.tokens[: rows * self.context + 1]
        inputs = used[:-1].view(rows, self.context)
        targets = used[1:].view(rows, self.context)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        for _ in range(self.config.epochs):
            for first in range(0, rows, self.config.sequences_per_step):
                stop = first + self.config.sequences_per_step
                self._step(inputs[first:stop], targets[first:stop])

    @torch.enable_grad()
    def _step(self, inputs: Int[Tensor, "rows context"], targets: Int[Tensor, "rows context"]) -> None:
        """One step on the mean over all rows, wherever they are computed; a rank without a row adds zeros."""
        model, rows = self.inner.model, len(inputs)
        self.optimizer.zero_grad(set_to_none=True)
        first, stop = self.ranks.share(rows)
        for begin in range(first, stop, self.rows_per_forward):
            part = slice(begin, min(begin + self.rows_per_forward, stop))
            loss = model(inputs[part].to(self.inner.device), targets[part].to(self.inner.device), recurrent=True)
            (loss * (len(inputs[part]) / rows)).backward()
        self.ranks.sum_gradients_(self.parameters)
        if self.config.gradient_clip > 0:
            torch.nn.utils.clip_grad_norm_(self.parameters, self.config.gradient_clip)
        self.optimizer.step()
        self.steps += 1

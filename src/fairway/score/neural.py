"""A fixed network as a predictor: the plain and the sliding pass."""

import torch
from jaxtyping import Float
from torch import Tensor

from fairway.model.gpt import GPT
from fairway.score.predictor import Revealed, WindowBatch


class NeuralPredictor:
    """``p(next) = softmax(logits(window))`` with constant weights and recurrence on."""

    def __init__(self, model: GPT) -> None:
        """Args: model: the network, on its device; its weights are read, never changed."""
        self.model = model

    @property
    def vocab_size(self) -> int:
        """Entries of a distribution."""
        return self.model.config.vocab_size

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.model.embedding.weight.device

    @torch.no_grad()
    def predict(self, batch: WindowBatch) -> Float[Tensor, "rows scored vocab"]:
        """Log-probabilities at the scored positions; the head runs only there, which is most of the cost of a small stride."""
        hidden = self.model.hidden(batch.inputs.to(self.device), recurrent=True)
        return self.model.logits(hidden[:, batch.first_scored :]).log_softmax(-1)

    def observe(self, block: Revealed) -> None:
        """Nothing: constant weights learn nothing."""

"""A fixed network as a predictor: the plain and the sliding pass."""

import torch
from jaxtyping import Float
from torch import Tensor

from fairway.data.packed_documents import document_segments
from fairway.kernels.attention import Segments
from fairway.model.gpt import GPT
from fairway.score.predictor import Revealed, WindowBatch


class NeuralPredictor:
    """``p(next) = softmax(logits(window))`` with constant weights and recurrence on.

    With ``longest``, windows are packed rows: attention stays within documents, and within stretches of ``longest`` inputs from
    where a document, or the window, begins. Source: PR #2140.
    """

    def __init__(self, model: GPT, longest: int | None = None) -> None:
        """Take the network.

        Args:
            model: The network, on its device; its weights are read, never changed.
            longest: Longest stretch of attention in a packed row, in inputs; None for windows that attend to all of themselves.
        """
        self.model, self.longest = model, longest

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
        if self.longest is None:
            return self._scored(batch.inputs, batch.first_scored, None)
        rows = []
        for row in batch.inputs:
            segments = document_segments(row, self.longest, device=self.device)
            rows.append(self._scored(row[None], batch.first_scored, segments))
        return torch.cat(rows)

    def _scored(self, inputs: Tensor, first: int, segments: Segments | None) -> Tensor:
        hidden = self.model.hidden(inputs.to(self.device), recurrent=True, segments=segments)
        return self.model.logits(hidden[:, first:]).log_softmax(-1)

    def observe(self, block: Revealed) -> None:
        """Nothing: constant weights learn nothing."""

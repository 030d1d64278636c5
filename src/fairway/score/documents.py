"""Adaptation per document: adapters learn a document chunk by chunk, and phases train the network on scored documents."""

import torch
from jaxtyping import Float
from torch import Tensor

from fairway.base.errors import ValidityError
from fairway.config import DocumentAdaptationConfig
from fairway.model.gpt import GPT
from fairway.model.step import Site
from fairway.score.lora import Adapters, Draw, Pair, adapts, seeded_draw
from fairway.score.phase import train_phase
from fairway.score.predictor import LaneBatch, Revealed, RevealedLanes, RevealedText, WindowBatch
from fairway.train.distributed import ONE_RANK, Ranks


class DocumentPredictor:
    """A network with adapters per lane: each chunk of a document is predicted, then learnt, then the next is predicted.

    After a chunk the adapters take one step on the sum of ``-ln p`` over the chunk, divided by its size, with gradients through
    the whole window. A lane whose document ended learns no more. When the last document of a round has ended, B and the
    optimizer begin anew, and A stays (warm start). Source: PR #1530, #1855, #2140.
    """

    def __init__(
        self,
        model: GPT,
        config: DocumentAdaptationConfig,
        *,
        ended_decay: bool = False,
        keep_graph: bool = False,
        ranks: Ranks = ONE_RANK,
        draw: Draw | None = None,
    ) -> None:
        """Take over ``model``, whose weights a phase changes.

        Args:
            model: The network; give a copy if its weights are needed afterwards.
            config: Adapters and phases.
            ended_decay: Whether A of a lane that has ended decays until its round is over, as in PR #2140.
            keep_graph: Learn from the forward pass that scored where it held all rows, instead of computing it again: a third
                less work, and more memory. Coding has no such pass.
            ranks: Ranks that share lanes and the rows of a phase.
            draw: Where a fresh A comes from; by default the seed of ``config``.
        """
        self.model, self.config, self.ranks = model, config, ranks
        self.ended_decay, self.keep_graph = ended_decay, keep_graph
        self.trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        model.requires_grad_(False)
        self.applications = model.schedules[True].applications
        weight = model.embedding.weight
        dtype = torch.promote_types(weight.dtype, torch.float32)
        draw = draw or seeded_draw(config, model.config, self.applications)
        self.adapters = Adapters(config, model.config, weight.device, dtype, draw)
        self._kept: tuple[LaneBatch, dict[Site, Pair], Tensor] | None = None

    @property
    def vocab_size(self) -> int:
        """Entries of a distribution."""
        return self.model.config.vocab_size

    def predict(self, batch: WindowBatch) -> Float[Tensor, "rows scored vocab"]:
        """Log-probabilities of every row with the adapters of its lane.

        Raises:
            ValidityError: the rows do not say which lanes they are of.
        """
        if not isinstance(batch, LaneBatch):
            raise ValidityError("adapters per document predict rows of a lane plan; make plan and predictor with build_pass")
        self._kept = None
        if not self.keep_graph:
            with torch.no_grad():
                return self._forward(batch.inputs, batch.first_scored, self.adapters.of_lanes(batch.lanes))
        leaves = self._leaves(batch.lanes)
        with torch.enable_grad():
            found = self._forward(batch.inputs, batch.first_scored, leaves)
        self._kept = batch, leaves, found
        return found.detach()

    def observe(self, block: Revealed) -> None:
        """Learn a chunk of every document that goes on; after the last of a round, begin with others; or train the network."""
        if isinstance(block, RevealedText):
            if len(block.tokens):
                train_phase(self.model, self.trained, block.tokens, self.config, self.ranks)
            self.adapters.renew()
        elif isinstance(block, RevealedLanes):
            if block.lanes:
                self._learn(block)
            else:
                self.adapters.restart()
        self._kept = None

    def _learn(self, block: RevealedLanes) -> None:
        first, stop = self.ranks.share(self.config.lanes)
        own = [row for row, lane in enumerate(block.lanes) if first <= lane < stop]
        lanes = [block.lanes[row] for row in own]
        if lanes:
            self.adapters.step(lanes, self._gradients(block, own, lanes), self._decaying(lanes))
        else:
            self.adapters.steps += 1

    def _decaying(self, lanes: list[int]) -> list[int]:
        return [lane for lane in range(self.config.lanes) if lane not in lanes] if self.ended_decay else []

    @torch.enable_grad()
    def _gradients(self, block: RevealedLanes, own: list[int], lanes: list[int]) -> dict[Site, Pair]:
        """Gradients of ``sum over documents of (mean of -ln p over the chunk)``, for each lane in order."""
        chunk = block.targets.shape[1]
        targets = block.targets[own].to(self.adapters.device)
        kept = self._kept
        if kept is not None and set(lanes) <= set(kept[0].lanes) and kept[0].inputs.shape[1] == block.inputs.shape[1]:
            batch, leaves, found = kept
            rows = [batch.lanes.index(lane) for lane in lanes]
            assert torch.equal(batch.inputs[rows], block.inputs[own]), "what is revealed is not what was scored"
            found = found[torch.tensor(rows, device=found.device)]
        else:
            leaves, rows = self._leaves(lanes), list(range(len(lanes)))
            found = self._forward(block.inputs[own], block.inputs.shape[1] - chunk, leaves)
        loss = -found.gather(-1, targets[..., None]).sum() / chunk
        flat = [tensor for pair in leaves.values() for tensor in pair]
        slopes = iter(torch.autograd.grad(loss, flat))
        picked = torch.tensor(rows, device=self.adapters.device)
        return {site: Pair(next(slopes)[:, picked], next(slopes)[:, picked]) for site in leaves}

    def _leaves(self, lanes: "list[int] | tuple[int, ...]") -> dict[Site, Pair]:
        pairs = self.adapters.of_lanes(lanes)
        return {site: Pair(*(tensor.detach().requires_grad_() for tensor in pair)) for site, pair in pairs.items()}

    def _forward(self, inputs: Tensor, first_scored: int, pairs: dict[Site, Pair]) -> Float[Tensor, "rows scored vocab"]:
        body, head = adapts(pairs, self.adapters.scale, self.applications)
        hidden = self.model.hidden(inputs.to(self.adapters.device), recurrent=True, adapters=body)
        return self.model.logits(hidden[:, first_scored:], head).log_softmax(-1)

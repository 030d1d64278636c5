"""Muon: momentum, row normalisation and orthogonalisation for the matrices of the blocks.

One step for a matrix ``W`` of M x N (rows are outputs) with gradient ``G`` and momentum buffer ``B``:

    B <- mu B + G                          momentum, float32
    U  = G + mu B                          Nesterov
    U_i <- U_i / max(|U_i|, 1e-7)          every row to unit length (where ``row_normalize``)
    O  = orthogonalize(U)                  Newton-Schulz, by one polynomial or by one for each step
    W <- W (1 - rate decay) - rate sqrt(max(1, M / N)) O

The rate is the spectral norm of the update of a square matrix, so it does not depend on the size of the gradient.
Matrices of equal shape are orthogonalised as one batch. Several ranks share the matrices by cost and exchange the results
with one collective; the momentum is kept whole on every rank, so a state can be resumed on any number of ranks. Here every
matrix has its own storage; `fairway.optim.banked_muon` keeps them in banks. Of both, `muon_update` is the meaning.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor

from fairway.optim import foreach
from fairway.optim.newton_schulz import COEFFICIENTS, Triple, orthogonalize

ROW_FLOOR = 1e-7
"""Smallest length by which a row is divided, so that a zero row stays zero. PR #1394."""


def normalize_rows(update: Float[Tensor, "*batch rows columns"]) -> Float[Tensor, "*batch rows columns"]:
    """Scale every row to unit length: ``U_i / max(|U_i|, 1e-7)``; a row's own scale then has no say in the update."""
    return update / torch.linalg.vector_norm(update, dim=-1, keepdim=True).clamp_min(ROW_FLOOR)


def shape_factor(rows: int, columns: int) -> float:
    """``sqrt(max(1, rows / columns))``: a tall matrix takes longer steps, so that its outputs move as far."""
    return max(1.0, rows / columns) ** 0.5


def muon_update(
    weight: Float[Tensor, "rows columns"],
    gradient: Float[Tensor, "rows columns"],
    momentum: Float[Tensor, "rows columns"],
    *,
    rate: float,
    coefficient: float,
    decay: float,
    steps: int = 5,
    row_normalize: bool = True,
    coefficients: Sequence[Triple] = COEFFICIENTS["quintic"],
) -> tuple[Float[Tensor, "rows columns"], Float[Tensor, "rows columns"]]:
    """One Muon step for one matrix on one rank: the meaning of `Muon.step`. Returns the weight and the momentum."""
    momentum = coefficient * momentum + gradient
    update = gradient + coefficient * momentum
    if row_normalize:
        update = normalize_rows(update)
    update = orthogonalize(update, steps, coefficients, weight.dtype)
    return weight * (1 - rate * decay) - rate * shape_factor(*weight.shape) * update, momentum


def orthogonalization_cost(rows: int, columns: int) -> int:
    """Multiplications of one Newton-Schulz step: ``2 short^2 long + short^3``."""
    short, long = sorted((rows, columns))
    return 2 * short * short * long + short**3


def share_by_cost(costs: Sequence[int], ranks: int) -> list[int]:
    """Rank of every item, so that the dearest rank has little more than the mean: each next dearest to the least loaded."""
    load = [0] * ranks
    owner = [0] * len(costs)
    for item in sorted(range(len(costs)), key=lambda item: (-costs[item], item)):
        rank = min(range(ranks), key=lambda rank: (load[rank], rank))
        owner[item] = rank
        load[rank] += costs[item]
    return owner


class Muon(torch.optim.Optimizer):
    """Muon with momentum, optional row normalisation and decoupled decay; all matrices in one group.

    Source: Muon (arXiv 2502.16982), row normalisation as in PR #1394.
    """

    def __init__(
        self,
        matrices: Iterable[torch.nn.Parameter],
        *,
        learning_rate: float,
        momentum: float,
        weight_decay: float,
        steps: int = 5,
        row_normalize: bool = True,
        coefficients: Sequence[Triple] = COEFFICIENTS["quintic"],
        dtype: torch.dtype = torch.float32,
        world_size: int = 1,
        rank: int = 0,
    ) -> None:
        """Set up zero momentum for every matrix.

        Args:
            matrices: Float32 parameters with two dimensions, in the same order on every rank.
            learning_rate: Spectral norm of one update of a square matrix; ``param_groups[0]["lr"]`` is the scheduled one.
            momentum: Share of the buffer that survives a step; ``param_groups[0]["momentum"]`` is the scheduled one.
            weight_decay: Decoupled decay, multiplied by the scheduled learning rate.
            steps: Newton-Schulz iterations.
            row_normalize: Scale every row of the update to unit length first.
            coefficients: An entry of ``newton_schulz.COEFFICIENTS``.
            dtype: Type of the orthogonalisation, bfloat16 on a GPU.
            world_size: Ranks that hold the same weights and the same averaged gradients.
            rank: This rank.
        """
        super().__init__(matrices, {"lr": learning_rate, "momentum": momentum, "weight_decay": weight_decay})
        self.steps, self.row_normalize, self.coefficients, self.dtype = steps, row_normalize, tuple(coefficients), dtype
        self.world_size, self.rank = world_size, rank
        parameters: list[torch.nn.Parameter] = self.param_groups[0]["params"]
        for parameter in parameters:
            assert parameter.ndim == 2, f"Muon takes matrices, not a tensor of shape {tuple(parameter.shape)}"
        self._place(parameters)

    def _place(self, parameters: list[torch.nn.Parameter]) -> None:
        """Allocate the momenta and decide who orthogonalises what."""
        for parameter in parameters:
            self.state[parameter]["momentum"] = torch.zeros_like(parameter, memory_format=torch.contiguous_format)
        costs = [orthogonalization_cost(*parameter.shape) for parameter in parameters]
        self.owner = share_by_cost(costs, self.world_size)
        shapes = dict.fromkeys(tuple(parameter.shape) for parameter in parameters)
        self.stacks = [[index for index, parameter in enumerate(parameters) if tuple(parameter.shape) == s] for s in shapes]

    def shared_gradients(self) -> list[torch.nn.Parameter]:
        """Matrices whose gradients the caller must sum over ranks, like those of all other parameters: here all of them."""
        return self.param_groups[0]["params"]

    def start_reduction(self) -> None:
        """Begin to sum over ranks the gradients that are not `shared_gradients`: here none."""

    def finish_reduction(self) -> list[Tensor]:
        """This rank's part of what `start_reduction` has summed, for the joint norm and the clip: here nothing."""
        return []

    def synchronize(self) -> None:
        """Give every rank the momenta of all before a state is saved: here each rank has them."""

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Update every matrix from its ``.grad``, which must be summed over ranks already."""
        assert closure is None, "Muon evaluates no closure"
        group = self.param_groups[0]
        parameters: list[torch.nn.Parameter] = group["params"]
        gradients = [parameter.grad for parameter in parameters]
        present = [gradient for gradient in gradients if gradient is not None]
        assert len(present) == len(parameters), "every matrix needs a gradient before Muon.step"
        momenta = [self.state[parameter]["momentum"] for parameter in parameters]
        foreach.multiply_(momenta, group["momentum"])
        foreach.add_(momenta, present)
        updates = self._updates(present, momenta, group["momentum"])
        foreach.multiply_(parameters, 1 - group["lr"] * group["weight_decay"])
        for stack, update in zip(self.stacks, updates, strict=True):
            matrices = [parameters[index] for index in stack]
            scale = -group["lr"] * shape_factor(*update.shape[-2:])
            foreach.add_(matrices, update.to(matrices[0].dtype).unbind(), scale)

    def _updates(self, gradients: list[Tensor], momenta: list[Tensor], coefficient: float) -> list[Tensor]:
        """Orthogonalised Nesterov update of every stack of equal shapes, computed by the owners and known to all."""
        if self.world_size == 1:
            return [self._stacked(stack, gradients, momenta, coefficient) for stack in self.stacks]
        # Every update has its own place in one vector of zeros, so the sum over ranks adds nothing but zeros to it.
        sizes = [len(stack) * gradients[stack[0]].numel() for stack in self.stacks]
        exchange = torch.zeros(sum(sizes), dtype=self.dtype, device=gradients[0].device)
        updates = []
        for stack, part in zip(self.stacks, exchange.split(sizes), strict=True):
            update = part.view(len(stack), *gradients[stack[0]].shape)
            mine = [place for place, index in enumerate(stack) if self.owner[index] == self.rank]
            if mine:
                update[mine] = self._stacked([stack[place] for place in mine], gradients, momenta, coefficient)
            updates.append(update)
        dist.all_reduce(exchange)
        return updates

    def _stacked(self, indices: list[int], gradients: list[Tensor], momenta: list[Tensor], coefficient: float) -> Tensor:
        """`_orthogonal` of the matrices with these indices, which have one shape."""
        return self._orthogonal(
            torch.stack([gradients[index] for index in indices]),
            torch.stack([momenta[index] for index in indices]),
            coefficient,
        )

    def _orthogonal(
        self,
        gradients: Float[Tensor, "batch rows columns"],
        momenta: Float[Tensor, "batch rows columns"],
        coefficient: float,
    ) -> Float[Tensor, "batch rows columns"]:
        """Direction of the update of matrices of one shape: Nesterov, row normalisation, Newton-Schulz."""
        update = torch.add(gradients, momenta, alpha=coefficient)
        if self.row_normalize:
            update = normalize_rows(update)
        return orthogonalize(update, self.steps, self.coefficients, self.dtype)

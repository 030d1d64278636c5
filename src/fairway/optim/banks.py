"""Parameter banks: matrices of one shape stored as one tensor, so that they are orthogonalised and exchanged together.

A bank is a way to store, not a way to compute: every matrix of the network stays a parameter of its own, whose values and
gradient are views of its slot. Checkpoints, quantization, freezing and the forward pass therefore never see a bank.

With ``W`` ranks the slots are dealt in runs of ``ceil(slots / W)``. Collectives need equal runs, so the tensors that travel
are padded to ``W ceil(slots / W)`` slots. Nothing writes a padding slot; it is zero and stays zero in every sum.
"""

from collections.abc import Iterable, Sequence

import torch
from torch import nn

from fairway.optim.collectives import Work, start_all_gather, start_reduce_scatter


def shard_bounds(slots: int, world_size: int, rank: int) -> tuple[int, int]:
    """First and past-the-last real slot of ``rank``: runs of ``ceil(slots / world_size)``, the last ones short or empty."""
    share = -(-slots // world_size)
    return min(slots, share * rank), min(slots, share * (rank + 1))


class Bank:
    """Weights, gradients and momenta of matrices of one shape; slot ``i`` belongs to ``parameters[i]``."""

    def __init__(self, parameters: Sequence[nn.Parameter], *, world_size: int = 1, rank: int = 0) -> None:
        """Move the matrices into the bank: from here on their ``data`` and ``grad`` are views of it.

        Moving the network to another device or type afterwards would undo the views, so that comes first.

        Args:
            parameters: Matrices of one shape, type and device.
            world_size: Ranks that share the work on the bank.
            rank: This rank.
        """
        slots, (rows, columns) = len(parameters), parameters[0].shape
        first, last = shard_bounds(slots, world_size, rank)
        share = -(-slots // world_size)
        self.parameters, self.slots, self.live, self.world_size = list(parameters), slots, last - first, world_size
        self.weights = torch.stack([parameter.detach() for parameter in parameters])
        """(slots, rows, columns); whole on every rank."""
        self.gradients = self.weights.new_zeros(share * world_size, rows, columns)
        """(padded, rows, columns); what this rank's backward passes add up to."""
        self.momentum = torch.zeros_like(self.gradients)
        """(padded, rows, columns); with several ranks only ``own_momentum`` moves, until `start_momentum_gather`."""
        self.own_momentum = self.momentum.narrow(0, share * rank, share)
        self.shard = self.gradients if world_size == 1 else torch.zeros_like(self.own_momentum)
        """(share, rows, columns); gradients of this rank's slots, summed over ranks."""
        for slot, parameter in enumerate(self.parameters):
            parameter.data = self.weights[slot]
            parameter.grad = self.gradients[slot]
        self._places = [(view.data_ptr(), grad.data_ptr()) for view, grad in zip(self.weights, self.gradients, strict=False)]

    def holds_its_parameters(self) -> bool:
        """Whether every parameter and its gradient still lie in their slot."""
        return all(
            parameter.grad is not None and (parameter.data_ptr(), parameter.grad.data_ptr()) == place
            for parameter, place in zip(self.parameters, self._places, strict=True)
        )

    def start_reduction(self) -> Work | None:
        """Begin to sum the gradients over ranks into ``shard``; alone, ``shard`` is the gradients."""
        return start_reduce_scatter(self.gradients, self.shard) if self.world_size > 1 else None

    def start_momentum_gather(self) -> Work | None:
        """Begin to bring every rank's momenta to all ranks."""
        # A shard of its own: not every back end may read what it writes.
        return start_all_gather(self.own_momentum.clone(), self.momentum) if self.world_size > 1 else None


def make_banks(parameters: Iterable[nn.Parameter], *, world_size: int = 1, rank: int = 0) -> list[Bank]:
    """One bank per shape, the largest first, so that the longest exchange starts first and hides behind the others' work."""
    by_shape: dict[torch.Size, list[nn.Parameter]] = {}
    for parameter in parameters:
        by_shape.setdefault(parameter.shape, []).append(parameter)
    banks = [Bank(members, world_size=world_size, rank=rank) for members in by_shape.values()]
    return sorted(banks, key=lambda bank: -bank.weights.numel())

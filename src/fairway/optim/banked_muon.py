"""Muon over parameter banks, sharded over ranks: the same maths as `Muon`, with every exchange hidden behind other work.

One step of ``W`` ranks, each with the gradient of its own rows:

    reduce-scatter   of every bank's gradient, the largest bank first; meanwhile the other gradients are summed
    shard update     momentum, Nesterov, row norms and Newton-Schulz for the slots of this rank, as one batch
    all-gather       of the bank's update, while the next bank's shard update runs
    apply            decay and update of the whole bank, on every rank

A rank works on ``ceil(slots / W)`` matrices of a bank, sends its gradients once and receives every update once. The joint
clip needs the norm of all gradients, so the shard updates begin when the last reduce-scatter has ended.
"""

from collections import deque
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fairway.optim.banks import Bank, make_banks
from fairway.optim.collectives import Work, finish, start_all_gather
from fairway.optim.muon import Muon, shape_factor


class BankedMuon(Muon):
    """`Muon` whose matrices lie in one bank per shape. Gradients accumulate in the banks and are never released.

    Source: PR #1533. The published systems sum and keep momenta in bfloat16 and lose track of the momenta of other ranks;
    here both are float32 and belong to the saved state.
    """

    def _place(self, parameters: list[torch.nn.Parameter]) -> None:
        self.banks = make_banks(parameters, world_size=self.world_size, rank=self.rank)
        self._reductions: list[Work | None] = []
        for bank in self.banks:
            for parameter, momentum in zip(bank.parameters, bank.momentum, strict=False):
                self.state[parameter]["momentum"] = momentum

    def shared_gradients(self) -> list[torch.nn.Parameter]:
        """No matrix: their gradients are summed by `start_reduction`."""
        return []

    def start_reduction(self) -> None:
        """Begin to sum the gradients over ranks; every rank receives its slots."""
        self._reductions = [bank.start_reduction() for bank in self.banks]

    def finish_reduction(self) -> list[Tensor]:
        """Summed gradients of this rank's slots, one tensor per bank; together the ranks' tensors are all matrices."""
        while self._reductions:
            finish(self._reductions.pop(0))
        return [bank.shard for bank in self.banks]

    def zero_grad(self, set_to_none: bool = False) -> None:
        """Fill the gradients with zeros; they stay in their banks."""
        del set_to_none
        for bank in self.banks:
            bank.gradients.zero_()

    def synchronize(self) -> None:
        """Give every rank the momenta of all: before a state is saved. All ranks call it."""
        for work in [bank.start_momentum_gather() for bank in self.banks]:
            finish(work)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Update every matrix from the reduced gradients, which are the banks' own where there is one rank."""
        assert closure is None, "Muon evaluates no closure"
        assert all(bank.holds_its_parameters() for bank in self.banks), (
            "a matrix or its gradient has left its bank; release gradients with zero_grad of the optimizer, not of the network"
        )
        flying: deque[tuple[Bank, Tensor, Work | None]] = deque()
        for bank in self.banks:
            flying.append((bank, *self._start_update(bank)))
            if len(flying) > 1:
                self._apply(*flying.popleft())
        while flying:
            self._apply(*flying.popleft())

    def _start_update(self, bank: Bank) -> tuple[Tensor, Work | None]:
        """Orthogonalise this rank's slots and begin to gather the update of the bank, padding included."""
        coefficient = self.param_groups[0]["momentum"]
        gradient, momentum = bank.shard[: bank.live], bank.own_momentum[: bank.live]
        momentum.mul_(coefficient).add_(gradient)
        update = self._orthogonal(gradient, momentum, coefficient)
        if self.world_size == 1:
            return update, None
        padding = update.new_zeros(len(bank.shard) - bank.live, *update.shape[1:])
        whole = torch.empty_like(bank.gradients, dtype=update.dtype)
        return whole, start_all_gather(torch.cat((update, padding)), whole)

    def _apply(self, bank: Bank, update: Tensor, work: Work | None) -> None:
        """Decay and move all matrices of the bank, once its update has arrived."""
        finish(work)
        group = self.param_groups[0]
        bank.weights.mul_(1 - group["lr"] * group["weight_decay"])
        bank.weights.add_(update[: bank.slots], alpha=-group["lr"] * shape_factor(*update.shape[-2:]))

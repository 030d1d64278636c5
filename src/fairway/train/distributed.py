"""Ranks: one process per device, started by torchrun; one process alone is the same with a world of one."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from fairway.base.errors import MachineError
from fairway.optim.collectives import sum_gradients_


@dataclass(frozen=True)
class Ranks:
    """This process's number among all, and the few collectives that Fairway uses. Every call is a no-op when alone."""

    rank: int = 0
    world: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process writes files and speaks."""
        return self.rank == 0

    def share(self, items: int) -> tuple[int, int]:
        """First and past-the-last item of this rank: ``[floor(n r / W), floor(n (r + 1) / W))``."""
        return items * self.rank // self.world, items * (self.rank + 1) // self.world

    def sum_(self, tensor: Tensor) -> Tensor:
        """Add ``tensor`` over all ranks, in place."""
        if self.world > 1:
            dist.all_reduce(tensor)
        return tensor

    def sum_gradients_(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Add gradients over all ranks, in place, as one flat transfer per type; a missing gradient counts as zero."""
        if self.world > 1:
            sum_gradients_(parameters)

    def agree(self, value: float) -> float:
        """Rank 0's ``value`` on every rank, so that no rank decides by its own clock."""
        if self.world == 1:
            return value
        box = torch.tensor([value], dtype=torch.float64)
        dist.broadcast(box, src=0)
        return box.item()

    def gather(self, item: Any) -> list[Any]:
        """Every rank's ``item`` on rank 0, in order; an empty list elsewhere."""
        if self.world == 1:
            return [item]
        boxes: list[Any] | None = [None] * self.world if self.leads else None
        dist.gather_object(item, boxes)
        return boxes or []

    def barrier(self) -> None:
        """Wait for all ranks."""
        if self.world > 1:
            dist.barrier()


ONE_RANK = Ranks()


@contextmanager
def start_ranks(device_type: str) -> Iterator[Ranks]:
    """Join the process group that torchrun prepared, or be alone; leave it at the end.

    Raises:
        MachineError: torchrun started more processes on this machine than it has GPUs.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield ONE_RANK
        return
    local = int(os.environ.get("LOCAL_RANK", "0"))
    arguments: dict[str, Any] = {}
    if device_type == "cuda":
        if local >= torch.cuda.device_count():
            raise MachineError(
                f"torchrun started local rank {local} but this machine has {torch.cuda.device_count()} GPUs; "
                "lower --nproc-per-node"
            )
        torch.cuda.set_device(local)
        arguments["device_id"] = torch.device("cuda", local)
    # Small host values (clock readings, scores) travel by gloo even where gradients travel by NCCL.
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if device_type == "cuda" else "gloo", timeout=timedelta(minutes=30), **arguments
    )
    try:
        yield Ranks(dist.get_rank(), world)
    finally:
        dist.destroy_process_group()

"""What a machine offers to attention, as a value: the choice among back ends follows from it and from nothing else."""

from collections.abc import Mapping
from functools import lru_cache
from importlib.util import find_spec
from typing import NamedTuple

import torch

from fairway.kernels.attention.flash import PACKAGES, implementation_fault


class Facts(NamedTuple):
    """One device and the software around it."""

    device: str
    """Type of the device: cpu, cuda, ..."""
    capability: tuple[int, int] | None
    """Compute capability of an NVIDIA GPU; None elsewhere."""
    triton: bool
    """Whether Triton can be imported, which generates FlexAttention's GPU kernels."""
    faults: Mapping[str, str]
    """Why ``FA3`` and ``FA4`` cannot be put in the place of torch's flash kernels; empty where they can."""


@lru_cache(maxsize=16)
def look(device: torch.device) -> Facts:
    """What the machine offers on ``device``; looked up once per process."""
    nvidia = device.type == "cuda" and torch.version.hip is None
    return Facts(
        device=device.type,
        capability=torch.cuda.get_device_capability(device) if nvidia else None,
        triton=find_spec("triton") is not None,
        faults={name: implementation_fault(name, device) for name in PACKAGES},
    )

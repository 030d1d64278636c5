"""Where the fused Triton kernels run: ``fused_loss`` and ``fused_mlp`` hold them behind operators that torch.compile knows.

Without a GPU the operators compute by their plain twins, so that everything around the kernels is tested everywhere; the
kernels themselves are then run by Triton's interpreter (``TRITON_INTERPRET=1``). Not measured: no GPU was at hand.
"""

from functools import cache
from importlib.util import find_spec

import torch

from fairway.kernels.attention import Facts

DTYPES = (torch.bfloat16, torch.float16, torch.float32)
"""Types that the kernels read and write; they add in float32."""


@cache
def interpreted() -> bool:
    """Whether Triton interprets kernels on the CPU in this process instead of compiling them; for tests alone."""
    if find_spec("triton") is None:
        return False
    from triton import knobs  # pyright: ignore[reportMissingImports]

    return knobs.runtime.interpret


def missing(facts: Facts, dtype: torch.dtype) -> str:
    """What keeps the fused kernels from running; empty if nothing does.

    Args:
        facts: What the machine offers.
        dtype: Type of the activations.
    """
    if not facts.triton:
        return "needs the package triton, which is not installed"
    if facts.capability is None and not interpreted():
        return f"needs an NVIDIA GPU; the device is {facts.device}"
    if facts.capability is not None and facts.capability < (8, 0):
        major, minor = facts.capability
        return f"needs compute capability 8.0 or newer; this GPU has {major}.{minor}"
    if dtype not in DTYPES:
        return f"adds in float32, which is too little for {str(dtype).removeprefix('torch.')}"
    return ""

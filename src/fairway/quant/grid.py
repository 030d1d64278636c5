"""The integer grid: symmetric codes of 2 to 8 bits, always held as int8."""

import torch
from jaxtyping import Float, Int8
from torch import Tensor


def max_code(bits: int) -> int:
    """Largest code ``c = 2**(bits - 1) - 1``; codes lie in ``[-c, c]``, so ``-2**(bits - 1)`` is never used."""
    return 2 ** (bits - 1) - 1


def round_to_codes(
    weight: Float[Tensor, "rows columns"], scales: Float[Tensor, "rows"], bits: int
) -> Int8[Tensor, "rows columns"]:
    """Nearest codes, ``clamp(round_half_even(w / s), -c, c)``, each weight on its own.

    Args:
        weight: Values to quantize.
        scales: Step of each row, > 0.
        bits: Width of a code.
    """
    limit = max_code(bits)
    return (weight / scales.float()[:, None]).round_().clamp_(-limit, limit).to(torch.int8)

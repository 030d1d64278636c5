"""Partial rotary position embedding: the first channels of queries and keys turn with position, the rest do not."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

SMALLEST_TABLE = 256


class Rotation(NamedTuple):
    """Cosines and sines of the angles ``position * frequency``, each of shape ``(time, rotated_channels / 2)``."""

    cos: Float[Tensor, "time half"]
    sin: Float[Tensor, "time half"]


def rotary_frequencies(channels: int, base: float, *, bfloat16: bool) -> Float[Tensor, " half"]:
    """Angle per position of each channel pair: ``base ** (-2j / channels)``, j = 0 .. channels/2 - 1, float32 on the CPU.

    Args:
        channels: Rotated channels per head, even.
        base: Base of the geometric sequence.
        bfloat16: Round the frequencies once to bfloat16, as the published models were trained (cosines then differ by up
            to 0.36 within 2,048 positions, so a checkpoint must keep the frequencies it was trained with).

    Source: arXiv 2104.09864; PR #1394 for the rounding.
    """
    exponent = torch.arange(0, channels, 2, dtype=torch.float32, device="cpu") / max(channels, 1)
    frequencies = 1.0 / base**exponent
    return frequencies.bfloat16().float() if bfloat16 else frequencies


def rotate(x: Float[Tensor, "batch time heads channels"], rotation: Rotation) -> Float[Tensor, "batch time heads channels"]:
    """Turn channel pairs (j, j + half) of every head by the angles of their position; later channels pass through.

    ``x'[j] = x[j] cos + x[j+half] sin`` and ``x'[j+half] = x[j+half] cos - x[j] sin``. Norms are preserved, and the product
    of a rotated query and key depends on the difference of their positions only.
    """
    half = rotation.cos.shape[-1]
    cos, sin = rotation.cos[:, None, :], rotation.sin[:, None, :]
    first, second, rest = x.split([half, half, x.shape[-1] - 2 * half], dim=-1)
    return torch.cat([first * cos + second * sin, second * cos - first * sin, rest], dim=-1)


class RotaryTables:
    """Tables of cosines and sines, built once per device and precision, grown when a longer row arrives.

    They are constants, neither parameters nor buffers: casting or moving the module must not round them, and they never
    appear in a checkpoint. Positions and angles are float32 (float64 for float64 activations), because bfloat16 positions
    above 256 repeat.

    Args:
        channels: Rotated channels per head, even.
        base: Base of the frequencies.
        bfloat16: Round the frequencies to bfloat16.
    """

    def __init__(self, channels: int, base: float, *, bfloat16: bool) -> None:
        self.frequencies = rotary_frequencies(channels, base, bfloat16=bfloat16)
        self._tables: dict[tuple[torch.device, torch.dtype], Rotation] = {}

    # A compiled graph treats the result as a constant, so that growing a table is no guarded state of the graph.
    @torch.compiler.assume_constant_result
    def rows(self, length: int, device: torch.device, dtype: torch.dtype) -> Rotation:
        """Cosines and sines of positions 0 .. length-1 on ``device``, in float32, or float64 for ``dtype`` float64."""
        wide = torch.promote_types(dtype, torch.float32)
        table = self._tables.get((device, wide))
        if table is None or len(table.cos) < length:
            table = self._tables[device, wide] = self._build(length, device, wide)
        return Rotation(table.cos[:length], table.sin[:length])

    def _build(self, length: int, device: torch.device, dtype: torch.dtype) -> Rotation:
        # A tensor created in inference mode could not take part in later training; powers of two bound the regrowth.
        size = max(SMALLEST_TABLE, 1 << (length - 1).bit_length())
        with torch.inference_mode(False), torch.no_grad():
            positions = torch.arange(size, dtype=dtype, device=device)
            angles = torch.outer(positions, self.frequencies.to(device=device, dtype=dtype))
            return Rotation(angles.cos(), angles.sin())

"""What quantization makes: integer codes with a scale per row, float16 controls, and a report per tensor."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Float16, Int8
from torch import Tensor

from fairway.base.errors import ArtifactError
from fairway.quant.grid import max_code

Method = Literal["gptq", "round", "float16"]


@dataclass(frozen=True, eq=False)
class QuantizedTensor:
    """A matrix as ``codes * scales``, one scale per row; checked when it is built.

    Raises:
        ArtifactError: shapes or types do not fit, a code is off the grid, or a scale is not a positive finite number.
    """

    codes: Int8[Tensor, "rows columns"]
    """Integers in ``[-c, c]`` with ``c = 2**(bits - 1) - 1``."""
    scales: Float16[Tensor, "rows"]
    """Step of each row."""
    bits: int
    """Width of the grid, 2 to 8; the container decides how many bits a code takes on disk."""

    def __post_init__(self) -> None:
        codes, scales = self.codes, self.scales
        if codes.dtype != torch.int8 or codes.ndim != 2 or codes.numel() == 0:
            raise ArtifactError(f"codes are {codes.dtype} of shape {tuple(codes.shape)}; they must be a filled int8 matrix")
        if scales.dtype != torch.float16 or scales.shape != codes.shape[:1]:
            raise ArtifactError(
                f"scales are {scales.dtype} of shape {tuple(scales.shape)}; they must be float16 of shape ({codes.shape[0]},)"
            )
        if not 2 <= self.bits <= 8:
            raise ArtifactError(f"codes of {self.bits} bits are outside 2..8")
        low, high, limit = int(codes.min()), int(codes.max()), max_code(self.bits)
        if low < -limit or high > limit:
            raise ArtifactError(f"codes lie in [{low}, {high}], outside [-{limit}, {limit}] of a grid of {self.bits} bits")
        if not bool(((scales > 0) & scales.isfinite()).all()):
            raise ArtifactError("a row scale is not a positive finite number")

    def dequantize(self) -> Float[Tensor, "rows columns"]:
        """The matrix in float32: ``codes * scales`` row by row, exact."""
        return self.codes.float() * self.scales.float()[:, None]


@dataclass(frozen=True, kw_only=True)
class TensorReport:
    """What quantization did to one tensor."""

    name: str
    """Parameter name."""
    method: Method
    """How it was stored."""
    shape: tuple[int, ...]
    """Rows and columns, or the shape of a control."""
    bits: int
    """Width of the grid; 16 for a control."""
    rms_error: float
    """Root mean square of ``E = weight - restored``."""
    relative_error: float
    """``rms_error`` over the root mean square of the weight; 0 for a tensor of zeros."""
    hessian_error: float | None
    """``tr(E H E^T)``, the squared change of the outputs summed over positions, per batch; None without a Hessian."""
    entropy_bits: float | None
    """Order-0 entropy of the codes in bits per weight; None for a control."""
    clipped: float
    """Share of codes at an end of the grid."""
    damping: float | None
    """Share of the mean Hessian diagonal that was added before the factorisation; None without GPTQ."""


@dataclass(frozen=True, eq=False)
class QuantizedState:
    """A whole network after quantization."""

    tensors: Mapping[str, QuantizedTensor]
    """Matrices and embedding by parameter name."""
    controls: Mapping[str, Float16[Tensor, "..."]]
    """Everything else, float16."""
    reports: tuple[TensorReport, ...] = ()
    """One per tensor, in the order of the state; empty when the state was read from a file."""

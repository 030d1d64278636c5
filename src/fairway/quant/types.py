"""What quantization makes: integer codes with a scale per row, float16 controls, and a report per tensor."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Float16, Float64, Int8
from torch import Tensor

from fairway.base.errors import ArtifactError
from fairway.quant.grid import max_code

Method = Literal["gptq", "round", "maximum", "float16"]


@dataclass(frozen=True, eq=False)
class ProtectedColumns:
    """Groups of columns with a finer grid of their own; `QuantizedTensor` checks that they fit its codes.

    Raises:
        ArtifactError: bits, groups or scales that no matrix can have.
    """

    starts: tuple[int, ...]
    """First column of each group, rising; groups do not overlap."""
    size: int
    """Columns of a group."""
    bits: int
    """Width of the grid, 2 to 8."""
    scales: Float16[Tensor, "rows"]
    """Step of each row in these columns."""

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 8:
            raise ArtifactError(f"protected codes of {self.bits} bits are outside 2..8")
        gaps = [after - before for before, after in itertools.pairwise(self.starts)]
        if self.size < 1 or not self.starts or self.starts[0] < 0 or min(gaps, default=self.size) < self.size:
            raise ArtifactError(f"groups of {self.size} protected columns from {self.starts} are empty, overlap or fall")
        _check_scales(self.scales, "protected row")

    def mask(self, columns: int) -> Bool[Tensor, "columns"]:
        """Which of ``columns`` columns are protected."""
        chosen = torch.zeros(columns, dtype=torch.bool)
        for start in self.starts:
            chosen[start : start + self.size] = True
        return chosen


@dataclass(frozen=True, eq=False)
class ScaledCodes:
    """A small matrix as integers with one scale per run: the row-major codes are cut into as many equal runs as scales.

    One scale for the whole matrix, one per row, and one per group of neighbours are all of this form.

    Raises:
        ArtifactError: types do not fit, the runs are not equal, or a scale is not a positive finite number.
    """

    codes: Int8[Tensor, "rows columns"]
    """Integers; the packer decides how many it uses."""
    scales: Float16[Tensor, "runs"]
    """Step of each run."""

    def __post_init__(self) -> None:
        if self.codes.dtype != torch.int8 or self.codes.ndim != 2 or self.codes.numel() == 0:
            raise ArtifactError(f"codes are {self.codes.dtype} of shape {tuple(self.codes.shape)}, not a filled int8 matrix")
        _check_scales(self.scales, "run")
        if self.codes.numel() % len(self.scales):
            raise ArtifactError(f"{self.codes.numel()} codes cannot be cut into {len(self.scales)} equal runs")

    def dequantize(self) -> Float[Tensor, "rows columns"]:
        """The matrix in float32, exact."""
        runs = self.codes.reshape(len(self.scales), -1).float() * self.scales.float()[:, None]
        return runs.reshape(self.codes.shape)


@dataclass(frozen=True, eq=False)
class LowRank:
    """A product of two thin matrices that is added to a matrix.

    Raises:
        ArtifactError: the factors do not fit each other.
    """

    left: ScaledCodes
    """[rows, rank]."""
    right: ScaledCodes
    """[rank, columns]."""

    def __post_init__(self) -> None:
        if self.left.codes.shape[1] != self.right.codes.shape[0]:
            shapes = tuple(self.left.codes.shape), tuple(self.right.codes.shape)
            raise ArtifactError(f"factors of shapes {shapes[0]} and {shapes[1]} have no product")

    @property
    def rank(self) -> int:
        """Columns of the left and rows of the right factor."""
        return self.left.codes.shape[1]

    def product(self) -> Float64[Tensor, "rows columns"]:
        """``left @ right`` in float64, where every product is exact and the sum of a few is the same on every machine."""
        return self.left.dequantize().double() @ self.right.dequantize().double()


def _check_scales(scales: Tensor, what: str) -> None:
    if scales.dtype != torch.float16 or scales.ndim != 1 or len(scales) == 0:
        raise ArtifactError(f"scales are {scales.dtype} of shape {tuple(scales.shape)}; they must be a filled float16 vector")
    if not bool(((scales > 0) & scales.isfinite()).all()):
        raise ArtifactError(f"a {what} scale is not a positive finite number")


@dataclass(frozen=True, eq=False)
class QuantizedTensor:
    """A matrix as ``codes * scales``, one scale per row; checked when it is built.

    Protected columns have a wider grid and scales of their own; a repair is added to the result.

    Raises:
        ArtifactError: shapes or types do not fit, a code is off the grid, or a scale is not a positive finite number.
    """

    codes: Int8[Tensor, "rows columns"]
    """Integers in ``[-c, c]`` with ``c = 2**(bits - 1) - 1``; those of protected columns have the ``c`` of their bits."""
    scales: Float16[Tensor, "rows"]
    """Step of each row."""
    bits: int
    """Width of the grid, 2 to 8; the container decides how many bits a code takes on disk."""
    protected: ProtectedColumns | None = None
    """Columns with a finer grid."""
    repair: LowRank | None = None
    """Low-rank correction, added after dequantization."""

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
        _check_scales(scales, "row")
        for part, bits in self.grids():
            low, high, limit = int(part.min()), int(part.max()), max_code(bits)
            if low < -limit or high > limit:
                raise ArtifactError(f"codes lie in [{low}, {high}], outside [-{limit}, {limit}] of a grid of {bits} bits")
        self._check_parts()

    def _check_parts(self) -> None:
        rows, columns = self.codes.shape
        if self.protected is not None and len(self.protected.scales) != rows:
            raise ArtifactError(f"{len(self.protected.scales)} protected row scales do not fit {rows} rows")
        if self.repair is not None:
            product = len(self.repair.left.codes), self.repair.right.codes.shape[1]
            if product != (rows, columns):
                raise ArtifactError(f"a repair of shape {product} does not fit a matrix of shape {(rows, columns)}")

    def grids(self) -> list[tuple[Int8[Tensor, "rows _"], int]]:
        """Codes by width of their grid: the ordinary columns if there are any, then the protected ones if there are any."""
        if self.protected is None:
            return [(self.codes, self.bits)]
        columns, last = self.codes.shape[1], self.protected.starts[-1] + self.protected.size
        if last > columns:
            raise ArtifactError(f"protected columns end at {last}, beyond the {columns} columns of the matrix")
        mask = self.protected.mask(columns)
        parts = [(self.codes[:, ~mask], self.bits), (self.codes[:, mask], self.protected.bits)]
        return [(codes, bits) for codes, bits in parts if codes.numel()]

    def dequantize(self) -> Float[Tensor, "rows columns"]:
        """The matrix in float32: ``codes * scales`` row by row, exact; then the repair, in float64 and rounded once."""
        restored = self.codes.float() * self.scales.float()[:, None]
        if self.protected is not None:
            mask = self.protected.mask(self.codes.shape[1])
            restored[:, mask] = self.codes[:, mask].float() * self.protected.scales.float()[:, None]
        if self.repair is not None:
            restored = (restored.double() + self.repair.product()).float()
        return restored


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
    """Share of codes at an end of their grid."""
    damping: float | None
    """Share of the mean Hessian diagonal that was added before the factorisation; None without GPTQ."""
    protected: int = 0
    """Columns with a finer grid."""
    repair_rank: int = 0
    """Rank of the low-rank repair; 0 without one."""


@dataclass(frozen=True, eq=False)
class QuantizedState:
    """A whole network after quantization."""

    tensors: Mapping[str, QuantizedTensor]
    """Matrices and embedding by parameter name."""
    controls: Mapping[str, Float16[Tensor, "..."]]
    """Everything else, float16."""
    reports: tuple[TensorReport, ...] = ()
    """One per tensor, in the order of the state; empty when the state was read from a file."""

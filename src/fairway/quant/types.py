"""What quantization makes: integer codes with a scale per row, float16 controls, and a report per tensor."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Float16, Float64, Int8, Int16
from torch import Tensor

from fairway.base.errors import ArtifactError
from fairway.quant.grid import LARGEST_CODE, grid_scales, max_code
from fairway.quant.trellis_states import GENERATORS, path_parities

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
    """A matrix as ``gain * row scale * column scale * code``; checked when it is built.

    Protected columns have a wider grid and scales of their own; a repair is added to the result. With a trellis every column
    of the codes is one path from state 0 at the first row.

    Raises:
        ArtifactError: shapes or types do not fit, a code is off the grid or the trellis, or a scale is not a positive finite
            number of its grid.
    """

    codes: Int8[Tensor, "rows columns"] | Int16[Tensor, "rows columns"]
    """Integers in ``[-c, c]`` with ``c = 2**(bits - 1) - 1``; those of protected columns have the ``c`` of their bits. With a
    trellis int16 in ``[-8191, 8191]``."""
    scales: Float16[Tensor, "rows"]
    """Step of each row."""
    bits: int
    """Width of the grid, 2 to 8, not read with a trellis; the container decides how many bits a code takes on disk."""
    protected: ProtectedColumns | None = None
    """Columns with a finer grid."""
    repair: LowRank | None = None
    """Low-rank correction, added after dequantization."""
    trellis: int = 0
    """States of the trellis whose paths the columns are; 0 is the scalar grid."""
    gain: float = 1.0
    """One factor on all codes, a float16 number: the centroids of the cells instead of their mid-points."""
    scale_grid: int = 0
    """Steps per octave of the grid of all scales, each the float16 number nearest to ``2**(k / scale_grid)``; 0 leaves them
    free."""
    column_scales: Float16[Tensor, "columns"] | None = None
    """Factor on the step in each column, on the same grid; None is 1 everywhere."""

    def __post_init__(self) -> None:
        codes, scales = self.codes, self.scales
        kind = torch.int16 if self.trellis else torch.int8
        if codes.dtype != kind or codes.ndim != 2 or codes.numel() == 0:
            wanted = f"a filled {str(kind).removeprefix('torch.')} matrix"
            raise ArtifactError(f"codes are {codes.dtype} of shape {tuple(codes.shape)}; they must be {wanted}")
        if scales.dtype != torch.float16 or scales.shape != codes.shape[:1]:
            raise ArtifactError(
                f"scales are {scales.dtype} of shape {tuple(scales.shape)}; they must be float16 of shape ({codes.shape[0]},)"
            )
        if not 2 <= self.bits <= 8:
            raise ArtifactError(f"codes of {self.bits} bits are outside 2..8")
        _check_scales(self.scales, "row")
        self._check_parts()
        self._check_fine_steps()
        if self.trellis:
            self._check_path()
            return
        for part, bits in self.grids():
            low, high, limit = int(part.min()), int(part.max()), max_code(bits)
            if low < -limit or high > limit:
                raise ArtifactError(f"codes lie in [{low}, {high}], outside [-{limit}, {limit}] of a grid of {bits} bits")

    def _check_path(self) -> None:
        if self.trellis not in GENERATORS:
            raise ArtifactError(f"a trellis of {self.trellis} states is none of {', '.join(map(str, GENERATORS))}")
        if self.protected is not None:
            raise ArtifactError("protected columns and a trellis exclude each other")
        if int(self.codes.abs().max()) > LARGEST_CODE:
            raise ArtifactError(f"codes reach {int(self.codes.abs().max())}, beyond the {LARGEST_CODE} of a trellis")
        if path_parities(self.codes.numpy(), self.trellis) is None:
            raise ArtifactError(f"a column of codes is no path of the trellis of {self.trellis} states")

    def _check_fine_steps(self) -> None:
        gain = torch.tensor(self.gain, dtype=torch.float64)
        if not (self.gain > 0 and bool(gain.isfinite()) and float(gain.half()) == self.gain):
            raise ArtifactError(f"a gain of {self.gain} is not a positive finite float16 number")
        if self.column_scales is not None:
            _check_scales(self.column_scales, "column")
            if self.column_scales.shape != self.codes.shape[1:]:
                raise ArtifactError(f"{len(self.column_scales)} column scales do not fit {self.codes.shape[1]} columns")
            if self.protected is not None:
                raise ArtifactError("protected columns and column scales exclude each other")
        for scales in (self.scales, self.column_scales):
            if (
                self.scale_grid
                and scales is not None
                and not torch.equal(grid_scales(scales.double(), self.scale_grid), scales)
            ):
                raise ArtifactError(f"a scale is not on the grid of {self.scale_grid} steps per octave")

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

    def steps(self) -> Float64[Tensor, "rows columns"]:
        """What a code of 1 stands for, ``gain * row scale * column scale``, exact in float64."""
        steps = (self.gain * self.scales.double())[:, None].expand(self.codes.shape)
        if self.column_scales is not None:
            return steps * self.column_scales.double()
        if self.protected is not None:
            finer = (self.gain * self.protected.scales.double())[:, None]
            return torch.where(self.protected.mask(self.codes.shape[1]), finer, steps)
        return steps

    def dequantize(self) -> Float[Tensor, "rows columns"]:
        """The matrix in float32: codes times `steps`, exact in float64 and rounded once; then the repair in the same way."""
        restored = (self.codes * self.steps()).float()
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
    trellis: int = 0
    """States of the trellis; 0 for a scalar grid."""
    expected_loss: float | None = None
    """Rise of the loss in nats per token to second order, ``sum_i g_i (E H E^T)_ii / 2`` per token with the mean squared
    gradient ``g_i`` of output i; None where no gradient was measured."""


@dataclass(frozen=True, eq=False)
class QuantizedState:
    """A whole network after quantization."""

    tensors: Mapping[str, QuantizedTensor]
    """Matrices and embedding by parameter name."""
    controls: Mapping[str, Float16[Tensor, "..."]]
    """Everything else, float16."""
    reports: tuple[TensorReport, ...] = ()
    """One per tensor, in the order of the state; empty when the state was read from a file."""

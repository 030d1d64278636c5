"""What a container holds: integer codes with row scales, and plain arrays. NumPy only, so no torch is needed to read a file."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fairway.base.errors import ArtifactError

RAW_DTYPES = tuple(np.dtype(name) for name in ("<f2", "<f4", "<f8", "<i1", "<i2", "<i4", "<i8", "<u1", "<u2"))
"""Element types of plain arrays; the position is the number stored in the manifest and never changes."""

MIN_BITS, MAX_BITS = 2, 8


def largest_code(bits: int) -> int:
    """``c = 2**(bits - 1) - 1``; codes are symmetric in [-c, c]."""
    return (1 << (bits - 1)) - 1


@dataclass(frozen=True, eq=False)
class CodedTensor:
    """A matrix as integer codes with one step size per row: ``weight[i, j] = codes[i, j] * scales[i]``.

    Attributes:
        codes: int8 [rows, columns], each in [-c, c] with ``c = 2**(bits - 1) - 1``.
        scales: float16 [rows], finite and positive.
        bits: Width of the codes, 2 to 8.

    Raises:
        ArtifactError: a type, shape, code or scale outside these limits.
    """

    codes: np.ndarray
    scales: np.ndarray
    bits: int

    def __post_init__(self) -> None:
        if self.codes.dtype != np.int8 or self.codes.ndim != 2:
            raise ArtifactError(f"codes are {self.codes.dtype} of shape {self.codes.shape}; give int8 [rows, columns]")
        if self.scales.dtype != np.float16 or self.scales.shape != self.codes.shape[:1]:
            raise ArtifactError(f"scales are {self.scales.dtype} of shape {self.scales.shape}; give float16 [rows]")
        if not MIN_BITS <= self.bits <= MAX_BITS:
            raise ArtifactError(f"bits={self.bits} is outside {MIN_BITS}..{MAX_BITS}; codes are stored as int8")
        check_codes(self.codes, self.bits)
        check_scales(self.scales)

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows and columns."""
        return self.codes.shape


@dataclass(frozen=True, eq=False)
class RawTensor:
    """An array stored bit for bit, such as the float16 controls.

    Attributes:
        values: Any shape of at most 8 dimensions; float16, float32, float64, int8 to int64, uint8 or uint16.

    Raises:
        ArtifactError: another element type, or more dimensions.
    """

    values: np.ndarray

    def __post_init__(self) -> None:
        if self.values.dtype.newbyteorder("<") not in RAW_DTYPES:
            names = ", ".join(str(dtype) for dtype in RAW_DTYPES)
            raise ArtifactError(f"values are {self.values.dtype}, which the format does not store; use one of {names}")
        if self.values.ndim > MAX_RANK:
            raise ArtifactError(f"values have {self.values.ndim} dimensions; the format stores at most {MAX_RANK}")

    @property
    def shape(self) -> tuple[int, ...]:
        """Dimensions, outermost first."""
        return self.values.shape


MAX_RANK = 8
TensorRecord = CodedTensor | RawTensor


@dataclass(frozen=True, eq=False)
class Artifact:
    """A decoded artifact.

    Attributes:
        header: The JSON document that was written with the tensors.
        tensors: Name to record, in the order of writing; arrays are fresh and writable.
    """

    header: dict[str, Any]
    tensors: dict[str, TensorRecord]

    def require_shapes(self, expected: Mapping[str, tuple[int, ...]]) -> None:
        """Compare names and shapes with those that the model configuration implies.

        Raises:
            ArtifactError: a tensor is missing, unknown, or has another shape; the first one is named with both shapes.
        """
        for name, shape in expected.items():
            if name not in self.tensors:
                raise ArtifactError(f"the artifact lacks tensor {name} of shape {shape}; it was packed from another model")
            found = self.tensors[name].shape
            if found != tuple(shape):
                raise ArtifactError(f"tensor {name} has shape {found} where the model needs {tuple(shape)}; use its own recipe")
        for name in self.tensors:
            if name not in expected:
                raise ArtifactError(f"the artifact has a tensor {name} that the model lacks; use the recipe it was packed from")


def check_codes(codes: np.ndarray, bits: int) -> None:
    """Refuse codes outside [-c, c].

    Raises:
        ArtifactError: with the code, the limit and the remedy.
    """
    limit = largest_code(bits)
    if codes.size and not (-limit <= int(codes.min()) and int(codes.max()) <= limit):
        worst = int(codes.min()) if -int(codes.min()) > int(codes.max()) else int(codes.max())
        raise ArtifactError(f"code {worst} is outside [-{limit}, {limit}] of {bits} bits; clamp the codes or store more bits")


def check_scales(scales: np.ndarray) -> None:
    """Refuse scales that are not finite and positive: such a row would decode to zeros or NaN.

    Raises:
        ArtifactError: with the row, the value and the remedy.
    """
    bad = np.flatnonzero(~(np.isfinite(scales) & (scales > 0)))
    if bad.size:
        row = int(bad[0])
        raise ArtifactError(
            f"scale {float(scales[row])} of row {row} is not finite and positive ({bad.size} such rows); "
            "floor the step size at the smallest normal float16 when quantizing"
        )


def element_count(shape: tuple[int, ...]) -> int:
    """Product of the dimensions as an exact integer."""
    return math.prod(shape)

"""What a container holds: integer codes with row scales, and plain arrays. NumPy only, so no torch is needed to read a file."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fairway.artifact.scale_grid import MAX_STEPS, exponents_of
from fairway.base.errors import ArtifactError
from fairway.quant.trellis_states import GENERATORS, path_parities

RAW_DTYPES = tuple(np.dtype(name) for name in ("<f2", "<f4", "<f8", "<i1", "<i2", "<i4", "<i8", "<u1", "<u2"))
"""Element types of plain arrays; the position is the number stored in the manifest and never changes."""

MIN_BITS, MAX_BITS = 2, 8
LARGEST_TRELLIS_CODE = 8191
"""Bound of the codes of a path, which no width limits."""
INFINITE = 0x7C00
"""Bits of the float16 infinity; positive finite numbers lie below."""


def largest_code(bits: int) -> int:
    """``c = 2**(bits - 1) - 1``; codes are symmetric in [-c, c]."""
    return (1 << (bits - 1)) - 1


@dataclass(frozen=True, eq=False)
class Protected:
    """Groups of columns of a coded matrix with bits and row scales of their own.

    Attributes:
        starts: First column of each group, rising, without overlap.
        size: Columns of a group.
        bits: Width of their codes, 2 to 8.
        scales: float16 [rows], finite and positive.
    """

    starts: tuple[int, ...]
    size: int
    bits: int
    scales: np.ndarray

    def mask(self, columns: int) -> np.ndarray:
        """Which of the columns are protected; bool [columns]."""
        return protected_mask(self.starts, self.size, columns)


@dataclass(frozen=True, eq=False)
class Repair:
    """A product of two thin matrices that is added to a coded matrix.

    Each factor is codes times scales, where the row-major codes are cut into as many equal runs as there are scales.

    Attributes:
        left_codes: int8 [rows, rank].
        left_scales: float16 [runs], finite and positive.
        right_codes: int8 [rank, columns].
        right_scales: float16 [runs], finite and positive.
    """

    left_codes: np.ndarray
    left_scales: np.ndarray
    right_codes: np.ndarray
    right_scales: np.ndarray


@dataclass(frozen=True, eq=False)
class CodedTensor:
    """A matrix as integer codes with one step size per row: ``gain * codes[i, j] * scales[i]``.

    Attributes:
        codes: int8 [rows, columns], each in [-c, c] with ``c = 2**(bits - 1) - 1``; with a trellis int16 in [-8191, 8191],
            each column a path from state 0.
        scales: float16 [rows], finite and positive.
        bits: Width of the codes, 2 to 8; with a trellis the nominal one, which limits nothing.
        protected: Columns with another width and other scales; none with a trellis.
        repair: What is added.
        trellis: States of the trellis; 0 for codes that are free.
        gain: Factor of all products, a positive float16 number.
        scale_grid: Points per octave of the grid that the scales lie on, at most 256; 0 for free scales.
        column_scales: float16 [columns], finite and positive: one more factor in each column, on the grid of the row scales;
            None for 1 everywhere, and with protected columns.

    Raises:
        ArtifactError: a type, shape, code or scale outside these limits.
    """

    codes: np.ndarray
    scales: np.ndarray
    bits: int
    protected: Protected | None = None
    repair: Repair | None = None
    trellis: int = 0
    gain: float = 1.0
    scale_grid: int = 0
    column_scales: np.ndarray | None = None

    def __post_init__(self) -> None:
        kind = np.int16 if self.trellis else np.int8
        if self.codes.dtype != kind or self.codes.ndim != 2:
            raise ArtifactError(
                f"codes are {self.codes.dtype} of shape {self.codes.shape}; give {kind.__name__} [rows, columns]"
            )
        if self.scales.dtype != np.float16 or self.scales.shape != self.codes.shape[:1]:
            raise ArtifactError(f"scales are {self.scales.dtype} of shape {self.scales.shape}; give float16 [rows]")
        if not MIN_BITS <= self.bits <= MAX_BITS:
            raise ArtifactError(f"bits={self.bits} is outside {MIN_BITS}..{MAX_BITS}; codes are stored as int8")
        check_scales(self.scales)
        self._check_grid()
        if self.trellis:
            _check_paths(self.codes, self.trellis)
        elif self.protected is None:
            check_codes(self.codes, self.bits)
        else:
            _check_protected(self.protected, self.codes, self.bits)
        if self.repair is not None:
            _check_repair(self.repair, self.codes.shape)

    def _check_grid(self) -> None:
        if self.trellis and (self.trellis not in GENERATORS or self.protected is not None):
            raise ArtifactError(
                f"a trellis of {self.trellis} states, {'with' if self.protected else 'without'} protected columns, is none of "
                f"{', '.join(map(str, GENERATORS))} without them; quantize the tensor another way"
            )
        if not 0 <= self.scale_grid <= MAX_STEPS:
            raise ArtifactError(f"scale_grid={self.scale_grid} is outside 0..{MAX_STEPS} points per octave; use 8")
        if self.column_scales is not None:
            _check_runs("column scales", self.column_scales)
            if self.column_scales.shape != self.codes.shape[1:] or self.protected is not None or not self.column_scales.size:
                raise ArtifactError(
                    f"{self.column_scales.size} column scales do not fit {self.codes.shape[1]} columns "
                    f"{'with' if self.protected else 'without'} protected ones; give one per column, and protect none"
                )
        for scales in (self.scales, self.column_scales):
            if self.scale_grid and scales is not None:
                exponents_of(scales, self.scale_grid)
        gain_bits(self.gain)

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


def gain_bits(gain: float) -> int:
    """The bits of a gain as a float16.

    Raises:
        ArtifactError: it is no positive finite float16 number.
    """
    with np.errstate(over="ignore"):
        rounded = np.float16(gain)
    if not 0 < gain < math.inf or float(rounded) != gain:
        raise ArtifactError(f"gain={gain} is no positive finite float16 number; round it to float16 before it is used")
    return int(rounded.view(np.uint16))


def protected_mask(starts: Sequence[int], size: int, columns: int) -> np.ndarray:
    """Which of ``columns`` columns lie in a group of ``size`` from one of ``starts``; bool [columns]."""
    mask = np.zeros(columns, bool)
    for start in starts:
        mask[start : start + size] = True
    return mask


def protected_steps(scales: np.ndarray, bits: int, protected: Protected) -> np.ndarray:
    """Distance of the protected row scales from ``s * c / c_hi``, in float16 numbers; int16 [rows], mostly -1, 0 and 1.

    Both scales come from one deviation, so the second follows from the first up to the rounding of both; the step is what
    is stored. The prediction stays between the smallest normal and the largest float16, as the scales do.
    """
    predicted = _predicted_scales(scales, bits, protected.bits)
    return (_bits(protected.scales) - _bits(predicted)).astype(np.int16)


def scales_from_steps(scales: np.ndarray, bits: int, high_bits: int, steps: np.ndarray) -> np.ndarray:
    """Inverse of ``protected_steps``; float16 [rows].

    Raises:
        ArtifactError: a step leads out of the positive finite numbers.
    """
    found = _bits(_predicted_scales(scales, bits, high_bits)) + steps.astype(np.int32)
    if found.size and not 0 < int(found.min()) <= int(found.max()) < INFINITE:
        raise ArtifactError(
            "a step of a protected row scale leads out of float16; copy the artifact again or pack the run again"
        )
    return found.astype(np.uint16).view(np.float16)


def _predicted_scales(scales: np.ndarray, bits: int, high_bits: int) -> np.ndarray:
    predicted = scales.astype(np.float64) * largest_code(bits) / largest_code(high_bits)
    return np.clip(predicted, float(np.finfo(np.float16).tiny), float(np.finfo(np.float16).max)).astype(np.float16)


def _bits(scales: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(scales, np.float16).view(np.uint16).astype(np.int32)


def _check_protected(protected: Protected, codes: np.ndarray, bits: int) -> None:
    rows, columns = codes.shape
    ends = [0, *(start + protected.size for start in protected.starts)]
    if (
        not protected.starts
        or protected.size < 1
        or any(a > b for a, b in zip(ends, (*protected.starts, columns), strict=True))
    ):
        raise ArtifactError(
            f"groups of {protected.size} protected columns from {protected.starts} do not lie side by side in {columns} columns"
        )
    if not MIN_BITS <= protected.bits <= MAX_BITS:
        raise ArtifactError(f"protected bits={protected.bits} is outside {MIN_BITS}..{MAX_BITS}; codes are stored as int8")
    _check_runs("protected scales", protected.scales)
    if protected.scales.shape != (rows,):
        raise ArtifactError(f"{len(protected.scales)} protected scales do not fit {rows} rows; give float16 [rows]")
    mask = protected.mask(columns)
    check_codes(codes[:, ~mask], bits)
    check_codes(codes[:, mask], protected.bits)


def _check_repair(repair: Repair, shape: tuple[int, ...]) -> None:
    factors = ((repair.left_codes, repair.left_scales, "left"), (repair.right_codes, repair.right_scales, "right"))
    for codes, scales, what in factors:
        if codes.dtype != np.int8 or codes.ndim != 2 or codes.size == 0:
            raise ArtifactError(f"the {what} factor is {codes.dtype} of shape {codes.shape}; give filled int8 matrices")
        _check_runs(f"{what} scales", scales)
        if scales.size == 0 or codes.size % scales.size:
            raise ArtifactError(f"the {codes.size} codes of the {what} factor cannot be cut into {scales.size} equal runs")
    left, right = repair.left_codes.shape, repair.right_codes.shape
    if (left[0], right[1]) != shape or left[1] != right[0]:
        raise ArtifactError(f"factors of shapes {left} and {right} have no product of shape {shape}; pack the run again")


def _check_runs(what: str, scales: np.ndarray) -> None:
    if scales.dtype != np.float16 or scales.ndim != 1:
        raise ArtifactError(f"{what} are {scales.dtype} of shape {scales.shape}; give float16 in one dimension")
    check_scales(scales)


def check_codes(codes: np.ndarray, bits: int) -> None:
    """Refuse codes outside [-c, c].

    Raises:
        ArtifactError: with the code, the limit and the remedy.
    """
    limit = largest_code(bits)
    if codes.size and not (-limit <= int(codes.min()) and int(codes.max()) <= limit):
        worst = int(codes.min()) if -int(codes.min()) > int(codes.max()) else int(codes.max())
        raise ArtifactError(f"code {worst} is outside [-{limit}, {limit}] of {bits} bits; clamp the codes or store more bits")


def _check_paths(codes: np.ndarray, states: int) -> None:
    if codes.size and int(np.abs(codes.astype(np.int32)).max()) > LARGEST_TRELLIS_CODE:
        raise ArtifactError(f"a trellis code is outside [-{LARGEST_TRELLIS_CODE}, {LARGEST_TRELLIS_CODE}]; use a larger step")
    if path_parities(codes, states) is None:
        raise ArtifactError(f"a column of codes is no path of the trellis of {states} states; quantize the tensor again")


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

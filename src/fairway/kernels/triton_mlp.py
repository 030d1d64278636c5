"""The Triton kernel of ``fused_mlp``: one matrix product with two epilogues; imported when it first runs."""

from functools import partial
from typing import Any, no_type_check

import torch
import triton  # pyright: ignore[reportMissingImports]
import triton.language as tl  # pyright: ignore[reportMissingImports]
from torch import Tensor

from fairway.kernels.fused import DTYPES, interpreted


def _config(rows: int, columns: int, inner: int, stages: int, warps: int) -> triton.Config:
    tile = {"ROWS": rows, "COLUMNS": columns, "INNER": inner, "BAND": 8, "WIDEN": False}
    return triton.Config(tile, num_stages=stages, num_warps=warps)


# The interpreter takes one tile, smaller than the matrices of tests; on a GPU the fastest is found at the first call, and
# tiles that do not fit its shared memory are passed over.
CONFIGS = (
    [triton.Config({"ROWS": 16, "COLUMNS": 16, "INNER": 16, "BAND": 2, "WIDEN": True})]
    if interpreted()
    else [
        _config(128, 256, 64, stages=3, warps=8),
        _config(256, 128, 64, stages=3, warps=8),
        _config(128, 128, 64, stages=4, warps=8),
        _config(128, 128, 32, stages=4, warps=4),
        _config(64, 128, 32, stages=4, warps=4),
    ]
)


# Checking of annotations would wrap what Triton compiles from its source.
@triton.autotune(configs=CONFIGS, key=["rows", "columns", "inner", "BACKWARD"])
@triton.jit
@no_type_check
def _kernel(
    left, right, before, result, rows, columns, inner, left_row, left_inner, right_inner, right_column, square,
    BACKWARD: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, INNER: tl.constexpr, BAND: tl.constexpr,
    WIDEN: tl.constexpr,
):  # fmt: skip
    """One tile of ``left right``, float32; before is written forward and read backward, both row by row."""
    # Programs that run at the same time lie in a band of BAND tiles height and share what they read in the cache.
    tile = tl.program_id(0)
    across = tl.cdiv(columns, COLUMNS)
    first = tile // (BAND * across) * BAND
    height = tl.minimum(tl.cdiv(rows, ROWS) - first, BAND)
    row = (first + tile % (BAND * across) % height) * ROWS + tl.arange(0, ROWS)
    column = tile % (BAND * across) // height * COLUMNS + tl.arange(0, COLUMNS)
    step = tl.arange(0, INNER)
    left += row.to(tl.int64)[:, None] * left_row + step[None, :] * left_inner
    right += step[:, None] * right_inner + column.to(tl.int64)[None, :] * right_column
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    for start in range(0, inner, INNER):
        inside = step < inner - start
        a = tl.load(left, mask=(row[:, None] < rows) & inside[None, :], other=0.0)
        b = tl.load(right, mask=inside[:, None] & (column[None, :] < columns), other=0.0)
        if WIDEN:
            # The interpreter would multiply the bits of bfloat16 as integers; products of 16-bit numbers are exact here.
            a, b = a.to(tl.float32), b.to(tl.float32)
        # As torch's own float32 products here: fairway.train.machine allows them TF32.
        total = tl.dot(a, b, total, input_precision="tf32")
        left += INNER * left_inner
        right += INNER * right_inner
    at = row.to(tl.int64)[:, None] * columns + column[None, :]
    mask = (row[:, None] < rows) & (column[None, :] < columns)
    if BACKWARD:
        value = tl.load(before + at, mask=mask, other=0.0).to(tl.float32)
        total *= tl.where(value > 0, 2.0, 2.0 * square) * value
    else:
        # The activation is that of the rounded number, which is the one that the backward pass will see.
        rounded = total.to(before.dtype.element_ty)
        tl.store(before + at, rounded, mask=mask)
        value = rounded.to(tl.float32)
        total = tl.where(value > 0, value, square * value) * value
    tl.store(result + at, total.to(result.dtype.element_ty), mask=mask)


def launch_forward(x: Tensor, up: Tensor, slope: float) -> tuple[Tensor, Tensor]:
    """``a = x up^T`` and ``phi(a)``."""
    before = x.new_empty(len(x), len(up))
    result = torch.empty_like(before)
    _launch(x, up.T, before, result, slope, backward=False)
    return before, result


def launch_backward(grad: Tensor, down: Tensor, before: Tensor, slope: float) -> Tensor:
    """``(grad down) phi'(a)``."""
    result = torch.empty_like(before, memory_format=torch.contiguous_format)
    _launch(grad, down, before.contiguous(), result, slope, backward=True)
    return result


def _launch(left: Tensor, right: Tensor, before: Tensor, result: Tensor, slope: float, *, backward: bool) -> None:
    for tensor in (left, right, before):
        assert tensor.dtype in DTYPES, f"the kernel adds in float32, too little for {tensor.dtype}"
        assert tensor.dtype == result.dtype, f"one type for all: {tensor.dtype} is not {result.dtype}"
    (rows, inner), columns = left.shape, right.shape[1]
    if not rows:
        return
    with torch.cuda.device_of(left):
        run = _kernel[partial(_programs, rows, columns)]  # pyright: ignore[reportIndexIssue]
        strides = (*left.stride(), *right.stride())
        run(left, right, before, result, rows, columns, inner, *strides, slope * slope, BACKWARD=backward)


def _programs(rows: int, columns: int, tile: dict[str, Any]) -> tuple[int]:
    """One program for each tile of the result."""
    return (-(-rows // tile["ROWS"]) * -(-columns // tile["COLUMNS"]),)

"""GPTQ: quantize one column after the other and let the later columns make up for each error.

For a matrix ``W`` (rows are outputs) whose inputs have second moments ``H``, quantization should keep
``tr(E H E^T)`` small, the squared change of the outputs, where ``E = W - codes * scales``. With the columns in the order
of falling ``H_jj``, ``U`` the upper Cholesky factor of ``H^-1 = U^T U``, and ``w_j`` the current column j:

    q_j = quantize(w_j)                       codes, and the values v_j that they stand for
    e_j = (w_j - v_j) / U_jj
    w_m <- w_m - e_j U_jm       for all m > j

Then ``E = Err U`` with the columns ``e_j`` of ``Err``, and ``tr(E H E^T) = |Err|^2``, whatever ``quantize`` does: rounding to a
grid (`fairway.quant.columns.RoundedColumns`), where rows do not depend on each other, or a path of a trellis down the rows.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Float16, Int, Int8, Int16
from torch import Tensor

from fairway.base.errors import RecipeError
from fairway.base.log import logger
from fairway.quant.columns import ColumnQuantizer, RoundedColumns
from fairway.quant.types import ProtectedColumns

BLOCK = 128
"""Columns that are finished before their errors reach the columns after them, in one matrix product. PR #1394."""

ATTEMPTS = 6
"""Factorisations that are tried, each with ten times the damping of the one before."""


@dataclass(frozen=True, eq=False)
class Factor:
    """A damped Hessian, ready for GPTQ."""

    order: Int[Tensor, "columns"]
    """Columns by falling diagonal of the damped Hessian."""
    upper: Float[Tensor, "columns columns"]
    """``U`` with ``U^T U`` the inverse of the damped Hessian in that order."""
    dead: Bool[Tensor, "columns"]
    """Inputs that were zero throughout the calibration, in the original order."""
    damping: float
    """Share of the mean diagonal that was added."""


def damped(
    hessian: Float[Tensor, "columns columns"], damping: float
) -> tuple[Float[Tensor, "columns columns"], Bool[Tensor, "columns"]]:
    """Copy of ``H`` with 1 for dead diagonal entries, then ``damping`` times the mean diagonal added to the diagonal.

    The mean is taken after the dead entries are 1, as published, so the result scales with ``H`` only without dead inputs.

    Returns:
        The damped Hessian, and which inputs are dead (``H_jj = 0``).
    """
    dead = hessian.diagonal() == 0
    copy = hessian.clone()
    copy.diagonal()[dead] = 1.0
    copy.diagonal().add_(damping * copy.diagonal().mean())
    return copy, dead


def factorize(hessian: Float[Tensor, "columns columns"], damping: float) -> Factor:
    """Order the columns and factorise the inverse of the damped Hessian; more damping where that fails, and a log line.

    Args:
        hessian: Symmetric second moments of the inputs.
        damping: Share of the mean diagonal that is added, > 0.

    Raises:
        RecipeError: the Hessian has infinite or undefined entries, or no damping makes it positive definite.
    """
    if not bool(hessian.isfinite().all()):
        raise RecipeError("the Hessian is not finite: the network's activations overflow; train with lower learning rates")
    for attempt in range(ATTEMPTS):
        share = damping * 10**attempt
        matrix, dead = damped(hessian, share)
        order = torch.argsort(matrix.diagonal(), descending=True, stable=True)
        lower, failed = torch.linalg.cholesky_ex(matrix[order][:, order])
        if not failed:
            upper, failed = torch.linalg.cholesky_ex(torch.cholesky_inverse(lower), upper=True)
        if not failed:
            if attempt:
                logger.info("quant damping=%g columns=%d: less was not positive definite", share, len(order))
            return Factor(order, upper, dead, share)
    raise RecipeError(f"the Hessian is not positive definite with damping {share:g}; calibrate with more batches")


def quantize_columns(
    weight: Float[Tensor, "rows columns"], factor: Factor, quantizer: ColumnQuantizer, block: int = BLOCK
) -> Int8[Tensor, "rows columns"] | Int16[Tensor, "rows columns"]:
    """Codes of ``weight`` that keep ``tr(E H E^T)`` small; see the top of this file.

    The weights of dead inputs are dropped, as published, even where they are large: an input that the calibration never saw
    cannot contribute later either. Blocks change the order of float32 sums and nothing else.

    Args:
        weight: Original matrix, columns in their own order.
        factor: From `factorize`.
        quantizer: Codes of one column.
        block: Columns per block.

    Source: arXiv 2210.17323; order, damping and dead inputs as in PR #1394.
    """
    upper, order = factor.upper, factor.order.tolist()
    # Transposed, so that a column of the matrix is contiguous memory.
    work = weight.float().masked_fill(factor.dead, 0.0)[:, factor.order].T.contiguous()
    codes = torch.empty(work.shape, dtype=quantizer.dtype)
    columns = len(work)
    for start in range(0, columns, block):
        stop = min(start + block, columns)
        errors = torch.empty(stop - start, work.shape[1])
        for j in range(start, stop):
            codes[j], values = quantizer.quantize(work[j], order[j])
            errors[j - start] = (work[j] - values) / upper[j, j]
            work[j + 1 : stop].addr_(upper[j, j + 1 : stop], errors[j - start], alpha=-1)
        work[stop:].addmm_(upper[start:stop, stop:].T, errors, alpha=-1)
    restored = torch.empty(weight.shape, dtype=quantizer.dtype)
    restored[:, factor.order] = codes.T
    return restored


def gptq(
    weight: Float[Tensor, "rows columns"],
    scales: Float16[Tensor, "rows"],
    factor: Factor,
    bits: int,
    block: int = BLOCK,
    protected: ProtectedColumns | None = None,
) -> Int8[Tensor, "rows columns"]:
    """`quantize_columns` with plain rounding; the codes of dead inputs are 0.

    Args:
        weight: Original matrix, columns in their own order.
        scales: Step of each row, > 0.
        factor: From `factorize`.
        bits: Width of a code.
        block: Columns per block.
        protected: Columns that take their own bits and scales, in the codes and in the errors that they pass on. PR #1908.
    """
    return quantize_columns(weight, factor, RoundedColumns(scales, bits, weight.shape[1], protected), block)


def quantize_columns_plain(
    weight: Float[Tensor, "rows columns"],
    hessian: Float[Tensor, "columns columns"],
    damping: float,
    quantizer: ColumnQuantizer,
) -> Int8[Tensor, "rows columns"] | Int16[Tensor, "rows columns"]:
    """The meaning of `quantize_columns`, in float64 and with the inverse Hessian itself instead of a factor.

    After each column its input is eliminated from the inverse, ``G <- G - G[:, j] G[j, :] / G_jj``, and the columns that
    remain move by the best response to its error, ``-(error / G_jj) G[j, m]``.
    """
    matrix, dead = damped(hessian.double(), damping)
    inverse = torch.linalg.inv(matrix)
    work = weight.double().masked_fill(dead, 0.0)
    codes = torch.zeros(weight.shape, dtype=quantizer.dtype)
    for j in torch.argsort(matrix.diagonal(), descending=True, stable=True).tolist():
        codes[:, j], values = quantizer.quantize(work[:, j], j)
        error = (work[:, j] - values) / inverse[j, j]
        work -= torch.outer(error, inverse[j])
        inverse -= torch.outer(inverse[:, j], inverse[j]) / inverse[j, j]
    return codes


def gptq_plain(
    weight: Float[Tensor, "rows columns"],
    scales: Float16[Tensor, "rows"],
    hessian: Float[Tensor, "columns columns"],
    bits: int,
    damping: float,
    protected: ProtectedColumns | None = None,
) -> Int8[Tensor, "rows columns"]:
    """The meaning of `gptq`."""
    return quantize_columns_plain(weight, hessian, damping, RoundedColumns(scales, bits, weight.shape[1], protected))

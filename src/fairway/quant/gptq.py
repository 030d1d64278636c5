"""GPTQ: quantize one column after the other and let the later columns make up for each error.

For a matrix ``W`` (rows are outputs) whose inputs have second moments ``H``, quantization should keep
``tr(E H E^T)`` small, the squared change of the outputs, where ``E = W - codes * scales``. With the columns in the order
of falling ``H_jj``, ``U`` the upper Cholesky factor of ``H^-1 = U^T U``, and ``w_j`` the current column j:

    q_j = clamp(round_half_even(w_j / s), -c, c)
    e_j = (w_j - q_j s) / U_jj
    w_m <- w_m - e_j U_jm       for all m > j

Rows do not depend on each other. Then ``E = Err U`` with the columns ``e_j`` of ``Err``, and ``tr(E H E^T) = |Err|^2``.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Float16, Int, Int8
from torch import Tensor

from fairway.base.errors import RecipeError
from fairway.base.log import logger
from fairway.quant.grid import max_code
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


def gptq(
    weight: Float[Tensor, "rows columns"],
    scales: Float16[Tensor, "rows"],
    factor: Factor,
    bits: int,
    block: int = BLOCK,
    protected: ProtectedColumns | None = None,
) -> Int8[Tensor, "rows columns"]:
    """Codes of ``weight`` that keep ``tr(E H E^T)`` small; see the top of this file.

    The weights of dead inputs are dropped and get code 0, as published, even where they are large: an input that the
    calibration never saw cannot contribute later either. Blocks change the order of float32 sums and nothing else.

    Args:
        weight: Original matrix, columns in their own order.
        scales: Step of each row, > 0.
        factor: From `factorize`.
        bits: Width of a code.
        block: Columns per block.
        protected: Columns that take their own bits and scales, in the codes and in the errors that they pass on.

    Source: arXiv 2210.17323; order, damping and dead inputs as in PR #1394; protected columns: PR #1908.
    """
    upper = factor.upper
    grids, finer = _grids(scales.float(), bits, protected, weight.shape[1])
    finer = finer[factor.order].tolist()
    # Transposed, so that a column of the matrix is contiguous memory.
    work = weight.float().masked_fill(factor.dead, 0.0)[:, factor.order].T.contiguous()
    codes = torch.empty_like(work)
    columns = len(work)
    for start in range(0, columns, block):
        stop = min(start + block, columns)
        errors = torch.empty(stop - start, work.shape[1])
        for j in range(start, stop):
            steps, limit = grids[finer[j]]
            codes[j] = (work[j] / steps).round_().clamp_(-limit, limit)
            errors[j - start] = (work[j] - codes[j] * steps) / upper[j, j]
            work[j + 1 : stop].addr_(upper[j, j + 1 : stop], errors[j - start], alpha=-1)
        work[stop:].addmm_(upper[start:stop, stop:].T, errors, alpha=-1)
    restored = torch.empty(weight.shape, dtype=torch.int8)
    restored[:, factor.order] = codes.T.to(torch.int8)
    return restored


def _grids(
    steps: Tensor, bits: int, protected: ProtectedColumns | None, columns: int
) -> tuple[list[tuple[Tensor, int]], Tensor]:
    """Steps and largest code of ordinary and of protected columns, and which column is which."""
    grids = [(steps, max_code(bits))]
    if protected is None:
        return grids, torch.zeros(columns, dtype=torch.bool)
    return [*grids, (protected.scales.to(steps.dtype), max_code(protected.bits))], protected.mask(columns)


def gptq_plain(
    weight: Float[Tensor, "rows columns"],
    scales: Float16[Tensor, "rows"],
    hessian: Float[Tensor, "columns columns"],
    bits: int,
    damping: float,
    protected: ProtectedColumns | None = None,
) -> Int8[Tensor, "rows columns"]:
    """The meaning of `gptq`, in float64 and with the inverse Hessian itself instead of a factor.

    After each column its input is eliminated from the inverse, ``G <- G - G[:, j] G[j, :] / G_jj``, and the columns that
    remain move by the best response to its error, ``-(error / G_jj) G[j, m]``.
    """
    grids, finer = _grids(scales.double(), bits, protected, weight.shape[1])
    matrix, dead = damped(hessian.double(), damping)
    inverse = torch.linalg.inv(matrix)
    work = weight.double().masked_fill(dead, 0.0)
    codes = torch.zeros(weight.shape, dtype=torch.int8)
    for j in torch.argsort(matrix.diagonal(), descending=True, stable=True).tolist():
        steps, limit = grids[int(finer[j])]
        code = (work[:, j] / steps).round().clamp(-limit, limit)
        codes[:, j] = code.to(torch.int8)
        error = (work[:, j] - code * steps) / inverse[j, j]
        work -= torch.outer(error, inverse[j])
        inverse -= torch.outer(inverse[:, j], inverse[j]) / inverse[j, j]
    return codes

"""Low-rank repair: add a product of two thin integer matrices that makes up for part of the quantization error.

Published form (LQER as in PR #1797 and PR #2140): the plain SVD of ``E = W - W_q``, ``A = U_r S_r`` and ``B = V_r^T``, with one
scale for all of A, whose codes lie in [-2, 1]. Most of A rounds to zero, the result depends on the arbitrary signs of the
singular vectors, and the error of the outputs may grow.

Hessian form: what counts is ``tr(E H E^T) = |E L|^2`` with ``H = L L^T``. The best rank-r correction comes from the SVD
``E L = U S Z^T``: ``A B = U_r S_r Z_r^T L^-1``, which is also ``U_r U_r^T E``. Each column of A has a scale of its own and
symmetric codes of 4 bits; that scale is carried by the rows of B, so that it costs nothing. B is itself the matrix of a linear
map with inputs of moments H, so GPTQ finds its codes. A repair is kept only where ``tr(E H E^T)`` falls.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from fairway.quant.clip import LARGEST_SCALE, SMALLEST_SCALE
from fairway.quant.gptq import damped, factorize, gptq
from fairway.quant.grid import max_code, round_to_codes
from fairway.quant.report import hessian_error
from fairway.quant.types import LowRank, ScaledCodes

GROUP = 64
"""Neighbouring entries of B that share a scale in the asymmetric packing. PR #2140."""

FACTOR_BITS = 4
"""Width of the symmetric codes of both factors. PR #1797."""


def svd_factors(
    error: Float[Tensor, "rows columns"], rank: int
) -> tuple[Float[Tensor, "rows rank"], Float[Tensor, "rank columns"]]:
    """``A = U_r S_r`` and ``B = V_r^T`` of the plain SVD; ``A B`` is the nearest matrix of rank r in the Frobenius norm."""
    u, s, v = torch.linalg.svd(error, full_matrices=False)
    return u[:, :rank] * s[:rank], v[:rank]


def pack_published(left: Float[Tensor, "rows rank"], right: Float[Tensor, "rank columns"]) -> LowRank:
    """Codes of both factors as PR #2140 packs them: asymmetric where B can be cut into groups of 64, else symmetric.

    Asymmetric: ``s_A = max|A| / 1.5`` with codes in [-2, 1]; per group of the row-major B ``max / 7.5`` with codes in
    [-8, 7]. Symmetric: ``max / 7`` per row of either factor. A zero group takes the smallest normal float16 instead of 0.
    """
    if right.numel() % GROUP:
        return LowRank(_symmetric(left), _symmetric(right))
    groups = right.reshape(-1, GROUP)
    left_scale, right_scales = _scales(left.reshape(1, -1), 1.5), _scales(groups, 7.5)
    left_codes = (left / left_scale.float()).round().clamp(-2, 1).to(torch.int8)
    right_codes = (groups / right_scales.float()[:, None]).round().clamp(-8, 7).to(torch.int8)
    return LowRank(ScaledCodes(left_codes, left_scale), ScaledCodes(right_codes.reshape(right.shape), right_scales))


def repair_published(error: Float[Tensor, "rows columns"], rank: int) -> LowRank:
    """The repair of PR #2140: plain SVD, published packing, no test whether it helps."""
    return pack_published(*svd_factors(error, rank))


def weighted_factors(
    error: Float[Tensor, "rows columns"], hessian: Float[Tensor, "columns columns"], rank: int
) -> tuple[Float[Tensor, "rows rank"], Float[Tensor, "rank columns"]]:
    """``A`` and ``B`` whose product takes most from ``tr(E H E^T)`` among all matrices of rank r.

    The singular vectors come from the smaller of both Gram matrices, in float64: ``E H E^T`` or ``L^T E^T E L``.

    Args:
        error: What quantization left.
        hessian: Positive definite: damped.
        rank: Columns of A.
    """
    exact, moments = error.double(), hessian.double()
    if len(exact) <= exact.shape[1]:
        left = torch.linalg.eigh(exact @ moments @ exact.T).eigenvectors[:, -rank:]
        return left.float(), (left.T @ exact).float()
    lower = torch.linalg.cholesky(moments)
    work = exact @ lower
    vectors = torch.linalg.eigh(work.T @ work).eigenvectors[:, -rank:]
    return (work @ vectors).float(), torch.linalg.solve_triangular(lower, vectors.T, upper=False, left=False).float()


def repair_weighted(
    error: Float[Tensor, "rows columns"], hessian: Float[Tensor, "columns columns"], rank: int, damping: float
) -> LowRank | None:
    """The Hessian form, or None where it would not make ``tr(E H E^T)`` smaller; see the top of this file.

    The signs of singular vectors do not matter: a column of A and a row of B that change sign together keep their product.

    Args:
        error: What quantization left.
        hessian: Second moments of the inputs, undamped.
        rank: Rank of the repair, at most that of ``error``.
        damping: Share of the mean diagonal that is added before the factorisation.
    """
    if not bool(error.any()):
        return None
    factor = factorize(hessian, damping)
    left, right = weighted_factors(error, damped(hessian, factor.damping)[0], rank)
    limit = max_code(FACTOR_BITS)
    steps = left.abs().amax(dim=0).clamp_min(torch.finfo(torch.float32).tiny) / limit
    codes = (left / steps).round().clamp(-limit, limit).to(torch.int8)
    right = right * steps[:, None]
    # Half of the size goes to either factor, so that the scales of both are far from the ends of float16.
    scale = (right.abs().max() / limit).sqrt().clamp(SMALLEST_SCALE, LARGEST_SCALE).to(torch.float16).reshape(1)
    right = right / scale.float()
    right_scales = _scales(right, limit)
    packed = LowRank(ScaledCodes(codes, scale), ScaledCodes(gptq(right, right_scales, factor, FACTOR_BITS), right_scales))
    after = (error.double() - packed.product()).float()
    return packed if hessian_error(after, hessian) < hessian_error(error, hessian) else None


def _symmetric(factor: Float[Tensor, "rows columns"]) -> ScaledCodes:
    scales = _scales(factor, max_code(FACTOR_BITS))
    return ScaledCodes(round_to_codes(factor, scales, FACTOR_BITS), scales)


def _scales(rows: Float[Tensor, "rows columns"], limit: float | int) -> Tensor:
    return (rows.abs().amax(dim=1) / limit).clamp(SMALLEST_SCALE, LARGEST_SCALE).to(torch.float16)

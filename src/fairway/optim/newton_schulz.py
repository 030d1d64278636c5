"""Orthogonalisation of matrices by Newton-Schulz iteration, batched, with nothing but matrix products.

A matrix ``X = U diag(s) V^T`` with Frobenius norm 1 has singular values in [0, 1]. One iteration with the odd polynomial
``p(s) = a s + b s^3 + c s^5`` applies ``p`` to every singular value and leaves ``U`` and ``V`` alone:

    S = X X^T;   X <- a X + (b S + c S S) X

A few iterations bring all singular values above about 0.002 near 1, so that the result is close to ``U V^T``: an update
that moves every direction by the same amount. One polynomial for all steps leaves them in [0.68, 1.20]; Polar Express has
one for each of five steps, each the best for what the steps before it leave, and ends in [0.86, 1.14] from 0.001 on.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

Triple = tuple[float, float, float]

COEFFICIENTS: dict[str, tuple[Triple, ...]] = {
    "quintic": ((3.4445, -4.7750, 2.0315),),
    "polar_express": (
        (8.156554524902461, -22.48329292557795, 15.878769915207462),
        (4.042929935166739, -2.808917465908714, 0.5000178451051316),
        (3.8916678022926607, -2.772484153217685, 0.5060648178503393),
        (3.285753657755655, -2.3681294933425376, 0.46449024233003106),
        (2.3465413258596377, -1.7097828382687081, 0.42323551169305323),
    ),
}
"""Triples (a, b, c) by the names of ``optim.matrices.coefficients``. A single triple serves every step; a longer list holds
one triple per step and ends there. quintic: PR #1394; polar_express: arXiv 2505.16932, PR #2140."""

NORM_FLOOR = 1e-7
"""Added to the Frobenius norm, so that a zero matrix stays zero. PR #1394."""

CPU_SLICE_BYTES = 512 * 1024
"""Size of the part of a batch that a CPU works on at once: about a core's second-level cache. Of 32 x 32 matrices 22 at once
take a fifth of the time of one at a time; of 512 x 2048 matrices 11 at once take some per cent longer
(``benchmarks/bench_banks.py``)."""


def orthogonalize(
    update: Float[Tensor, "*batch rows columns"],
    steps: int,
    coefficients: Sequence[Triple] = COEFFICIENTS["quintic"],
    dtype: torch.dtype = torch.float32,
) -> Float[Tensor, "*batch rows columns"]:
    """Replace each matrix ``U diag(s) V^T`` by about ``U V^T``: ``X <- a X + (b S + c S S) X`` with ``S = X X^T``.

    A tall matrix is worked on transposed, so that ``S`` has the smaller side.

    Args:
        update: Matrices over the last two dimensions; every one is normalised by its own Frobenius norm.
        steps: Iterations; 5 in every published system. A list of triples serves no more steps than it has; a recipe that
            asks for more is refused.
        coefficients: An entry of ``COEFFICIENTS``.
        dtype: Type of the matrix products and of the result: bfloat16 on a GPU, float32 on a CPU.

    Source: Muon; arXiv 2502.16982.
    """
    shape = update.shape
    batch = update.reshape(-1, *shape[-2:])
    triples = list(coefficients) * steps if len(coefficients) == 1 else coefficients[:steps]
    slices = [_iterate(part, triples, dtype) for part in batch.split(_matrices_at_once(batch))]
    return (slices[0] if len(slices) == 1 else torch.cat(slices)).reshape(shape)


def _matrices_at_once(batch: Tensor) -> int:
    """A GPU takes the whole batch; a CPU as many as stay in the cache from the first product to the last, at least one."""
    bytes_each = batch.shape[-2] * batch.shape[-1] * batch.element_size()
    return max(1, CPU_SLICE_BYTES // bytes_each if batch.device.type == "cpu" else len(batch))


def _iterate(update: Tensor, triples: Sequence[Triple], dtype: torch.dtype) -> Tensor:
    """All iterations for one batch."""
    norm = torch.linalg.matrix_norm(update, keepdim=True)
    matrices = (update / (norm + NORM_FLOOR)).to(dtype)
    tall = update.shape[-2] > update.shape[-1]
    if tall:
        matrices = matrices.mT.contiguous()
    for a, b, c in triples:
        gram = torch.bmm(matrices, matrices.mT)
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        matrices = torch.baddbmm(matrices, polynomial, matrices, beta=a)
    return matrices.mT if tall else matrices


def orthogonalize_plain(matrix: Float[Tensor, "rows columns"], triples: Sequence[Triple]) -> Float[Tensor, "rows columns"]:
    """The meaning of `orthogonalize` for one matrix, one triple per step, never transposed."""
    x = matrix / (matrix.norm() + NORM_FLOOR)
    for a, b, c in triples:
        gram = x @ x.T
        x = a * x + b * gram @ x + c * gram @ gram @ x
    return x

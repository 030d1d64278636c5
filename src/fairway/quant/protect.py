"""Which columns keep more bits: the groups where large inputs meet large weights, over all matrices of the network.

The score of a group of neighbouring columns is ``sum_j a_j * mean_i |W_ij|`` with ``a_j`` the root mean square of input j.
Nothing is rescaled, unlike AWQ (arXiv 2306.00978), from which the score comes; scores of matrices of different size are
compared as they are, so in the published runs only the tied embedding ever wins.
"""

import heapq
from collections.abc import Mapping
from dataclasses import replace

from jaxtyping import Float
from torch import Tensor

from fairway.base.errors import RecipeError
from fairway.config import ProtectionConfig, SchemeConfig
from fairway.quant.hessian import Hessians
from fairway.quant.plan import Plan
from fairway.quant.steps import row_scales
from fairway.quant.types import ProtectedColumns


def group_scores(weight: Float[Tensor, "rows columns"], rms: Float[Tensor, "columns"], columns: int) -> Float[Tensor, "groups"]:
    """Score of every full group of ``columns`` neighbours, ``sum_j a_j * mean_i |W_ij|``; a remainder is no group.

    Args:
        weight: The original matrix.
        rms: ``a_j``, from the calibration.
        columns: Width of a group.
    """
    full = weight.shape[1] // columns * columns
    salience = rms.double() * weight.double().abs().mean(dim=0)
    return salience[:full].reshape(-1, columns).sum(dim=1)


def choose_protected(
    state: Mapping[str, Tensor], plan: Plan, hessians: Mapping[str, Tensor] | None
) -> dict[str, tuple[int, ...]]:
    """First columns of the protected groups by parameter name: the best ``plan.protection.groups`` over the whole network.

    Candidates are the GPTQ matrices of fewer bits than a protected code. Equal scores go to the earlier parameter and column.

    Raises:
        RecipeError: the statistics do not come from a calibration, or the network has fewer groups than asked for.

    Source: PR #1908, PR #2140.
    """
    config = plan.protection
    if not config.groups:
        return {}
    if not isinstance(hessians, Hessians):
        raise RecipeError("quant.protection needs the activations of a calibration; calibrate first or set groups=0")
    candidates: list[tuple[float, str, int]] = []
    for name, scheme in plan.schemes.items():
        # A matrix without a fitting Hessian is refused by name when GPTQ comes to it.
        fits = name in hessians and len(hessians[name]) == state[name].shape[-1]
        if scheme is not None and scheme.method == "gptq" and scheme.bits < config.bits and fits:
            scores = group_scores(state[name].detach().cpu().float(), hessians.activation_rms(name), config.columns)
            candidates += [(score, name, index * config.columns) for index, score in enumerate(scores.tolist())]
    if len(candidates) < config.groups:
        raise RecipeError(
            f"quant.protection.groups={config.groups} of {config.columns} columns, but the network has {len(candidates)} such "
            "groups; lower groups or columns"
        )
    chosen: dict[str, tuple[int, ...]] = {}
    for _, name, start in heapq.nlargest(config.groups, candidates, key=lambda candidate: candidate[0]):
        chosen[name] = tuple(sorted((*chosen.get(name, ()), start)))
    return chosen


def protect(
    weight: Float[Tensor, "rows columns"],
    diagonal: Float[Tensor, "columns"] | None,
    scheme: SchemeConfig,
    config: ProtectionConfig,
    starts: tuple[int, ...],
    factor: float = 1.0,
) -> ProtectedColumns:
    """Grid of protected columns: the steps of ``scheme`` over all columns of each row, with the bits of ``config``.

    Args:
        weight: The original matrix.
        diagonal: ``H_jj`` as measured, for schemes with importance.
        scheme: Scheme of the matrix.
        config: Width of the groups and of their codes.
        starts: First column of each group, rising.
        factor: On all steps.
    """
    scales = row_scales(weight, diagonal, replace(scheme, bits=config.bits), factor)
    return ProtectedColumns(starts, config.columns, config.bits, scales)

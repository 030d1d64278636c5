"""What a bit is worth, and whether an extra is worth its bits.

At high rate one more bit for every weight divides the squared error by 4, so a matrix of N weights with the error D gives up
``2 ln 2 D / N`` of it for one bit. Where the steps are shared out for the least error, that price is the same for all matrices,
and the common price, from the sums over all of them, is the multiplier of Lagrange; elsewhere it is their mean.
"""

import math
from collections.abc import Iterable

from fairway.quant.types import TensorReport


def weighted_error(report: TensorReport) -> float:
    """Error of a matrix's outputs in the common measure: the expected rise of the loss, or ``tr(E H E^T)`` without it."""
    return report.expected_loss if report.expected_loss is not None else report.hessian_error or 0.0


def price_of_a_bit(reports: Iterable[TensorReport]) -> float:
    """``2 ln 2 sum D / sum N`` over the matrices that GPTQ made; 0 if there is none."""
    made = [report for report in reports if report.method == "gptq"]
    weights = sum(math.prod(report.shape) for report in made)
    return 2 * math.log(2) * sum(map(weighted_error, made)) / weights if made else 0.0


def is_worth(before: TensorReport, after: TensorReport, extra_bits: float, price: float) -> bool:
    """Whether the error of a matrix falls by more than as many bits would buy as finer steps.

    Args:
        before: The matrix without the extra.
        after: The matrix with it.
        extra_bits: What it costs.
        price: From `price_of_a_bit`.
    """
    return weighted_error(before) - weighted_error(after) > price * extra_bits

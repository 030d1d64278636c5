"""One matrix from weights to codes, by its scheme."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from fairway.config import SchemeConfig
from fairway.quant.columns import ColumnQuantizer, RoundedColumns, TrellisColumns
from fairway.quant.gptq import Factor, quantize_columns
from fairway.quant.grid import round_to_codes
from fairway.quant.rates import centroid_gain, pilot
from fairway.quant.steps import column_factors, row_scales
from fairway.quant.types import ProtectedColumns, QuantizedTensor


@dataclass(frozen=True, eq=False)
class Calibrated:
    """What calibration knows of one matrix."""

    hessian: Float[Tensor, "columns columns"]
    """Second moments of its inputs per batch, undamped."""
    factor: Factor | None = None
    """The same, damped and factorised, for GPTQ."""
    sensitivity: Float[Tensor, "rows"] | None = None
    """Mean squared gradient of the loss by each output; None where no gradient was measured."""
    tokens: float = 1.0
    """Positions of the text per batch."""

    def expected_loss(self, error: Float[Tensor, "rows columns"]) -> float | None:
        """Rise of the loss in nats per token, ``sum_i g_i (E H E^T)_ii / 2`` per token; None without gradients."""
        if self.sensitivity is None:
            return None
        rows = ((error @ self.hessian) * error).sum(dim=1, dtype=torch.float64)
        return float(rows @ self.sensitivity.double()) / (2 * self.tokens)


def quantize_matrix(
    weight: Float[Tensor, "rows columns"],
    scheme: SchemeConfig,
    known: Calibrated | None,
    factor: float = 1.0,
    protected: ProtectedColumns | None = None,
) -> QuantizedTensor:
    """Steps, gain and codes of one matrix. The steps come from the original weights, not from those that GPTQ has moved.

    Args:
        weight: The original matrix, float32 on the CPU.
        scheme: How it is stored.
        known: Its calibration; needed for GPTQ.
        factor: On all steps.
        protected: Columns with a finer grid.
    """
    diagonal = None if known is None else known.hessian.diagonal()
    scales = row_scales(weight, diagonal, scheme, factor)
    columns = None
    if scheme.method == "round":
        codes: Tensor = round_to_codes(weight, scales, scheme.bits)
        gain = _gain(weight, scales, codes) if scheme.centroids else 1.0
    else:
        assert known is not None, "GPTQ needs a Hessian"
        assert known.factor is not None, "GPTQ needs a Hessian"
        if scheme.column_steps == "conditional":
            columns = column_factors(known.factor, scheme.scale_grid)
        quantizer, gain = _quantizer(weight.masked_fill(known.factor.dead, 0.0), scheme, scales, columns, protected)
        codes = quantize_columns(weight, known.factor, quantizer)
    return QuantizedTensor(
        codes, scales, scheme.bits, protected,
        trellis=scheme.states, gain=gain, scale_grid=scheme.scale_grid, column_scales=columns,
    )  # fmt: skip


SCALAR_ERROR, TRELLIS_ERROR = 1 / 12, 0.26
"""Mean squared error in squared steps at high rate; of a trellis with 8 states, and 0.24 to 0.265 with others."""


def step_share(weight: Float[Tensor, "rows columns"], scheme: SchemeConfig, known: Calibrated) -> Float64[Tensor, ""]:
    """Factor on the steps of a matrix that makes the high-rate error of its outputs the same number for each weight.

    With steps a times those of the scheme the error is ``a^2 K``, where ``K`` sums ``D g_i s_i^2 c_j^2 / U_jj^2``, and the N
    weights take ``N log2(1 / a)`` bits more than at 1. By Lagrange's multiplier, the sum of errors over all matrices is least
    for the sum of bits where ``a^2 K / N`` is the same for all. Outputs without a measured gradient have ``g_i = 1``.
    """
    assert known.factor is not None, "bytes are shared by Hessians"
    rows = row_scales(weight, known.hessian.diagonal(), scheme).double().square()
    if known.sensitivity is not None:
        rows = rows * known.sensitivity.double()
    columns = known.factor.upper.diagonal().double() ** -2
    if scheme.column_steps == "conditional":
        columns = columns * column_factors(known.factor, scheme.scale_grid).double().square()[known.factor.order]
    live = ~known.factor.dead[known.factor.order]
    total = (TRELLIS_ERROR if scheme.states else SCALAR_ERROR) * rows.sum() * columns[live].sum()
    # Nothing depends on a matrix without inputs or gradients; its steps may be as they are.
    return (weight.numel() / total).sqrt() if float(total) > 0 else torch.ones((), dtype=torch.float64)


def _quantizer(
    weight: Tensor, scheme: SchemeConfig, scales: Tensor, columns: Tensor | None, protected: ProtectedColumns | None
) -> tuple[ColumnQuantizer, float]:
    """The column quantizer of a scheme, and its gain, found before GPTQ since GPTQ propagates the errors that remain."""
    if scheme.states:
        steps = scales.double()[:, None] if columns is None else scales.double()[:, None] * columns.double()
        gain, prices = pilot(
            (weight / steps).numpy(), scales.double().square().numpy(), scheme.states, centroids=scheme.centroids
        )
        return TrellisColumns(scales, scheme.states, prices, gain=gain, column_scales=columns), gain
    plain = RoundedColumns(scales, scheme.bits, weight.shape[1], protected, column_scales=columns)
    if not scheme.centroids:
        return plain, 1.0
    codes = torch.stack([plain.quantize(column, index)[0] for index, column in enumerate(weight.T)], dim=1)
    gain = _gain(weight if columns is None else weight / columns.double(), scales, codes)
    return RoundedColumns(scales, scheme.bits, weight.shape[1], protected, gain=gain, column_scales=columns), gain


def _gain(weight: Tensor, scales: Tensor, codes: Tensor) -> float:
    steps = scales.double()
    return centroid_gain((weight / steps[:, None]).numpy(), codes.numpy(), steps.square().numpy())

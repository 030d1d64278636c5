"""Quantizers of one column of a matrix, the part of GPTQ that schemes differ in."""

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Float16, Int16
from torch import Tensor

from fairway.quant.grid import max_code
from fairway.quant.rates import PriceList
from fairway.quant.trellis import PathEncoder
from fairway.quant.types import ProtectedColumns


@runtime_checkable
class ColumnQuantizer(Protocol):
    """Turns a column into codes and the values that they stand for."""

    dtype: torch.dtype
    """Type of the codes."""

    def quantize(
        self, column: Float[Tensor, "rows"], index: int
    ) -> tuple[Float[Tensor, "rows"] | Int16[Tensor, "rows"], Float[Tensor, "rows"]]:
        """Codes and values of ``column``, whose index in the matrix is ``index``; the values have the dtype of the column."""
        ...


class RoundedColumns:
    """Each weight takes the nearest code on its own: ``clamp(round_half_even(w / s), -c, c)``, which stands for ``gain s q``.

    Protected columns have their own s and c. The gain moves what a code stands for to the centroid of its cell; the cells
    stay where they are.
    """

    dtype = torch.int8

    def __init__(
        self,
        scales: Float16[Tensor, "rows"],
        bits: int,
        columns: int,
        protected: ProtectedColumns | None = None,
        *,
        gain: float = 1.0,
        column_scales: Float16[Tensor, "columns"] | None = None,
    ) -> None:
        """Args: scales: of the rows; bits: of a code; columns: of the matrix; the others as in `QuantizedTensor`."""
        self.gain = gain
        self.column_scales = [1.0] * columns if column_scales is None else column_scales.tolist()
        self.grids = [(scales, max_code(bits))]
        self.finer = [0] * columns
        if protected is not None:
            self.grids.append((protected.scales, max_code(protected.bits)))
            self.finer = protected.mask(columns).int().tolist()

    def quantize(self, column: Float[Tensor, "rows"], index: int) -> tuple[Float[Tensor, "rows"], Float[Tensor, "rows"]]:
        """Codes and values of one column."""
        scales, limit = self.grids[self.finer[index]]
        steps = scales.to(column.dtype) * self.column_scales[index]
        codes = (column / steps).round_().clamp_(-limit, limit)
        return codes, codes * (steps * self.gain)


class TrellisColumns:
    """The codes of a column are the cheapest path of a trellis down its rows; a column of zeros takes codes of 0."""

    dtype = torch.int16

    def __init__(
        self,
        scales: Float16[Tensor, "rows"],
        states: int,
        prices: PriceList,
        *,
        gain: float = 1.0,
        column_scales: Float16[Tensor, "columns"] | None = None,
    ) -> None:
        """Args: scales: of the rows; states: of the trellis; prices: of codes; the others as in `QuantizedTensor`."""
        self.steps = gain * scales.double()
        self.column_scales = None if column_scales is None else column_scales.double()
        self.prices = prices
        self.encoder = PathEncoder(states, len(scales))

    def quantize(self, column: Float[Tensor, "rows"], index: int) -> tuple[Int16[Tensor, "rows"], Float[Tensor, "rows"]]:
        """Codes and values of one column."""
        if not bool(column.any()):
            return torch.zeros(len(column), dtype=self.dtype), torch.zeros_like(column)
        steps = self.steps if self.column_scales is None else self.steps * self.column_scales[index]
        codes = torch.from_numpy(self.encoder.encode((column / steps).numpy(), self.prices.of_column(index)))
        return codes, (codes * steps).to(column.dtype)

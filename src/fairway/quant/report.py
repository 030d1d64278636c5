"""What quantization did to a tensor: errors of the weights and of the outputs, and the entropy of the codes."""

import torch
from jaxtyping import Float, Int8, Int16
from torch import Tensor

from fairway.quant.grid import LARGEST_CODE, max_code
from fairway.quant.matrix import Calibrated
from fairway.quant.types import LowRank, Method, QuantizedTensor, TensorReport

FLOAT_BITS = 16
"""Bits of a scale or control."""


def code_entropy(codes: Int8[Tensor, "..."] | Int16[Tensor, "..."]) -> float:
    """Order-0 entropy in bits per code, ``-sum p log2 p`` over the shares ``p`` of the values that occur."""
    counts = codes.flatten().unique(return_counts=True)[1].double()
    shares = counts / counts.sum()
    return float(-(shares * shares.log2()).sum())


def path_entropy(codes: Int16[Tensor, "rows columns"]) -> float:
    """Entropy in bits per code of the paths of a trellis, whose states tell whether a code is even."""
    odd = (codes & 1).bool()
    return sum(code_entropy(part) * part.numel() for part in (codes[odd], codes[~odd]) if part.numel()) / codes.numel()


def repair_bits(repair: LowRank) -> float:
    """Bits of both factors of a repair by the entropy of their codes, and of their scales."""
    factors = (repair.left, repair.right)
    return sum(code_entropy(part.codes) * part.codes.numel() + FLOAT_BITS * len(part.scales) for part in factors)


def hessian_error(error: Float[Tensor, "rows columns"], hessian: Float[Tensor, "columns columns"]) -> float:
    """``tr(E H E^T)`` with the undamped Hessian."""
    return float(((error @ hessian) * error).sum(dtype=torch.float64))


def _errors(weight: Tensor, restored: Tensor) -> tuple[float, float]:
    """Root mean square of the error, and the same relative to the weight."""
    absolute = float((weight - restored).double().square().mean().sqrt())
    size = float(weight.double().square().mean().sqrt())
    return absolute, absolute / size if size else 0.0


def control_report(name: str, weight: Tensor, control: Tensor) -> TensorReport:
    """What became of a parameter that is stored as float16."""
    absolute, relative = _errors(weight, control.float())
    return TensorReport(
        name=name,
        method="float16",
        shape=tuple(weight.shape),
        bits=16,
        rms_error=absolute,
        relative_error=relative,
        hessian_error=None,
        entropy_bits=None,
        clipped=0.0,
        damping=None,
    )


def tensor_report(
    name: str,
    method: Method,
    weight: Tensor,
    tensor: QuantizedTensor,
    known: Calibrated | None = None,
) -> TensorReport:
    """What became of a matrix.

    Args:
        name: Parameter name.
        method: How its codes were found.
        weight: The original, float32.
        tensor: What is stored.
        known: Its calibration, where there was one.
    """
    restored = tensor.dequantize()
    absolute, relative = _errors(weight, restored)
    return TensorReport(
        name=name,
        method=method,
        shape=tuple(weight.shape),
        bits=tensor.bits,
        rms_error=absolute,
        relative_error=relative,
        hessian_error=None if known is None else hessian_error(weight - restored, known.hessian),
        entropy_bits=_entropy(tensor),
        clipped=_clipped(tensor),
        damping=None if known is None or known.factor is None else known.factor.damping,
        protected=len(tensor.protected.starts) * tensor.protected.size if tensor.protected else 0,
        repair_rank=tensor.repair.rank if tensor.repair else 0,
        trellis=tensor.trellis,
        expected_loss=None if known is None else known.expected_loss(weight - restored),
    )


def _entropy(tensor: QuantizedTensor) -> float:
    if tensor.trellis:
        return path_entropy(tensor.codes)
    return sum(code_entropy(codes) * codes.numel() for codes, _ in tensor.grids()) / tensor.codes.numel()


def _clipped(tensor: QuantizedTensor) -> float:
    if tensor.trellis:
        return int((tensor.codes.abs() == LARGEST_CODE).sum()) / tensor.codes.numel()
    return sum(int((codes.abs() == max_code(bits)).sum()) for codes, bits in tensor.grids()) / tensor.codes.numel()

"""What quantization did to a tensor: errors of the weights and of the outputs, and the entropy of the codes."""

import torch
from jaxtyping import Float, Int8
from torch import Tensor

from fairway.quant.grid import max_code
from fairway.quant.types import Method, QuantizedTensor, TensorReport


def code_entropy(codes: Int8[Tensor, "rows columns"]) -> float:
    """Order-0 entropy in bits per code, ``-sum p log2 p`` over the shares ``p`` of the values that occur."""
    counts = torch.bincount(codes.flatten().int() + 128, minlength=256).double()
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * shares.log2()).sum())


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
    name: str, method: Method, weight: Tensor, tensor: QuantizedTensor, hessian: Tensor | None, damping: float | None
) -> TensorReport:
    """What became of a matrix.

    Args:
        name: Parameter name.
        method: How its codes were found.
        weight: The original, float32.
        tensor: What is stored.
        hessian: Second moments of its inputs, undamped, where they are known.
        damping: Share of the mean diagonal that GPTQ added.
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
        hessian_error=None if hessian is None else hessian_error(weight - restored, hessian),
        entropy_bits=sum(code_entropy(codes) * codes.numel() for codes, _ in tensor.grids()) / tensor.codes.numel(),
        clipped=sum(int((codes.abs() == max_code(bits)).sum()) for codes, bits in tensor.grids()) / tensor.codes.numel(),
        damping=damping,
        protected=len(tensor.protected.starts) * tensor.protected.size if tensor.protected else 0,
        repair_rank=tensor.repair.rank if tensor.repair else 0,
    )

"""From float weights to codes by plan, with a report per tensor, and back."""

import contextlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

import torch
from jaxtyping import Float, Int8
from torch import Tensor

from fairway.base.errors import RecipeError
from fairway.config import SchemeConfig
from fairway.quant.clip import sdclip
from fairway.quant.gptq import factorize, gptq
from fairway.quant.grid import max_code, round_to_codes
from fairway.quant.hessian import Hessians
from fairway.quant.plan import Plan
from fairway.quant.types import QuantizedState, QuantizedTensor, TensorReport


def quantize_state(state: Mapping[str, Tensor], plan: Plan, hessians: Hessians | None = None) -> QuantizedState:
    """Turn every tensor of a network into codes or float16, as ``plan`` says.

    The arithmetic is float32 on the CPU, several tensors at a time. The scales come from the original weights, not from
    those that GPTQ has moved.

    Args:
        state: Weights by parameter name, of any float type and device; those of the plan and no others.
        plan: From `make_plan`.
        hessians: From `collect_hessians`; needed for schemes with GPTQ, and used for the report where present.

    Raises:
        RecipeError: a weight is not finite or too large for float16, a Hessian is missing or has the wrong size, or the
            names of ``state`` are not those of the plan.
    """
    if state.keys() != plan.schemes.keys():
        odd = sorted(state.keys() ^ plan.schemes.keys())
        raise RecipeError(f"the weights do not match the quantization plan at {odd[0]}; make the plan from these weights")

    def store(name: str) -> tuple[QuantizedTensor | Tensor, TensorReport]:
        weight = state[name].detach().to("cpu", torch.float32)
        if not bool(weight.isfinite().all()):
            raise RecipeError(f"{name} has weights that are not finite; training diverged, lower the learning rates of optim")
        scheme = plan.schemes[name]
        if scheme is None:
            control = _to_float16(name, weight)
            return control, _control_report(name, weight, control)
        hessian = _hessian_of(name, weight, scheme, hessians)
        scales = sdclip(weight, None if hessian is None else hessian.diagonal(), scheme)
        codes, damping = _codes(weight, scales, scheme, hessian, plan.damping)
        tensor = QuantizedTensor(codes, scales, scheme.bits)
        return tensor, _report(name, weight, tensor, scheme, hessian, damping)

    with _one_tensor_per_thread() as pool:
        stored = dict(zip(plan.schemes, pool.map(store, plan.schemes), strict=True))
    return QuantizedState(
        tensors={name: item for name, (item, _) in stored.items() if isinstance(item, QuantizedTensor)},
        controls={name: item for name, (item, _) in stored.items() if isinstance(item, Tensor)},
        reports=tuple(report for _, report in stored.values()),
    )


@contextlib.contextmanager
def _one_tensor_per_thread() -> Iterator[ThreadPoolExecutor]:
    """As many workers as torch has threads, each of which computes alone.

    GPTQ makes thousands of small products in sequence. Threads that share each of them wait for one another every time,
    which on a busy machine takes ten times as long as the work; and alone, codes do not depend on the number of threads.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(threads) as pool:
            yield pool
    finally:
        torch.set_num_threads(threads)


def dequantize(quantized: QuantizedState, *, embedding_bfloat16: bool = False) -> dict[str, Tensor]:
    """Weights by parameter name, float32: ``codes * scales`` and the controls.

    Args:
        quantized: Codes and controls.
        embedding_bfloat16: Round the embedding to bfloat16 (still float32 tensors), as the published systems, which
            store it so, do after dequantization; adds about 0.2 % to its squared error at 8 bits.
    """
    state = {name: tensor.dequantize() for name, tensor in quantized.tensors.items()}
    if embedding_bfloat16:
        state["embedding.weight"] = state["embedding.weight"].bfloat16().float()
    return state | {name: control.float() for name, control in quantized.controls.items()}


def _codes(
    weight: Tensor, scales: Tensor, scheme: SchemeConfig, hessian: Tensor | None, damping: float
) -> tuple[Tensor, float | None]:
    """Codes, and the damping where GPTQ made them."""
    if scheme.method == "round":
        return round_to_codes(weight, scales, scheme.bits), None
    assert hessian is not None, "GPTQ needs a Hessian"
    factor = factorize(hessian, damping)
    return gptq(weight, scales, factor, scheme.bits), factor.damping


def _hessian_of(name: str, weight: Tensor, scheme: SchemeConfig, hessians: Hessians | None) -> Tensor | None:
    hessian = (hessians or {}).get(name)
    if hessian is None:
        if scheme.method == "gptq":
            raise RecipeError(f"{name} has no Hessian, which GPTQ needs; calibrate first or use method round")
        return None
    if hessian.shape != (weight.shape[1], weight.shape[1]):
        raise RecipeError(f"the Hessian of {name} is {tuple(hessian.shape)}, not square of {weight.shape[1]} inputs")
    return hessian.to("cpu", torch.float32)


def _to_float16(name: str, weight: Tensor) -> Tensor:
    control = weight.to(torch.float16)
    if not bool(control.isfinite().all()):
        raise RecipeError(
            f"{name} reaches {weight.abs().max():g}, beyond the 65504 of float16; lower optim.scalars.learning_rate"
        )
    return control


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


def _control_report(name: str, weight: Tensor, control: Tensor) -> TensorReport:
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


def _report(
    name: str, weight: Tensor, tensor: QuantizedTensor, scheme: SchemeConfig, hessian: Tensor | None, damping: float | None
) -> TensorReport:
    restored = tensor.dequantize()
    absolute, relative = _errors(weight, restored)
    return TensorReport(
        name=name,
        method=scheme.method,
        shape=tuple(weight.shape),
        bits=scheme.bits,
        rms_error=absolute,
        relative_error=relative,
        hessian_error=None if hessian is None else hessian_error(weight - restored, hessian),
        entropy_bits=code_entropy(tensor.codes),
        clipped=float((tensor.codes.abs() == max_code(scheme.bits)).float().mean()),
        damping=damping,
    )

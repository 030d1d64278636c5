"""From float weights to codes by plan, with a report per tensor, and back."""

import contextlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import torch
from torch import Tensor

from fairway.base.errors import RecipeError
from fairway.base.log import logger
from fairway.config import SchemeConfig
from fairway.quant.clip import row_maximum, sdclip
from fairway.quant.gptq import factorize, gptq
from fairway.quant.grid import round_to_codes
from fairway.quant.plan import Plan
from fairway.quant.protect import choose_protected, protect
from fairway.quant.repair import repair_published, repair_weighted
from fairway.quant.report import control_report, tensor_report
from fairway.quant.types import ProtectedColumns, QuantizedState, QuantizedTensor, TensorReport

GATE_BITS = 8

Stored = tuple[QuantizedTensor | Tensor, TensorReport]


def quantize_state(state: Mapping[str, Tensor], plan: Plan, hessians: Mapping[str, Tensor] | None = None) -> QuantizedState:
    """Turn every tensor of a network into codes or float16, as ``plan`` says.

    The arithmetic is float32 on the CPU, several tensors at a time. The scales come from the original weights, not from
    those that GPTQ has moved. Protected columns are chosen before, repaired matrices after the codes are known.

    Args:
        state: Weights by parameter name, of any float type and device; those of the plan and no others.
        plan: From `make_plan`.
        hessians: From `collect_hessians`; needed for schemes with GPTQ, and used for the report where present.

    Raises:
        RecipeError: a weight is not finite or too large for float16, a Hessian is missing or has the wrong size, the names
            of ``state`` are not those of the plan, or fewer columns or matrices can be protected or repaired than asked for.
    """
    if state.keys() != plan.schemes.keys():
        odd = sorted(state.keys() ^ plan.schemes.keys())
        raise RecipeError(f"the weights do not match the quantization plan at {odd[0]}; make the plan from these weights")

    protected = choose_protected(state, plan, hessians)

    def store(name: str) -> Stored:
        weight = _weight(state, name)
        scheme = plan.schemes[name]
        if name in plan.gates:
            return _store_gate(name, weight)
        if scheme is None:
            control = _to_float16(name, weight)
            return control, control_report(name, weight, control)
        hessian = _hessian_of(name, weight, scheme, hessians)
        diagonal = None if hessian is None else hessian.diagonal()
        scales = sdclip(weight, diagonal, scheme)
        starts = protected.get(name)
        finer = protect(weight, diagonal, scheme, plan.protection, starts) if starts else None
        codes, damping = _codes(weight, scales, scheme, hessian, plan.damping, finer)
        tensor = QuantizedTensor(codes, scales, scheme.bits, finer)
        return tensor, tensor_report(name, scheme.method, weight, tensor, hessian, damping)

    def mend(name: str) -> Stored:
        return _repaired(_weight(state, name), stored[name], plan, (hessians or {})[name])

    with _one_tensor_per_thread() as pool:
        stored = dict(zip(plan.schemes, pool.map(store, plan.schemes), strict=True))
        chosen = _worst({name: report for name, (_, report) in stored.items()}, plan)
        stored |= dict(zip(chosen, pool.map(mend, chosen), strict=True))
    return QuantizedState(
        tensors={name: item for name, (item, _) in stored.items() if isinstance(item, QuantizedTensor)},
        controls={name: item for name, (item, _) in stored.items() if isinstance(item, Tensor)},
        reports=tuple(report for _, report in stored.values()),
    )


def _weight(state: Mapping[str, Tensor], name: str) -> Tensor:
    weight = state[name].detach().to("cpu", torch.float32)
    if not bool(weight.isfinite().all()):
        raise RecipeError(f"{name} has weights that are not finite; training diverged, lower the learning rates of optim")
    return weight


def _store_gate(name: str, weight: Tensor) -> Stored:
    scales = row_maximum(weight, GATE_BITS)
    tensor = QuantizedTensor(round_to_codes(weight, scales, GATE_BITS), scales, GATE_BITS)
    return tensor, tensor_report(name, "maximum", weight, tensor, None, None)


def _worst(reports: Mapping[str, TensorReport], plan: Plan) -> list[str]:
    """Names of the matrices that get a repair: the largest errors in the norm that the repair lowers, largest first.

    Published: Frobenius norm of ``E``; Hessian form: ``tr(E H E^T)``. Matrices without an error are left alone.
    """
    gptq_made = [report for report in reports.values() if report.method == "gptq"]
    if len(gptq_made) < plan.repair.tensors:
        raise RecipeError(f"quant.repair.tensors={plan.repair.tensors}, but GPTQ makes {len(gptq_made)} matrices; lower it")

    def size(report: TensorReport) -> float:
        if plan.repair.weighting == "hessian":
            return report.hessian_error or 0.0
        return report.rms_error * (report.shape[0] * report.shape[1]) ** 0.5

    ranked = sorted((report for report in gptq_made if size(report) > 0), key=size, reverse=True)
    return [report.name for report in ranked[: plan.repair.tensors]]


def _repaired(weight: Tensor, stored: Stored, plan: Plan, hessian: Tensor) -> Stored:
    tensor, report = stored
    assert isinstance(tensor, QuantizedTensor), "only matrices are repaired"
    error, hessian = weight - tensor.dequantize(), hessian.to("cpu", torch.float32)
    rank = min(plan.repair.rank, *weight.shape)
    if plan.repair.weighting == "published":
        repair = repair_published(error, rank)
    else:
        repair = repair_weighted(error, hessian, rank, plan.damping)
    if repair is None:
        logger.info(f"quant repair {report.name}: left out, it would not lower the error of the outputs")
        return stored
    mended = replace(tensor, repair=repair)
    return mended, tensor_report(report.name, report.method, weight, mended, hessian, report.damping)


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
    """Weights by parameter name, float32: ``codes * scales`` with protected columns and repairs, and the controls.

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
    weight: Tensor,
    scales: Tensor,
    scheme: SchemeConfig,
    hessian: Tensor | None,
    damping: float,
    protected: ProtectedColumns | None,
) -> tuple[Tensor, float | None]:
    """Codes, and the damping where GPTQ made them."""
    if scheme.method == "round":
        return round_to_codes(weight, scales, scheme.bits), None
    assert hessian is not None, "GPTQ needs a Hessian"
    factor = factorize(hessian, damping)
    return gptq(weight, scales, factor, scheme.bits, protected=protected), factor.damping


def _hessian_of(name: str, weight: Tensor, scheme: SchemeConfig, hessians: Mapping[str, Tensor] | None) -> Tensor | None:
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

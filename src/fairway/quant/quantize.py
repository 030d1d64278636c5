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
from fairway.quant.clip import row_maximum
from fairway.quant.gptq import factorize
from fairway.quant.grid import round_to_codes
from fairway.quant.hessian import Hessians
from fairway.quant.matrix import Calibrated, quantize_matrix, step_share
from fairway.quant.plan import Plan
from fairway.quant.protect import choose_protected, protect
from fairway.quant.repair import repair_published, repair_weighted
from fairway.quant.report import FLOAT_BITS, control_report, repair_bits, tensor_report
from fairway.quant.types import QuantizedState, QuantizedTensor, TensorReport
from fairway.quant.worth import is_worth, price_of_a_bit, weighted_error

GATE_BITS = 8

Stored = tuple[QuantizedTensor | Tensor, TensorReport]


def quantize_state(
    state: Mapping[str, Tensor],
    plan: Plan,
    hessians: Mapping[str, Tensor] | None = None,
    *,
    factor: float = 1.0,
) -> QuantizedState:
    """Turn every tensor of a network into codes or float16, as ``plan`` says.

    The arithmetic is float32 on the CPU, several tensors at a time. The scales come from the original weights, not from
    those that GPTQ has moved. Protected columns are chosen before, repaired matrices after the codes are known.

    Args:
        state: Weights by parameter name, of any float type and device; those of the plan and no others.
        plan: From `make_plan`.
        hessians: From `collect_hessians`; needed for schemes with GPTQ, and used for the report where present.
        factor: On the steps of all matrices.

    Raises:
        RecipeError: a weight is not finite or too large for float16, a Hessian is missing or has the wrong size, the names
            of ``state`` are not those of the plan, or fewer columns or matrices can be protected or repaired than asked for.
    """
    return Quantizer(state, plan, hessians).quantize(factor)


class Quantizer:
    """Quantizes one network, as often as a size has to be found; the Hessians are factorised once."""

    def __init__(self, state: Mapping[str, Tensor], plan: Plan, hessians: Mapping[str, Tensor] | None = None) -> None:
        """Read the weights and factorise the Hessians; arguments and errors are those of `quantize_state`."""
        if state.keys() != plan.schemes.keys():
            odd = sorted(state.keys() ^ plan.schemes.keys())
            raise RecipeError(f"the weights do not match the quantization plan at {odd[0]}; make the plan from these weights")
        self.plan = plan
        self.protected = choose_protected(state, plan, hessians)
        self.weights = {name: _weight(state, name) for name in plan.schemes}
        matrices = {name: scheme for name, scheme in plan.schemes.items() if scheme is not None}
        with _one_tensor_per_thread() as pool:
            found = pool.map(lambda name: self._calibrated(name, matrices[name], hessians), matrices)
            self.known = dict(zip(matrices, found, strict=True))
        self.shares = self._shares(matrices) if plan.shared else dict.fromkeys(matrices, 1.0)

    def quantize(self, factor: float = 1.0) -> QuantizedState:
        """All tensors, with ``factor`` on the steps of the matrices."""
        plan = self.plan
        early = self.protected if plan.protection.keep == "always" else {}
        with _one_tensor_per_thread() as pool:
            made = pool.map(lambda name: self._store(name, factor, early.get(name)), plan.schemes)
            stored = dict(zip(plan.schemes, made, strict=True))
            price = price_of_a_bit(report for _, report in stored.values())
            if not early:
                better = pool.map(lambda name: self._protected_if_worth(name, factor, stored[name], price), self.protected)
                stored |= dict(zip(self.protected, better, strict=True))
            chosen = self._worst({name: report for name, (_, report) in stored.items()})
            stored |= dict(zip(chosen, pool.map(lambda name: self._repaired(name, stored[name], price), chosen), strict=True))
        return QuantizedState(
            tensors={name: item for name, (item, _) in stored.items() if isinstance(item, QuantizedTensor)},
            controls={name: item for name, (item, _) in stored.items() if isinstance(item, Tensor)},
            reports=tuple(report for _, report in stored.values()),
        )

    def _calibrated(self, name: str, scheme: SchemeConfig, hessians: Mapping[str, Tensor] | None) -> Calibrated | None:
        weight = self.weights[name]
        hessian = _hessian_of(name, weight, scheme, hessians)
        if hessian is None:
            return None
        measured = isinstance(hessians, Hessians)
        sensitivity = hessians.sensitivity(name) if measured else None
        factor = factorize(hessian, self.plan.damping) if scheme.method == "gptq" else None
        return Calibrated(hessian, factor, sensitivity, hessians.tokens if measured else 1.0)

    def _shares(self, matrices: Mapping[str, SchemeConfig]) -> dict[str, float]:
        """Factors on the steps of the matrices, for the least error at any size; their geometric mean over weights is 1."""
        known = {name: self.known[name] for name in matrices}
        assert all(known.values()), "a plan that shares bytes has Hessians for all matrices"
        logs = {name: step_share(self.weights[name], matrices[name], item).log2() for name, item in known.items() if item}
        counts = {name: self.weights[name].numel() for name in logs}
        mean = sum(logs[name] * counts[name] for name in logs) / sum(counts.values())
        return {name: float(torch.exp2(log - mean)) for name, log in logs.items()}

    def _store(self, name: str, factor: float, starts: tuple[int, ...] | None) -> Stored:
        weight, scheme = self.weights[name], self.plan.schemes[name]
        if name in self.plan.gates:
            return _store_gate(name, weight)
        if scheme is None:
            control = _to_float16(name, weight)
            return control, control_report(name, weight, control)
        known = self.known[name]
        finer = None
        if starts:
            diagonal = None if known is None else known.hessian.diagonal()
            finer = protect(weight, diagonal, scheme, self.plan.protection, starts, factor * self.shares[name])
        tensor = quantize_matrix(weight, scheme, known, factor * self.shares[name], finer)
        return tensor, tensor_report(name, scheme.method, weight, tensor, known)

    def _protected_if_worth(self, name: str, factor: float, stored: Stored, price: float) -> Stored:
        tensor, report = self._store(name, factor, self.protected[name])
        _, before = stored
        more = ((report.entropy_bits or 0.0) - (before.entropy_bits or 0.0)) * self.weights[name].numel()
        if is_worth(before, report, more + FLOAT_BITS * len(self.weights[name]), price):
            return tensor, report
        logger.info(f"quant protection {name}: left out, its bytes lower the error more as finer steps")
        return stored

    def _worst(self, reports: Mapping[str, TensorReport]) -> list[str]:
        """Names of the matrices that get a repair: the largest errors in the norm that the repair lowers, largest first.

        Published: Frobenius norm of ``E``; Hessian form: the error of the outputs, by what it costs the loss where that was
        measured. Matrices without an error are left alone.
        """
        repair = self.plan.repair
        gptq_made = [report for report in reports.values() if report.method == "gptq"]
        if len(gptq_made) < repair.tensors:
            raise RecipeError(f"quant.repair.tensors={repair.tensors}, but GPTQ makes {len(gptq_made)} matrices; lower it")

        def size(report: TensorReport) -> float:
            if repair.weighting == "hessian":
                return weighted_error(report)
            return report.rms_error * (report.shape[0] * report.shape[1]) ** 0.5

        ranked = sorted((report for report in gptq_made if size(report) > 0), key=size, reverse=True)
        return [report.name for report in ranked[: repair.tensors]]

    def _repaired(self, name: str, stored: Stored, price: float) -> Stored:
        (tensor, report), weight, known, plan = stored, self.weights[name], self.known[name], self.plan
        assert isinstance(tensor, QuantizedTensor), "only matrices are repaired"
        assert known is not None, "only matrices of GPTQ are repaired"
        error = weight - tensor.dequantize()
        rank = min(plan.repair.rank, *weight.shape)
        if plan.repair.weighting == "published":
            repair = repair_published(error, rank)
        else:
            repair = repair_weighted(error, known.hessian, rank, plan.damping)
        if repair is None:
            logger.info(f"quant repair {name}: left out, it would not lower the error of the outputs")
            return stored
        mended = replace(tensor, repair=repair)
        after = tensor_report(name, report.method, weight, mended, known)
        if plan.repair.keep == "worth" and not is_worth(report, after, repair_bits(repair), price):
            logger.info(f"quant repair {name}: left out, its bytes lower the error more as finer steps")
            return stored
        return mended, after


def _weight(state: Mapping[str, Tensor], name: str) -> Tensor:
    weight = state[name].detach().to("cpu", torch.float32)
    if not bool(weight.isfinite().all()):
        raise RecipeError(f"{name} has weights that are not finite; training diverged, lower the learning rates of optim")
    return weight


def _store_gate(name: str, weight: Tensor) -> Stored:
    scales = row_maximum(weight, GATE_BITS)
    tensor = QuantizedTensor(round_to_codes(weight, scales, GATE_BITS), scales, GATE_BITS)
    return tensor, tensor_report(name, "maximum", weight, tensor)


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

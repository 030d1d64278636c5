"""How much the loss depends on the outputs of every matrix: mean squared gradients, from backward passes over calibration data.

To second order, and with the Fisher information in place of the curvature, an error E of a matrix raises the loss by
``sum_i g_i (E H E^T)_ii / 2``, where ``g_i`` is the mean square of the gradient of the loss by output i and H the second
moments of the inputs: inputs and gradients are taken as independent of each other, and outputs too (diagonal K-FAC).

The tied embedding has two roles. As output head it is such a matrix, with logits for outputs. As table of inputs, an error of
row i is felt wherever token i is read; that adds ``sum_i f_i |E_i|^2 / 2``, where ``f_i`` sums the squares of the gradient by
the rows that were read, and averages over channels.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from fairway.base.errors import DataError
from fairway.model.gpt import GPT
from fairway.model.head import raw_logits, wide_softcap
from fairway.model.linear import Linear

HEAD = "embedding.weight"

POSITIONS = 1 << 14
"""Positions of one backward pass, at most, so that its activations fit in memory."""

CHUNK_LOGITS = 1 << 26
"""Logits whose gradients are in memory at a time."""


@dataclass(frozen=True, eq=False)
class Sensitivities:
    """Mean squared gradients of the summed loss, in nats."""

    outputs: dict[str, Float[Tensor, "outputs"]]
    """Of every matrix by parameter name: ``g_i``, the mean over positions."""
    lookups: Float[Tensor, "vocab"]
    """``f_i`` per position of the text: zero for tokens that were never read."""

    def of(self, name: str, moments: Float[Tensor, "columns columns"], positions: float) -> Float[Tensor, "outputs"]:
        """Weights of the rows of ``E H E^T`` for one matrix; those of the embedding count its role as table of inputs too.

        Args:
            name: Parameter name.
            moments: ``H``, a sum over ``positions`` rows of input.
            positions: Rows behind ``H``.
        """
        if name != HEAD:
            return self.outputs[name]
        return self.outputs[name] + self.lookups * (len(moments) * positions / float(moments.trace()))


@dataclass
class _Sums:
    """Sums of squares by name, and rows behind them."""

    outputs: dict[str, Tensor] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)
    lookups: Tensor | None = None

    def add(self, name: str, gradient: Float[Tensor, "... outputs"]) -> None:
        squares = gradient.flatten(0, -2).float().square()
        self.outputs[name] = self.outputs.get(name, 0.0) + squares.sum(dim=0)
        self.rows[name] = self.rows.get(name, 0) + len(squares)

    def add_lookups(self, ids: Int[Tensor, "rows time"], gradient: Tensor, vocab: int) -> None:
        if self.lookups is None:
            self.lookups = torch.zeros(vocab, device=gradient.device)
        self.lookups.index_add_(0, ids.flatten().long(), gradient.flatten(0, -2).float().square().mean(dim=1))


class _Outputs(TorchFunctionMode):
    """Keeps the outputs of all matrices, and of the look-up in the embedding, which no module's hook sees."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, Tensor]] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        if func is nn.functional.embedding:
            self.found.append((HEAD, output))
        return output

    def hook(self, name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        return lambda _, inputs, output: self.found.append((name, output))


@torch.enable_grad()
def collect_sensitivities(
    model: GPT,
    batches: Iterable[Int[Tensor, "rows time"]],
    *,
    recurrent: bool = True,
    reduce: Callable[[Tensor], object] | None = None,
) -> Sensitivities:
    """Mean squared gradients of the summed loss by every output of every matrix, and by the rows of the embedding as inputs.

    The last token of each row is a target only. No gradient of a parameter is computed, and the model is left as it was.

    Args:
        model: The raw network with the weights that will be quantized.
        batches: Token ids of training data, on the model's device.
        recurrent: Run the extra passes, as scoring does.
        reduce: Sums a tensor over ranks in place.

    Raises:
        DataError: there is no batch.

    Source: Fisher information by Kronecker factors, arXiv 1503.05671, of which the diagonal of the second is taken.
    """
    sums, training = _Sums(), model.training
    model.eval()
    try:
        for ids in batches:
            for rows in ids.split(max(1, POSITIONS // ids.shape[1])):
                _backward(model, rows, sums, recurrent)
    finally:
        model.train(training)
    if sums.lookups is None:
        raise DataError("calibration got no batch of training data; lower train.context or bring more training tokens")
    return _means(sums, sums.lookups, reduce)


def _backward(model: GPT, rows: Int[Tensor, "rows time"], sums: _Sums, recurrent: bool) -> None:
    outputs, ids = _Outputs(), rows[:, :-1]
    handles = [
        module.register_forward_hook(outputs.hook(f"{name}.weight"))
        for name, module in model.named_modules()
        if isinstance(module, Linear)
    ]
    try:
        with outputs:
            hidden = model.hidden(ids, recurrent=recurrent)
    finally:
        for handle in handles:
            handle.remove()
    gradient = _head(model, hidden.detach(), rows[:, 1:], sums)
    found = torch.autograd.grad(hidden, [output for _, output in outputs.found], gradient)
    for (name, _), part in zip(outputs.found, found, strict=True):
        if name == HEAD:
            sums.add_lookups(ids, part, len(model.embedding.weight))
        else:
            sums.add(name, part)


def _head(model: GPT, hidden: Tensor, targets: Tensor, sums: _Sums) -> Tensor:
    """Gradient of the summed loss by the last hidden rows; leaves that by the logits in ``sums``."""
    embedding = model.embedding.weight.detach()
    rows = max(1, CHUNK_LOGITS // len(embedding))
    gradients = []
    for part, wanted in zip(hidden.flatten(0, 1).split(rows), targets.flatten().split(rows), strict=True):
        logits = raw_logits(part, embedding).requires_grad_()
        loss = nn.functional.cross_entropy(wide_softcap(logits, model.caps()), wanted.long(), reduction="sum")
        (gradient,) = torch.autograd.grad(loss, logits)
        sums.add(HEAD, gradient)
        gradients.append(gradient @ embedding.to(gradient.dtype))
    return torch.cat(gradients).reshape(hidden.shape)


def _means(sums: _Sums, lookups: Tensor, reduce: Callable[[Tensor], object] | None) -> Sensitivities:
    counts = torch.tensor([float(count) for count in sums.rows.values()], dtype=torch.float64, device=lookups.device)
    if reduce is not None:
        for tensor in (*sums.outputs.values(), lookups, counts):
            reduce(tensor)
    rows = dict(zip(sums.rows, counts.tolist(), strict=True))
    outputs = {name: (total / rows[name]).float().cpu() for name, total in sums.outputs.items()}
    return Sensitivities(outputs, (lookups / rows[HEAD]).float().cpu())

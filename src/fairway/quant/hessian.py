"""Second moments of the inputs of every matrix, from which GPTQ knows which errors matter."""

from collections.abc import Callable, Iterable, Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from fairway.base.errors import DataError
from fairway.model.gpt import GPT
from fairway.model.linear import Linear
from fairway.quant.sensitivity import Sensitivities


class Hessians(dict[str, Tensor]):
    """Parameter name -> float32 [columns, columns] on the CPU; parameters with one input share one tensor.

    Args:
        moments: The sums per batch.
        positions: Parameter name -> rows ``x`` behind its sum per batch: positions times visits of its layer.
        sensitivities: How much the loss depends on the outputs, where that was measured.
    """

    def __init__(
        self, moments: Mapping[str, Tensor], positions: Mapping[str, float], sensitivities: Sensitivities | None = None
    ) -> None:
        super().__init__(moments)
        self.positions = dict(positions)
        self.sensitivities = sensitivities

    @property
    def tokens(self) -> float:
        """Positions of the text per batch."""
        return self.positions["embedding.weight"]

    def sensitivity(self, name: str) -> Float[Tensor, "outputs"] | None:
        """Mean squared gradient of the loss by each output of a matrix; None where no gradient was measured."""
        return self.sensitivities and self.sensitivities.of(name, self[name], self.positions[name])

    def activation_rms(self, name: str) -> Float[Tensor, "columns"]:
        """Root mean square of every input: ``a_j = sqrt(sum of x_j^2 / rows) = sqrt(H_jj / positions)``. PR #2140."""
        return (self[name].diagonal() / self.positions[name]).sqrt()


SHARED_INPUT = {"key": "query", "value": "query"}
"""Linear maps that read what another one reads, by the last part of their names."""


class _Accumulator:
    """Sums of ``x^T x`` by name, over calls, batches and positions."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.rows: dict[str, float] = {}

    def add(self, name: str, inputs: Float[Tensor, "... columns"]) -> None:
        x = inputs.detach().flatten(0, -2).float()
        if name not in self.sums:
            self.sums[name] = torch.zeros(x.shape[1], x.shape[1], device=x.device)
            self.rows[name] = 0.0
        self.sums[name].addmm_(x.T, x)
        self.rows[name] += len(x)

    def hook(self, name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        return lambda _, inputs: self.add(name, inputs[0])


@torch.no_grad()
def collect_hessians(
    model: GPT,
    batches: Iterable[Int[Tensor, "rows time"]],
    *,
    recurrent: bool = True,
    reduce: Callable[[Tensor], object] | None = None,
) -> Hessians:
    """Sum ``x^T x`` over all positions, batches and visits of each matrix, divided by the number of batches.

    Query, key and value read one input and share one Hessian. The embedding is seen in its role as output head: its input
    is the output of the final norm. A looped layer counts every pass. There is no factor 2 and no division by the number
    of positions; GPTQ does not depend on the scale.

    Args:
        model: The raw network with the weights that will be quantized.
        batches: Token ids of training data, on the model's device.
        recurrent: Run the extra passes, as scoring does.
        reduce: Sums a tensor over ranks in place, so that every rank's data counts and every rank gets the same result.

    Raises:
        DataError: there is no batch.

    Source: arXiv 2210.17323; statistics of PR #1394.
    """
    accumulator, shared = _Accumulator(), {}
    handles = []
    for name, module in model.named_modules():
        if isinstance(module, Linear):
            path, _, leaf = name.rpartition(".")
            source = f"{path}.{SHARED_INPUT.get(leaf, leaf)}.weight"
            shared[f"{name}.weight"] = source
            if source == f"{name}.weight":
                handles.append(module.register_forward_pre_hook(accumulator.hook(source)))
    training, count = model.training, 0
    model.eval()
    try:
        for ids in batches:
            accumulator.add("embedding.weight", model.hidden(ids, recurrent=recurrent))
            count += 1
    finally:
        for handle in handles:
            handle.remove()
        model.train(training)
    if count == 0:
        raise DataError("calibration got no batch of training data; lower train.context or bring more training tokens")
    device = accumulator.sums["embedding.weight"].device
    counts = torch.tensor([float(count), *accumulator.rows.values()], dtype=torch.float64, device=device)
    if reduce is not None:
        for tensor in (*accumulator.sums.values(), counts):
            reduce(tensor)
    total, *rows = counts.tolist()
    means = {name: (tensor / total).cpu() for name, tensor in accumulator.sums.items()}
    positions = {name: seen / total for name, seen in zip(accumulator.rows, rows, strict=True)}
    sources = {name: name for name in means} | shared
    return Hessians(
        {name: means[source] for name, source in sources.items()}, {name: positions[source] for name, source in sources.items()}
    )

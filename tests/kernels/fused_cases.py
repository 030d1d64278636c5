"""Fused kernels against their twins, on a GPU or, as a program with ``TRITON_INTERPRET=1``, in Triton's interpreter.

The program runs the cases that are named, or all, and prints a line of JSON with the outcome of each: an empty string, or
what went wrong. It is one of its own because the interpreter must be chosen before Triton is imported, and because the checks
of annotations that pytest switches on would wrap every function that torch.compile traces.
"""

import json
import sys
import traceback
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from fairway.config import ModelConfig, RecurrenceConfig
from fairway.kernels.fused import interpreted
from fairway.kernels.fused_loss import fused_loss_and_gradient, plain_loss_and_gradient
from fairway.kernels.fused_mlp import fused_mlp, plain_mlp
from fairway.model.head import cross_entropy, plain_cross_entropy
from fairway.model.mlp import MLP

Case = Callable[[str], None]
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
LOSS_SHAPES = [(1, 2), (5, 33), (7, 100), (3, 32), (2, 257)]
MLP_SHAPES = [(1, 1, 1), (5, 19, 37), (33, 16, 48), (70, 40, 50)]
"""Rows, width, hidden."""


def random(seed: int, *shape: int, device: str, dtype: torch.dtype = torch.float32, size: float = 1.0) -> Tensor:
    values = size * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return values.to(device=device, dtype=dtype)


def close(found: Tensor, exact: Tensor, units: float) -> None:
    """The largest error is at most ``units`` roundings of the largest entry (TF32 products count as theirs on a GPU)."""
    spacing = torch.finfo(found.dtype).eps
    if found.is_cuda and found.dtype == torch.float32:
        spacing = 2.0**-10
    smallest = torch.finfo(found.dtype).smallest_normal * torch.finfo(found.dtype).eps
    limit = units * spacing * exact.abs().max().item() + smallest
    worst = (found.double() - exact).abs().max().item()
    assert worst <= limit, f"error {worst:.3g} exceeds {limit:.3g}"


def loss_equals_its_twin(device: str, *, dtype: torch.dtype, shape: tuple[int, int], cap: float, mean: float) -> None:
    rows, vocab = shape
    logits = random(rows, *shape, device=device, dtype=dtype, size=20.0) + mean
    kept = logits.clone()
    targets = torch.randint(vocab, (rows,), generator=torch.Generator().manual_seed(1)).to(device)
    exact_losses, exact_gradient = plain_loss_and_gradient(logits.double(), targets, cap, 1 / rows)
    losses, gradient = fused_loss_and_gradient(logits, targets, cap, 1 / rows)
    assert torch.equal(logits, kept)
    assert losses.dtype == torch.float32
    assert gradient.dtype == dtype
    torch.testing.assert_close(losses.double(), exact_losses, atol=1e-6 * cap, rtol=1e-6)
    close(gradient, exact_gradient, units=1 if dtype != torch.float32 else 40)
    twin_losses, twin_gradient = plain_loss_and_gradient(logits, targets, cap, 1 / rows)
    torch.testing.assert_close(losses, twin_losses, atol=1e-6 * cap, rtol=1e-6)
    close(gradient, twin_gradient.double(), units=1 if dtype != torch.float32 else 40)


def the_published_loss_example(device: str) -> None:
    logits = torch.tensor([[1.0, 2.0, 3.0], [40.0, -40.0, 0.0]], device=device)
    losses, gradient = fused_loss_and_gradient(logits, torch.tensor([2, 0], device=device), 30.0, 0.5)
    assert abs(losses[0].item() - 0.41018988) < 1e-5
    assert losses[1].item() < 1e-5
    torch.testing.assert_close(gradient[0].cpu(), torch.tensor([0.04528144, 0.12236147, -0.16656665]), atol=1e-6, rtol=0)


def huge_logits_stay_finite(device: str) -> None:
    logits = torch.tensor([[1e4, -1e4, 3.0], [-1e4, -1e4, 1e4]], device=device, dtype=torch.bfloat16)
    losses, gradient = fused_loss_and_gradient(logits, torch.tensor([1, 2], device=device), 30.0, 1.0)
    assert losses.isfinite().all()
    assert gradient.isfinite().all()


def a_target_outside_the_vocabulary_is_loud(device: str) -> None:
    logits = random(0, 3, 40, device=device)
    losses, _ = fused_loss_and_gradient(logits, torch.tensor([40, 39, -1], device=device), 30.0, 1.0)
    assert losses.isnan().tolist() == [True, False, True]


def mlp_equals_its_twin(device: str, *, dtype: torch.dtype, shape: tuple[int, int, int], slope: float) -> None:
    rows, width, hidden = shape
    tensors = [
        random(seed, *size, device=device, dtype=dtype, size=size[-1] ** -0.5).requires_grad_()
        for seed, size in enumerate([(rows, width), (hidden, width), (width, hidden)])
    ]
    grad = random(9, rows, width, device=device, dtype=dtype)
    exact = [tensor.detach().double().requires_grad_() for tensor in tensors]
    wanted = plain_mlp(*exact, slope)
    found = fused_mlp(*tensors, slope)
    assert found.dtype == dtype
    # Three roundings on the way (before, active, result), five on the way back, and sums of float32 products.
    close(found, wanted.detach(), units=6)
    pairs = zip(torch.autograd.grad(found, tensors, grad), torch.autograd.grad(wanted, exact, grad.double()), strict=True)
    for mine, theirs in pairs:
        assert mine.dtype == dtype
        close(mine, theirs, units=10)


def the_slope_is_exact(device: str, *, dtype: torch.dtype) -> None:
    """With the identity as weights the epilogues stand alone; both follow the float32 slope, not one of 16 bits."""
    from fairway.kernels import triton_mlp

    a = random(3, 40, 40, device=device, dtype=dtype)
    eye = torch.eye(40, device=device, dtype=dtype)
    before, active = triton_mlp.launch_forward(a, eye, 0.3)
    assert torch.equal(before, a)
    leaky = torch.where(a > 0, a.float(), a.float() * (0.3 * 0.3))
    exact = (leaky * a.float()).to(dtype)
    if dtype == torch.bfloat16 and not a.is_cuda:
        # The interpreter rounds to bfloat16 by cutting off.
        torch.testing.assert_close(active, exact, atol=0, rtol=2.0**-7)
    else:
        assert torch.equal(active, exact)
    through = triton_mlp.launch_backward(eye, eye, a, 0.3)
    slopes = torch.where(a > 0, torch.tensor(2.0, device=device), torch.tensor(2 * (0.3 * 0.3), device=device)) * a.float()
    close(through, torch.diag(slopes.diagonal()).double(), units=1)


def module_and_loss_in_one_graph(device: str) -> None:
    """torch.compile takes both operators with static shapes and without a break."""
    mlp = MLP(ModelConfig(vocab_size=64, layers=2, width=24, query_heads=2, kv_heads=1, mlp_hidden=40, rotary_channels=4,
                          activation_slope=0.3, exclusive_attention_layers=2,
                          recurrence=RecurrenceConfig(extra_passes=0))).to(device)  # fmt: skip
    for seed, parameter in enumerate(mlp.parameters()):
        parameter.data.copy_(random(seed, *parameter.shape, device=device, size=0.2))
    embedding = random(5, 50, 24, device=device).requires_grad_()
    x, targets = random(6, 2, 9, 24, device=device).requires_grad_(), torch.arange(18, device=device)
    learned = [x, embedding, *mlp.parameters()]

    def loss(fused: bool) -> Tensor:
        mlp.fused = fused
        return cross_entropy(mlp(x).flatten(0, 1), embedding, targets, 30.0, chunk_rows=7, fused=fused)

    plain = plain_cross_entropy(mlp(x).flatten(0, 1), embedding, targets, 30.0)
    expected = torch.autograd.grad(plain, learned)
    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True, dynamic=False)
    for function in (loss, compiled):
        found = function(True)
        torch.testing.assert_close(found, plain, atol=1e-5, rtol=1e-5)
        for mine, theirs in zip(torch.autograd.grad(found, learned), expected, strict=True):
            close(mine, theirs.double(), units=40)
    with torch.no_grad():
        torch.testing.assert_close(compiled(True), plain, atol=1e-5, rtol=1e-5)


CASES: dict[str, Case] = {
    **{
        f"loss-{name}-{rows}x{vocab}-{cap:g}": partial(
            loss_equals_its_twin, dtype=dtype, shape=(rows, vocab), cap=cap, mean=mean
        )
        for name, dtype in DTYPES.items()
        for rows, vocab in LOSS_SHAPES
        # With low logits all scores are near 0, where columns beyond the row would count if they were not masked.
        for cap, mean in ((30.0, 0.0), (8.0, -80.0))
    },
    **{
        f"mlp-{name}-{'x'.join(map(str, shape))}-{slope:g}": partial(mlp_equals_its_twin, dtype=dtype, shape=shape, slope=slope)
        for name, dtype in DTYPES.items()
        for shape in MLP_SHAPES
        for slope in (0.3, 0.5, 0.0)
    },
    **{f"slope-{name}": partial(the_slope_is_exact, dtype=dtype) for name, dtype in DTYPES.items()},
    "loss-published-example": the_published_loss_example,
    "loss-huge-logits": huge_logits_stay_finite,
    "loss-bad-target": a_target_outside_the_vocabulary_is_loud,
    "one-graph": module_and_loss_in_one_graph,
}


def counted_launches() -> dict[str, int]:
    """Counts how often each kernel is launched from here on, so that a twin cannot pass for a kernel."""
    from fairway.kernels import triton_loss, triton_mlp

    counts = {"loss": 0, "forward": 0, "backward": 0}

    def counting(module: object, function: str, name: str) -> None:
        launch = getattr(module, function)

        def counted(*arguments: object) -> object:
            counts[name] += 1
            return launch(*arguments)

        setattr(module, function, counted)

    counting(triton_loss, "launch", "loss")
    counting(triton_mlp, "launch_forward", "forward")
    counting(triton_mlp, "launch_backward", "backward")
    return counts


def main(device: str, *names: str) -> None:
    torch.set_num_threads(1)
    counts = counted_launches() if interpreted() else {}
    outcomes = {}
    for name in names or CASES:
        try:
            CASES[name](device)
            outcomes[name] = ""
        except Exception:
            outcomes[name] = traceback.format_exc()[-1500:]
    print(json.dumps({"outcomes": outcomes, "launches": counts}))


if __name__ == "__main__":
    main(*sys.argv[1:])

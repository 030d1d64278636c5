"""Banked against per-matrix storage for Muon on a CPU: Newton-Schulz alone, and the whole optimizer step.

(a) For the matrices of ``--layers`` layers of the full network, the banks of one shape through one call of ``orthogonalize``,
    against one call per matrix, and against the batch in one piece, which is how a GPU takes it.
(b) One step of all three optimizers (clip, AdamW, Muon) on the same gradients in the layouts ``banked`` and ``per_matrix``.

Calls alternate within one run, in rotating order; medians are compared. Results are checked for equality first. With one
thread the clock is the processor time of this process, which neighbours on a shared machine disturb least.
Run: ``python benchmarks/bench_banks.py [--layers 11] [--width 512] [--hidden 2048] [--threads 1]``.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from fairway.config import ModelConfig, MuonConfig, OptimConfig, RecurrenceConfig
from fairway.model.gpt import GPT
from fairway.model.initial import initialize
from fairway.optim import newton_schulz
from fairway.optim.newton_schulz import orthogonalize
from fairway.optim.optimizer import Optimizers, build
from fairway.optim.schedules import ScheduleValues

STEPS = 5


def banks(layers: int, width: int, hidden: int) -> list[Tensor]:
    """Random updates in the shapes of the published banks: up, down, queries with outputs, keys with values."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(layers, hidden, width), (layers, width, hidden), (2 * layers, width, width), (2 * layers, width // 2, width)]
    return [torch.randn(shape, generator=generator) for shape in shapes]


def in_one_piece(bank: Tensor) -> Tensor:
    """The whole batch at once, whatever the cache holds."""
    usual = newton_schulz.CPU_SLICE_BYTES
    newton_schulz.CPU_SLICE_BYTES = bank.numel() * bank.element_size()
    try:
        return orthogonalize(bank, STEPS)
    finally:
        newton_schulz.CPU_SLICE_BYTES = usual


def interleaved(calls: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median seconds of every call; the order rotates, the first round only warms up."""
    now = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    times: dict[str, list[float]] = {name: [] for name in calls}
    names = list(calls)
    for round_ in range(repeats + 1):
        turn = round_ % len(names)
        for name in names[turn:] + names[:turn]:
            start = now()
            calls[name]()
            if round_:
                times[name].append(now() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def newton_schulz_alone(layers: int, width: int, hidden: int, repeats: int) -> None:
    total = dict.fromkeys(("banked", "per matrix", "one piece"), 0.0)
    for bank in banks(layers, width, hidden):
        wanted = torch.stack([orthogonalize(matrix, STEPS) for matrix in bank])
        torch.testing.assert_close(orthogonalize(bank, STEPS), wanted, rtol=0, atol=1e-4)
        middle = interleaved(
            {
                "banked": lambda bank=bank: orthogonalize(bank, STEPS),
                "per matrix": lambda bank=bank: [orthogonalize(matrix, STEPS) for matrix in bank],
                "one piece": lambda bank=bank: in_one_piece(bank),
            },
            repeats,
        )
        total = {name: total[name] + seconds for name, seconds in middle.items()}
        print(f"(a) bank {tuple(bank.shape)}: {report(middle)}")
    print(f"(a) all matrices: {report(total)}")


def report(middle: dict[str, float]) -> str:
    times = ", ".join(f"{name} {1e3 * value:.1f} ms" for name, value in middle.items())
    ratios = ", ".join(f"{name} / banked = {middle[name] / middle['banked']:.3f}" for name in middle if name != "banked")
    return f"{times}; {ratios}"


def learner(layout: str, config: ModelConfig) -> tuple[GPT, Optimizers]:
    model = GPT(config)
    initialize(model, 0)
    optimizers = build(model, OptimConfig(matrices=MuonConfig(layout=layout)))
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        gradient = torch.randn(parameter.shape, generator=generator)
        parameter.grad = gradient if parameter.grad is None else parameter.grad.copy_(gradient)
    return model, optimizers


def whole_step(layers: int, width: int, hidden: int, repeats: int) -> None:
    once = RecurrenceConfig(first=0, last=0, extra_passes=0)
    config = ModelConfig(
        vocab_size=8192,
        layers=layers,
        width=width,
        query_heads=4,
        kv_heads=2,
        mlp_hidden=hidden,
        rotary_channels=4,
        exclusive_attention_layers=0,
        recurrence=once,
    )
    learners = {layout: learner(layout, config) for layout in ("banked", "per_matrix")}
    values = ScheduleValues(learning_rate=1.0, momentum=0.95, recurrent=False)
    for _, optimizers in learners.values():
        optimizers.reduce_clip_and_step(values)
    states = [dict(model.named_parameters()) for model, _ in learners.values()]
    for name, weight in states[0].items():
        torch.testing.assert_close(weight, states[1][name], rtol=0, atol=1e-4)
    calls = {
        layout: lambda optimizers=optimizers: optimizers.reduce_clip_and_step(values)
        for layout, (_, optimizers) in learners.items()
    }
    print(f"(b) whole step: {report(interleaved(calls, repeats))}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=11)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--hidden", type=int, default=2048)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    size = (options.layers, options.width, options.hidden)
    print(f"{options.layers} layers, width {options.width}, MLP {options.hidden}, {options.threads} thread(s), float32")
    newton_schulz_alone(*size, options.repeats)
    whole_step(*size, options.repeats)


if __name__ == "__main__":
    main()

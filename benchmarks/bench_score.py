"""Scoring speed of the sliding window, and how it grows with the stride.

Reference: the same windows scored the straightforward way, with the head run at every position of every window and the
new ones picked afterwards. Ours runs the head at the scored positions only. Interleaved in one run, medians.

    python benchmarks/bench_score.py [--recipe tiny] [--repeats 5]
"""

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch

from fairway.model.gpt import GPT
from fairway.model.initial import initialize
from fairway.recipes import recipe
from fairway.score.driver import score
from fairway.score.ledger import Ledger
from fairway.score.neural import NeuralPredictor
from fairway.score.plan import fixed_plan, sliding_windows
from fairway.score.predictor import WindowBatch


class EveryPosition(NeuralPredictor):
    """The reference: logits and softmax at all positions, then the scored ones."""

    @torch.no_grad()
    def predict(self, batch: WindowBatch) -> torch.Tensor:
        """Log-probabilities at the scored positions."""
        hidden = self.model.hidden(batch.inputs.to(self.device), recurrent=True)
        return self.model.logits(hidden).log_softmax(-1)[:, batch.first_scored :]


def seconds(run: Callable[[], object]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def main() -> None:
    """Print tokens per second by stride, ours and the reference's, and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", default="tiny")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--targets", type=int, default=4096)
    arguments = parser.parse_args()
    chosen = recipe(arguments.recipe)
    model = GPT(chosen.model)
    initialize(model, 0)
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(chosen.model.vocab_size, (arguments.targets + 1,), generator=generator)
    context = chosen.score.context
    print(f"{arguments.recipe}: context {context}, vocabulary {chosen.model.vocab_size}, {torch.get_num_threads()} threads")
    print(f"{'stride':>7} {'ours tok/s':>11} {'reference':>11} {'ratio':>6} {'forward tokens per target':>26}")
    stride = context
    while stride >= 16:
        windows = sliding_windows(arguments.targets, context, stride)
        times: dict[type[NeuralPredictor], list[float]] = {NeuralPredictor: [], EveryPosition: []}
        for _ in range(arguments.repeats):
            for kind, taken in times.items():
                ledger = Ledger(np.ones(arguments.targets, dtype=np.uint16))
                taken.append(seconds(partial(score, kind(model), tokens, ledger, fixed_plan(windows))))
        ours, reference = (arguments.targets / statistics.median(taken) for taken in times.values())
        fed = windows.lengths.sum() / arguments.targets
        print(f"{stride:>7} {ours:>11,.0f} {reference:>11,.0f} {ours / reference:>6.2f} {fed:>26.1f}")
        stride //= 2


if __name__ == "__main__":
    main()

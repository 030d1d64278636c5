"""Training on packed documents against random windows on a CPU: tokens per second, as an interleaved ratio.

The recipe's network takes gradients of the same number of tokens, by turns from packed rows and from windows of the same
context; what is compared is a batch from the loader and its forward and backward passes. Medians of one run.
Run: ``python benchmarks/bench_packed.py --data DATA [--recipe tiny] [--streams 2] [--rounds 9]``.
"""

import argparse
import statistics
import time
from pathlib import Path

import torch

from fairway.base.values import with_fields
from fairway.data.dataset import Dataset
from fairway.optim.schedules import ScheduleValues
from fairway.recipes import recipe
from fairway.train.batches import RankBatches
from fairway.train.distributed import ONE_RANK
from fairway.train.loop import accumulate, new_learner
from fairway.train.machine import choose

LOADERS = ("random_windows", "packed_documents")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder made by fairway data build")
    parser.add_argument("--recipe", default="tiny")
    parser.add_argument("--streams", type=int, default=2, help="a packed row has batch_tokens / streams tokens")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    dataset = Dataset.open(arguments.data)
    changes = {"model.vocab_size": dataset.vocab_size, "train.streams": arguments.streams, "machine.device": "cpu"}
    recipes = {name: with_fields(recipe(arguments.recipe), {**changes, "train.loader": name}) for name in LOADERS}
    machine = choose(recipes["random_windows"].machine)
    learner = new_learner(recipes["random_windows"], machine, ONE_RANK)
    batches = {name: RankBatches(dataset, chosen.train, ONE_RANK) for name, chosen in recipes.items()}
    values = ScheduleValues(learning_rate=1.0, momentum=0.9, recurrent=True)
    seconds: dict[str, list[float]] = {name: [] for name in LOADERS}
    reading: dict[str, list[float]] = {name: [] for name in LOADERS}
    for turn in range(arguments.rounds + 1):
        for name in LOADERS if turn % 2 else LOADERS[::-1]:
            config = recipes[name].train
            began = time.perf_counter()
            inputs, targets = batches[name].next_batch()
            read = time.perf_counter()
            accumulate(learner.model, inputs, targets, values, recipes[name], machine, context=config.context)
            done = time.perf_counter()
            learner.optimizers.zero_grad()
            if turn:
                seconds[name].append(done - began)
                reading[name].append(read - began)
    config = recipes["random_windows"].train
    ratios = [old / new for old, new in zip(*seconds.values(), strict=True)]
    for name in LOADERS:
        tokens = config.batch_tokens / statistics.median(seconds[name])
        print(f"{name}: {tokens:.0f} tokens/s, of a step {1e3 * statistics.median(reading[name]):.2f} ms in the loader")
    print(
        f"rows of {config.batch_tokens // config.streams} packed tokens, context {config.context}: packed documents run at "
        f"{statistics.median(ratios):.2f} times the speed of random windows (median of {arguments.rounds} interleaved pairs)"
    )


if __name__ == "__main__":
    main()

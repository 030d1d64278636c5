"""What each way of scoring costs and gains: seconds per million targets of every pass, over 1, 4 and 16 times a text.

One artifact, and the score settings of one recipe for all passes; the text is a leading part of the validation split. Equal
seconds per target at all lengths mean that nothing grows faster than the text. Counted is the CPU time of the process, which
other processes touch less than the clock does.
Run: ``python benchmarks/bench_evaluation.py RUN --data DATA [--recipe proxy-frontier] [--targets 4096] [--growth 1 4 16]``.
"""

import argparse
import time
from dataclasses import replace
from pathlib import Path
from typing import get_args

import torch

from fairway.base.runs import RunFolder
from fairway.config import MachineConfig, PassName, ScoreConfig
from fairway.data.dataset import Dataset
from fairway.recipes import recipe
from fairway.score.load import load_packed
from fairway.score.passes import run_pass, select_text
from fairway.train.machine import choose

PASSES: tuple[PassName, ...] = tuple(name for name in get_args(PassName) if name != "float")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="run folder with an artifact")
    parser.add_argument("--data", type=Path, required=True, help="folder made by fairway data build")
    parser.add_argument("--recipe", default="proxy-frontier", help="where the settings of all passes come from")
    parser.add_argument("--targets", type=int, default=4096)
    parser.add_argument("--growth", type=int, nargs="+", default=(1, 4, 16))
    parser.add_argument("--passes", nargs="+", choices=PASSES, default=PASSES)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    packed, dataset = load_packed(RunFolder(arguments.run).artifact), Dataset.open(arguments.data)
    packed.require_tokenizer(dataset.tokenizer.sha256, str(arguments.data))
    machine = choose(MachineConfig(threads=arguments.threads))
    settings: ScoreConfig = recipe(arguments.recipe).score
    print("pass               targets  documents  bits/byte    gain  s per million targets")
    for times in arguments.growth:
        text = select_text(dataset.validation(), replace(settings, max_tokens=times * arguments.targets))
        plain = None
        for name in arguments.passes:
            model = packed.build(machine)
            began = time.process_time()
            ledger = run_pass(name, model, text, settings, tokenizer=dataset.tokenizer)
            seconds = time.process_time() - began
            plain = ledger.bits_per_byte if plain is None else plain
            print(
                f"{name:<17} {text.targets:>8,}  {len(text.documents):>9,}  {ledger.bits_per_byte:>9.5f} "
                f"{plain - ledger.bits_per_byte:>+7.4f}  {1e6 * seconds / text.targets:>10,.0f}",
                flush=True,
            )


if __name__ == "__main__":
    main()

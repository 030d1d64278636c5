"""Speed and memory of the native n-gram scan, for each way of counting.

Reference: the compiled kernels of the published systems on one core of a shared two-core machine, gcc 12 -O3, CPU seconds, on
a stream of the same kind and size (Zipf marginals, Markov order, repeated stretches; 5 million targets of 8,192 ids). They
are not run here; the ratio is against those figures (at 47.85 million targets they are 1.22 for PR #2140 and 3.9 for the exact
prototype). All scans run once per round, one after the other; medians.

    python benchmarks/bench_tilt.py [--targets 5000000] [--repeats 5] [--only "pr2140"]
"""

import argparse
import statistics
import time
from dataclasses import dataclass, replace

import numpy as np

from fairway.config import TiltConfig
from fairway.recipes.tilts import PR1557, PR2140
from fairway.score.hints import HintScanner
from fairway.score.hints_flags import TokenFlags
from fairway.score.hints_native import NativeScan

VOCAB = 8192
CHAINS = 5000
BRANCHES = 64

ALONE = replace(PR1557, agreement=0.0)


@dataclass(frozen=True)
class Case:
    """One way of counting beside the speed of the reference."""

    name: str
    config: TiltConfig
    reference: float
    """Million targets per CPU second."""
    what: str


CASES = [
    Case("exact, 15", TiltConfig(), 4.3, "compiled exact prototype"),
    Case("pr2140, 15", PR2140, 2.05, "PR #2140 kernel (1.9 to 2.2)"),
    Case("pr1557, 8 10 12 14 16", ALONE, 0.61, "PR #1557 kernel, with word experts"),
    Case("  with word experts", PR1557, 0.61, "PR #1557 kernel, with word experts"),
    Case("exact, 8 10 12 14 16", replace(ALONE, counting="exact"), 0.61, "PR #1557 kernel, with word experts"),
]


def synthetic_stream(targets: int, generator: np.random.Generator) -> np.ndarray:
    """Tokens of Markov chains with Zipf branches, a sixth of noise, and stretches copied from earlier on."""
    weights = 1.0 / np.arange(1, BRANCHES + 1)
    shares = np.cumsum(weights / weights.sum())
    ranks = np.minimum(generator.zipf(1.2, (VOCAB, BRANCHES)) - 1, VOCAB - 1)
    successors = generator.permutation(VOCAB)[ranks].astype(np.uint16)
    length = -(-(targets + 1) // CHAINS)
    rows = np.empty((CHAINS, length), np.uint16)
    rows[:, 0] = 1
    for column in range(1, length):
        branch = np.searchsorted(shares, generator.random(CHAINS)).clip(max=BRANCHES - 1)
        noise = generator.random(CHAINS) < 1 / 6
        drawn = generator.integers(VOCAB, size=CHAINS)
        rows[:, column] = np.where(noise, drawn, successors[rows[:, column - 1], branch])
    tokens = rows.ravel()[: targets + 1]
    for end in np.sort(generator.integers(1000, targets - 200, targets // 4000)):
        begin, size = generator.integers(0, end - 200), generator.integers(20, 120)
        tokens[end : end + size] = tokens[begin : begin + size]
    return tokens


def main() -> None:
    """Print million targets per CPU second, the ratio to the reference, memory, and how many hints were given."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--targets", type=int, default=5_000_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", default="", help="part of a name in the table; pr1557 needs 13 GB at 47.85 million targets")
    arguments = parser.parse_args()
    cases = [case for case in CASES if arguments.only in case.name]
    generator = np.random.default_rng(0)
    tokens = synthetic_stream(arguments.targets, generator)
    flags = TokenFlags(generator.random(VOCAB) < 0.5, np.arange(VOCAB) < 4)
    taken: dict[str, list[float]] = {case.name: [] for case in cases}
    memory, hints = dict.fromkeys(taken, 0), dict.fromkeys(taken, 0)
    for _ in range(arguments.repeats):
        for case in cases:
            began = time.process_time()
            scanner = HintScanner(case.config, targets=arguments.targets, vocab_size=VOCAB, flags=flags, native="always")
            _, strengths = scanner.push(tokens[:-1])
            taken[case.name].append(time.process_time() - began)
            assert isinstance(scanner.scan, NativeScan)
            memory[case.name], hints[case.name] = scanner.scan.memory, int((strengths > 0).sum())
            del scanner
    print(f"{arguments.targets:,} targets, median of {arguments.repeats} rounds, CPU time of one core")
    print(f"{'counting':<24}{'M/s':>7}{'reference':>11}{'ratio':>7}{'memory':>10}{'hints':>10}  reference is")
    for case in cases:
        speed = arguments.targets / statistics.median(taken[case.name]) / 1e6
        line = f"{case.name:<24}{speed:>7.2f}{case.reference:>11.2f}{speed / case.reference:>7.1f}"
        print(f"{line}{memory[case.name] / 1e9:>7.2f} GB{hints[case.name]:>10,}  {case.what}")


if __name__ == "__main__":
    main()

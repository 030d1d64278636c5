"""What n-gram tilts are worth on a trained model, with and without adaptation: bits per byte saved by each.

    python benchmarks/compare_tilts.py --run runs/small-1 --data DATA [--targets 200000] [--skip 0]

One walk per pass: the base distributions are computed once, and every tilt is applied to their targets and hints.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import tyro

from fairway.config import MachineConfig, PassName, TiltConfig
from fairway.data.dataset import Dataset, Stream
from fairway.recipes.tilts import PR1557, PR2140
from fairway.score.driver import score
from fairway.score.hints import build_hints
from fairway.score.ledger import Ledger
from fairway.score.load import load_packed
from fairway.score.passes import build_pass, select_text
from fairway.score.predictor import Predictor, Revealed, WindowBatch
from fairway.train.machine import choose

TILTS = {
    "15 tokens, exact": TiltConfig(),
    "15 tokens, hashed as PR #2140": PR2140,
    "8..16 tokens, exact": replace(PR1557, counting="exact", agreement=0.0),
    "8..16 tokens, hashed as PR #1557": replace(PR1557, agreement=0.0),
    "6, 10, 16 tokens, exact, 4.0": TiltConfig(
        contexts=(6, 10, 16), thresholds=(0.8, 0.8, 0.8), minimum_counts=(1, 1, 1), strength=4.0
    ),
}


class Reading:
    """Hands another predictor's answers on and keeps the log-probability of every hint."""

    def __init__(self, inner: Predictor, hints: dict[str, np.ndarray]) -> None:
        self.inner, self.hints = inner, hints
        self.hinted = {name: np.zeros(len(array)) for name, array in hints.items()}
        self.vocab_size = inner.vocab_size

    def predict(self, batch: WindowBatch) -> torch.Tensor:
        """The inner answer, read on the way."""
        log_probabilities = self.inner.predict(batch)
        inputs = (batch.starts[:, None] + torch.arange(batch.first_scored, batch.inputs.shape[1])).numpy()
        for name, array in self.hints.items():
            index = torch.from_numpy(np.maximum(array[inputs], 0).astype(np.int64))[..., None]
            self.hinted[name][inputs] = log_probabilities.gather(-1, index)[..., 0].double().numpy()
        return log_probabilities

    def observe(self, block: Revealed) -> None:
        """Hand the block on."""
        self.inner.observe(block)


@dataclass(frozen=True)
class Arguments:
    """What to measure on."""

    run: Path
    data: Path
    targets: int = 200_000
    skip: int = 0
    """Begin at the first document after so many tokens of the validation split."""


def main() -> None:
    arguments = tyro.cli(Arguments)
    packed = load_packed(arguments.run / "model.fwz")
    whole = Dataset.open(arguments.data).validation()
    start = int(whole.documents[whole.documents >= arguments.skip][0])
    documents = whole.documents[whole.documents >= start] - start
    stream = Stream(whole.tokens[start:], whole.byte_costs[start:], documents, whole.byte_rule)
    config = replace(packed.score, max_tokens=arguments.targets)
    text = select_text(stream, config)
    tokens, targets = text.tokens.numpy().astype(np.uint16), text.tokens[1:].numpy()
    found = {name: build_hints(tokens, tilt, vocab_size=packed.model.vocab_size) for name, tilt in TILTS.items()}
    size = int(text.byte_costs.astype(np.int64).sum()) * np.log(2.0)
    names: tuple[PassName, ...] = ("sliding", "adapted")
    for name in names:
        inner, plan = build_pass(name, packed.build(choose(MachineConfig())), text.targets, config)
        reading = Reading(inner, {tilt: hints for tilt, (hints, _) in found.items()})
        nats = score(reading, text.tokens, Ledger(text.byte_costs), plan).nats.astype(np.float64)
        print(f"{name}: {nats.sum() / size:.5f} bits per byte, {text.targets:,} targets")
        for tilt, (hints, strengths) in found.items():
            hit = (hints == targets) & (strengths > 0)
            normaliser = np.log1p(np.exp(reading.hinted[tilt]) * np.expm1(strengths))
            saved = (strengths * hit - normaliser).sum() / size
            print(f"  {tilt:34s} tilted {int((strengths > 0).sum()):7,}  right {int(hit.sum()):7,}  saves {saved:+.5f}")


if __name__ == "__main__":
    main()

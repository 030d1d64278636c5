"""The package's own passes over a tiny network, on several seeds. Nothing may flag them."""

import copy
import dataclasses
import functools
from collections.abc import Callable

from fairway.audit.artifact import NetworkScorer
from fairway.audit.streams import Streams, generate
from fairway.config import AdaptationConfig, PassName, ScoreConfig, TiltConfig
from fairway.score.plan import Block
from fairway.score.predictor import Predictor
from fairway.score.tilt import TiltedPredictor
from toy_network import toy_network

VOCAB, CONTEXT, CHUNK, TARGETS = 6, 8, 16, 64
SEEDS = (0, 1, 2)

CONFIG = ScoreConfig(
    passes=("tilted",),
    context=CONTEXT,
    stride=CONTEXT // 2,
    adaptation=AdaptationConfig(chunk_tokens=CHUNK, epochs=1, learning_rate=0.05, sequences_per_step=CHUNK // CONTEXT),
    tilt=TiltConfig(contexts=(2, 3), thresholds=(0.5, 0.5), minimum_counts=(1, 1), strength=2.0),
)


def streams() -> Streams:
    """Short streams whose chunk borders are known, so that tests look there."""
    made = generate(VOCAB, 0, TARGETS, 200)
    borders = tuple(range(CHUNK - 1, TARGETS, CHUNK))
    return dataclasses.replace(made, logic=dataclasses.replace(made.logic, landmarks=borders))


class TiltOver(NetworkScorer):
    """The tilt around a pass whose weights stay."""

    def build(self, targets: int, told: int) -> tuple[Predictor, list[Block]]:
        inner, plan = super().build(targets, told)
        return TiltedPredictor(inner, self.config.tilt, targets=told), plan

    def miniature(self, vocab_size: int) -> "TiltOver":
        return _over(super().miniature(vocab_size))

    def matched(self, vocab_size: int, context: int = 32) -> "TiltOver":
        return _over(super().matched(vocab_size, context))


def _over(scorer: NetworkScorer) -> TiltOver:
    return TiltOver(scorer.name, scorer.fresh_network, scorer.config, scorer.pass_name)


PASSES: dict[str, tuple[type[NetworkScorer], PassName]] = {
    "plain": (NetworkScorer, "plain"),
    "sliding": (NetworkScorer, "sliding"),
    "adapted": (NetworkScorer, "adapted"),
    "plain with tilt": (TiltOver, "plain"),
    "sliding with tilt": (TiltOver, "sliding"),
    "adapted with tilt": (NetworkScorer, "tilted"),
}


@functools.cache
def ours() -> tuple[Callable[[], NetworkScorer], ...]:
    """One scorer for each pass and seed; the same ones at every call, so that what was found about them can be kept."""
    return tuple(_maker(title, kind, name, seed) for title, (kind, name) in PASSES.items() for seed in SEEDS)


def _maker(title: str, kind: type[NetworkScorer], name: PassName, seed: int) -> Callable[[], NetworkScorer]:
    model = toy_network(VOCAB, seed, noise_seed=seed)
    return lambda: kind(f"{title}, seed {seed}", lambda: copy.deepcopy(model), CONFIG, name)

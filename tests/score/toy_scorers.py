"""A tiny untrained network, a random stream and the passes over it, for tests of the driver and what walks with it."""

from collections.abc import Callable

import numpy as np
import torch

from fairway.config import AdaptationConfig
from fairway.model.gpt import GPT
from fairway.score.adaptation import AdaptedPredictor
from fairway.score.ledger import Ledger
from fairway.score.neural import NeuralPredictor
from fairway.score.plan import Block, chunk_count, chunked_plan, fixed_plan, plain_windows, sliding_windows
from fairway.score.predictor import Predictor
from toy_network import toy_network

VOCAB, TARGETS, CONTEXT = 13, 60, 8


def small_model() -> GPT:
    return toy_network(VOCAB)


def stream(seed: int = 0) -> torch.Tensor:
    return torch.randint(VOCAB, (TARGETS + 1,), generator=torch.Generator().manual_seed(seed))


def ledger() -> Ledger:
    return Ledger(np.ones(TARGETS, dtype=np.uint16))


def adapted() -> AdaptedPredictor:
    config = AdaptationConfig(chunk_tokens=16, epochs=2, learning_rate=0.05, sequences_per_step=1)
    return AdaptedPredictor(small_model(), config, context=CONTEXT, chunks=chunk_count(TARGETS, 16), rows_per_forward=4)


WINDOWS = sliding_windows(TARGETS, CONTEXT, 3)
PLANS: dict[str, tuple[Callable[[], Predictor], Callable[[], list[Block]]]] = {
    "plain": (lambda: NeuralPredictor(small_model()), lambda: fixed_plan(plain_windows(TARGETS, CONTEXT))),
    "packed": (lambda: NeuralPredictor(small_model(), longest=CONTEXT), lambda: fixed_plan(plain_windows(TARGETS, 20))),
    "sliding": (lambda: NeuralPredictor(small_model()), lambda: fixed_plan(WINDOWS)),
    "adapted": (adapted, lambda: chunked_plan(WINDOWS, TARGETS, 16)),
}

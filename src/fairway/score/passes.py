"""The named passes: which predictor, which plan, over which part of the text."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int, UInt16
from torch import Tensor

from fairway.base.errors import DataError, RecipeError
from fairway.config import PassName, ScoreConfig
from fairway.data.dataset import Stream
from fairway.data.tokenizer import Tokenizer
from fairway.model.gpt import GPT
from fairway.score.adaptation import AdaptedPredictor
from fairway.score.driver import score
from fairway.score.hints_flags import token_flags, uses_words
from fairway.score.ledger import Ledger
from fairway.score.neural import NeuralPredictor
from fairway.score.plan import Block, chunked_plan, early_targets, fixed_plan, plain_windows, sliding_windows
from fairway.score.predictor import Predictor
from fairway.score.tilt import TiltedPredictor
from fairway.train.distributed import ONE_RANK, Ranks

DESCRIPTIONS: dict[PassName, str] = {
    "float": "rows one after the other, weights before quantization",
    "plain": "rows one after the other, weights from the artifact",
    "sliding": "sliding windows, weights from the artifact",
    "adapted": "sliding windows, weights from the artifact adapted to text already scored",
    "tilted": "the adapted pass, tilted toward what followed the same tokens in text already scored",
}


@dataclass(frozen=True)
class ScoredText:
    """The stretch of the validation stream that a result is about."""

    tokens: Int[Tensor, " targets_plus_1"]
    byte_costs: UInt16[np.ndarray, " targets"]
    """Bytes of each target."""
    documents: Int[Tensor, " documents"]
    """Stream positions of the document markers among ``tokens``."""
    partial: bool
    """Whether the validation split goes on beyond this text."""

    @property
    def targets(self) -> int:
        """Number of targets."""
        return len(self.byte_costs)


def select_text(stream: Stream, config: ScoreConfig) -> ScoredText:
    """The leading part of the stream that ``config`` asks for.

    ``max_tokens`` cuts after the last whole document that fits, so that the scored text is a text; only when the first
    document alone is longer does it cut inside it.

    Raises:
        DataError: fewer targets than one row where tails are dropped, or none at all.
    """
    available = len(stream.tokens) - 1
    targets = available
    if config.max_tokens and config.max_tokens < available:
        ends = stream.documents[stream.documents >= 1] - 1
        fitting = ends[ends <= config.max_tokens]
        targets = int(fitting[-1]) if len(fitting) else config.max_tokens
    if not config.keep_tail:
        targets = targets // config.context * config.context
    if targets < 1:
        raise DataError(
            f"the validation stream has {available} targets, which is less than score.context={config.context}; "
            "use more validation text, or set score.keep_tail=True"
        )
    documents = torch.from_numpy(stream.documents[stream.documents <= targets].astype(np.int64))
    tokens = torch.from_numpy(stream.tokens[: targets + 1].astype(np.int64))
    costs = np.ascontiguousarray(stream.byte_costs[1 : targets + 1])
    return ScoredText(tokens, costs, documents, partial=bool(config.max_tokens) and targets < available)


def build_pass(
    name: PassName,
    model: GPT,
    targets: int,
    config: ScoreConfig,
    *,
    tokenizer: Tokenizer | None = None,
    ranks: Ranks = ONE_RANK,
) -> tuple[Predictor, list[Block]]:
    """Predictor and plan of a named pass.

    Args:
        name: The pass.
        model: The network; ``adapted`` and ``tilted`` take it over and change its weights.
        targets: Number of targets that will be scored.
        config: Settings of the pass.
        tokenizer: Needed only where the tilt's word experts run, which look at pieces.
        ranks: Ranks that share the work.

    Raises:
        RecipeError: see `adaptation_plan`.
    """
    if name in ("float", "plain"):
        return NeuralPredictor(model), fixed_plan(plain_windows(targets, config.context))
    if name == "sliding":
        return NeuralPredictor(model), fixed_plan(sliding_windows(targets, config.context, config.stride))
    plan = adaptation_plan(targets, config)
    adapted = AdaptedPredictor(
        model,
        config.adaptation,
        context=config.context,
        chunks=len(plan),
        rows_per_forward=config.windows_per_forward,
        ranks=ranks,
    )
    if name == "adapted":
        return adapted, plan
    flags = token_flags(tokenizer) if tokenizer and uses_words(config.tilt) else None
    return TiltedPredictor(adapted, config.tilt, targets=targets, flags=flags), plan


def adaptation_plan(targets: int, config: ScoreConfig) -> list[Block]:
    """Sliding windows in chunks, by the window key of the adaptation.

    Raises:
        RecipeError: in strict mode, a target would be revealed before it is scored: never with first inputs as the key, and
            with last inputs wherever the scored part of a window straddles two chunks.
    """
    adaptation = config.adaptation
    windows = sliding_windows(targets, config.context, config.stride)
    plan = chunked_plan(windows, targets, adaptation.chunk_tokens, adaptation.window_key)
    early = early_targets(plan)
    if early and config.mode == "strict":
        raise RecipeError(
            f"score.adaptation.window_key=last_input would reveal {early} targets before they are scored: windows of context "
            f"{config.context} and stride {config.stride} straddle chunks of {adaptation.chunk_tokens}; use first_input, a "
            "stride that divides context and chunk, or score.mode=as_published"
        )
    return plan


def run_pass(
    name: PassName,
    model: GPT,
    text: ScoredText,
    config: ScoreConfig,
    *,
    tokenizer: Tokenizer | None = None,
    ranks: Ranks = ONE_RANK,
    progress: Callable[[int], None] = lambda targets: None,
) -> Ledger:
    """Score ``text`` with the named pass and return its ledger."""
    predictor, plan = build_pass(name, model, text.targets, config, tokenizer=tokenizer, ranks=ranks)
    return score(
        predictor,
        text.tokens,
        Ledger(text.byte_costs),
        plan,
        windows_per_forward=config.windows_per_forward,
        ranks=ranks,
        strict=config.mode == "strict",
        progress=progress,
    )

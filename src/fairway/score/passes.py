"""The named passes: which predictor, which plan, over which part of the text."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int, UInt16
from torch import Tensor

from fairway.base.errors import DataError, RecipeError
from fairway.config import DOCUMENT_PASSES, PassName, ScoreConfig
from fairway.data.dataset import Stream
from fairway.data.tokenizer import BOS, Tokenizer
from fairway.model.gpt import GPT
from fairway.score.adaptation import AdaptedPredictor
from fairway.score.documents import DocumentPredictor
from fairway.score.driver import walk
from fairway.score.hints import build_hints
from fairway.score.hints_flags import token_flags, uses_words
from fairway.score.lane_plans import PublishedPlan, StrictPlan
from fairway.score.lanes import LanePlan, coding_order
from fairway.score.ledger import Ledger
from fairway.score.neural import NeuralPredictor
from fairway.score.plan import Block, adapted_plan, early_targets, fixed_plan, plain_windows, sliding_windows
from fairway.score.predictor import Predictor
from fairway.score.tilt import TiltedPredictor
from fairway.score.tilt_documents import PublishedTiltedPredictor, TurnTiltedPredictor
from fairway.train.distributed import ONE_RANK, Ranks

DESCRIPTIONS: dict[PassName, str] = {
    "float": "rows one after the other, weights before quantization",
    "plain": "rows one after the other, weights from the artifact",
    "sliding": "sliding windows, weights from the artifact",
    "adapted": "sliding windows, weights from the artifact adapted to text already scored",
    "tilted": "the adapted pass, tilted toward what followed the same tokens in text already scored",
    "documents": "documents side by side, each with adapters that learn it chunk by chunk, and phases that train the network",
    "documents_tilted": "the documents pass, tilted toward what followed the same tokens before",
}

Plan = list[Block] | LanePlan
"""Blocks in the order of the stream, or a lane plan, which has an order of its own."""


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
    documents: int | None = None,
    text: ScoredText | None = None,
    keep_graph: bool = False,
) -> tuple[Predictor, Plan]:
    """Predictor and plan of a named pass.

    Args:
        name: The pass.
        model: The network; adaptive passes take it over and change its weights.
        targets: Number of targets that will be scored.
        config: Settings of the pass.
        tokenizer: Needed only where the tilt's word experts run, which look at pieces.
        ranks: Ranks that share the work.
        documents: Number of document markers, the given first token included, for the passes over documents: side
            information like ``targets``.
        text: The text itself, for the passes over documents in the mode ``as_published``, which look at all of it beforehand.
        keep_graph: See `DocumentPredictor`; for text that is known.

    Raises:
        RecipeError: see `adaptation_plan` and `document_pass`.
    """
    if name in DOCUMENT_PASSES:
        return document_pass(name, model, targets, config, ranks, documents, text, keep_graph=keep_graph)
    if name in ("float", "plain"):
        longest = config.context if config.packed_tokens else None
        return NeuralPredictor(model, longest), fixed_plan(plain_windows(targets, _row(name, config)))
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


def document_pass(
    name: PassName,
    model: GPT,
    targets: int,
    config: ScoreConfig,
    ranks: Ranks,
    documents: int | None,
    text: ScoredText | None,
    *,
    keep_graph: bool,
) -> tuple[Predictor, LanePlan]:
    """Predictor and plan of a pass over documents; arguments as for `build_pass`.

    Raises:
        RecipeError: the published order is asked for without the text whose lengths and hints it is made from.
    """
    published = config.mode == "as_published"
    inner = DocumentPredictor(model, config.documents, ended_decay=published, keep_graph=keep_graph, ranks=ranks)
    if not published:
        if documents is None:
            raise RecipeError(f"the pass {name} needs the number of documents; count the document markers of the text")
        plan = StrictPlan(targets, documents, config.documents, config.context)
        tilted = TurnTiltedPredictor(inner, config.tilt, targets=targets) if name == "documents_tilted" else inner
        return tilted, plan
    if text is None:
        raise RecipeError(
            f"the pass {name} with score.mode=as_published orders documents by their lengths, which no decoder knows before it "
            "has the text, so it can be scored and not coded; set score.mode=strict"
        )
    plan = PublishedPlan(text.documents.numpy(), targets, config.documents, config.context)
    if name == "documents":
        return inner, plan
    ids = text.tokens.numpy().astype(np.uint16)
    primer = int(ids[1]) if config.tilt.counting == "pr2140" else None
    hints, strengths = build_hints(ids, config.tilt, vocab_size=model.config.vocab_size, primer=primer)
    order = coding_order(plan, text.tokens)
    return PublishedTiltedPredictor(inner, hints[order], strengths[order]), plan


def adaptation_plan(targets: int, config: ScoreConfig) -> list[Block]:
    """Sliding windows in chunks, by the window key of the adaptation.

    Raises:
        RecipeError: in strict mode, a target would be revealed before it is scored: never with first inputs as the key, and
            with last inputs wherever the scored part of a window straddles two chunks.
    """
    adaptation = config.adaptation
    plan = adapted_plan(targets, config)
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
    """Score ``text`` with the named pass and return its ledger, whose entries are in the order of the stream."""
    predictor, plan = build_pass(
        name,
        model,
        text.targets,
        config,
        tokenizer=tokenizer,
        ranks=ranks,
        documents=count_documents(text.tokens),
        text=text,
        keep_graph=True,
    )
    ledger = Ledger(text.byte_costs)
    walk(
        predictor,
        text.tokens,
        ledger,
        plan,
        windows_per_forward=max(1, config.windows_per_forward * config.context // _row(name, config)),
        ranks=ranks,
        strict=config.mode == "strict",
        progress=progress,
    )
    return ledger


def _row(name: PassName, config: ScoreConfig) -> int:
    """Inputs of the pass's longest window."""
    return config.packed_tokens or config.context if name in ("float", "plain") else config.context


def count_documents(tokens: Int[Tensor, " targets_plus_1"]) -> int:
    """Number of documents: the given token opens one, and every document marker after it another."""
    return 1 + int((tokens[1:] == BOS).sum())

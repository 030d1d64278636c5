"""Scoring, test-time adaptation and the n-gram tilt."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal

from fairway.base.values import Value, from_dict, require

PassName = Literal["float", "plain", "sliding", "adapted", "tilted", "documents", "documents_tilted"]

ADAPTIVE_PASSES: tuple[PassName, ...] = ("adapted", "tilted", "documents", "documents_tilted")
"""Passes whose weights change while they score."""

DOCUMENT_PASSES: tuple[PassName, ...] = ("documents", "documents_tilted")
"""Passes that adapt to each document by itself, several documents side by side."""

ARTIFACT_PASSES: tuple[PassName, ...] = ("plain", "sliding", *ADAPTIVE_PASSES)
"""Passes that need the artifact alone."""

ADAPTER_SITES = ("query", "key", "value", "output", "mlp", "head")
"""Maps of the network that an adapter may add to."""


@dataclass(frozen=True, kw_only=True)
class AdaptationConfig(Value):
    """Test-time training: each chunk is scored first, then trained on, then the next chunk is scored."""

    chunk_tokens: int = 32768
    """Targets that are scored before the weights change. PR #1413."""
    epochs: int = 3
    """Passes over each scored chunk. PR #1413; PR #1557 uses 5."""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """sgd with momentum, as all published scores; adamw is an option of PR #1533 and PR #1557 that none of them used."""
    learning_rate: float = 0.005
    """Peak step size; falls as a cosine over the chunks. PR #1413."""
    momentum: float = 0.9
    """Momentum of SGD; its buffers live on over chunks. AdamW has betas 0.9 and 0.999 instead. PR #1413."""
    weight_decay: float = 0.0
    """Decoupled decay of AdamW, times the step size; SGD has none. PR #1533."""
    frozen_blocks: int = 0
    """Leading blocks whose parameters stay; embedding and skips always adapt. PR #1776: 9 of 11."""
    gradient_clip: float = 1.0
    """Largest joint L2 norm of the gradients; 0 turns clipping off. PR #1413."""
    window_key: Literal["first_input", "last_input"] = "first_input"
    """Which scored input of a window says to which chunk it belongs. PR #1413: first; PR #1776: last, which is unsafe where
    windows straddle chunks and then needs ``score.mode=as_published``."""
    sequences_per_step: int = 256
    """Rows of ``score.context`` tokens per optimizer step over all ranks. PR #1413: 32 on each of 8 ranks."""

    def validate(self) -> None:
        for name in ("chunk_tokens", "epochs", "sequences_per_step"):
            require(getattr(self, name) >= 1, f"score.adaptation.{name}={getattr(self, name)} must be at least 1")
        require(self.learning_rate > 0, f"score.adaptation.learning_rate={self.learning_rate} must be positive")
        require(0 <= self.momentum < 1, f"score.adaptation.momentum={self.momentum} is outside [0, 1)")
        require(self.gradient_clip >= 0, f"score.adaptation.gradient_clip={self.gradient_clip} is negative")
        require(self.frozen_blocks >= 0, f"score.adaptation.frozen_blocks={self.frozen_blocks} is negative; use 0 for none")
        require(
            self.weight_decay == 0 or self.optimizer == "adamw",
            f"score.adaptation.weight_decay={self.weight_decay} is for optimizer=adamw; sgd has none",
        )
        require(self.weight_decay >= 0, f"score.adaptation.weight_decay={self.weight_decay} is negative")


@dataclass(frozen=True, kw_only=True)
class DocumentAdaptationConfig(Value):
    """Low-rank adapters that learn one document each, chunk by chunk: score, then update; and phases that train the network.

    ``y = W x + (alpha / rank) B A x`` at every site, with A and B of the document's own. PR #1530, #1610, #1855, #2140.
    """

    lanes: int = 24
    """Documents side by side, each with adapters of its own. PR #2140: 24 rows; PR #1530: 64."""
    chunk_sizes: tuple[int, ...] = (16, 32, 64)
    """Targets of a document that are scored before its adapters change; one more than ``chunk_limits``. PR #2140."""
    chunk_limits: tuple[int, ...] = (256, 2000)
    """strict: position in the document from which the next of ``chunk_sizes`` holds. as_published: longest document, in
    tokens with both ends, for which each of them holds. PR #2140."""
    rank: int = 80
    """Rows of A. PR #1855; PR #1530: 96."""
    alpha: float = 144.0
    """The product with B is multiplied by ``alpha / rank``. PR #1855."""
    sites: tuple[str, ...] = ("key", "output", "mlp", "head")
    """Maps with adapters, in every block application: query, key, value, output, mlp, and head. PR #2140; PR #1530: all."""
    learning_rate: float = 0.000075
    """Step size of AdamW with beta1 = 0. PR #2140; PR #1530: 1e-4."""
    beta2: float = 0.99
    """Decay of the mean square of the gradient. PR #1855; PR #1530: 0.999."""
    weight_decay: float = 0.5
    """Decoupled decay, times the step size. PR #1530."""
    warm_start: bool = True
    """A document begins with the A that the last document of its lane left; B always begins at zero. PR #1855."""
    seed: int = 0
    """Seed of the first A."""
    phases: int = 1
    """Times that the whole network is trained on documents already scored; 0 for never. PR #1610, #2140: 1; PR #1626: 3."""
    prefix_documents: int = 2500
    """Documents scored before the last phase; the others are spread evenly before it. PR #1855, #2140."""
    global_learning_rate: float = 0.001
    """Peak step size of a phase's SGD; falls as a cosine over its chunks. PR #1626."""
    global_momentum: float = 0.9
    """Momentum of a phase's SGD, whose buffers begin empty. PR #1610."""
    global_chunk_tokens: int = 32768
    """Tokens per optimizer step of a phase. PR #1610."""
    global_context: int = 2048
    """Tokens per row of a phase, and its longest stretch of attention; rows of a step are packed. PR #2140: 3072."""
    global_clip: float = 1.0
    """Largest joint L2 norm of a phase's gradients; 0 turns clipping off. PR #1610."""

    def validate(self) -> None:
        where = "score.documents"
        for name in ("lanes", "rank", "global_chunk_tokens", "global_context"):
            require(getattr(self, name) >= 1, f"{where}.{name}={getattr(self, name)} must be at least 1")
        for name in ("phases", "prefix_documents", "weight_decay", "global_clip"):
            require(getattr(self, name) >= 0, f"{where}.{name}={getattr(self, name)} is negative; use 0 for none")
        for name in ("alpha", "learning_rate", "global_learning_rate"):
            require(getattr(self, name) > 0, f"{where}.{name}={getattr(self, name)} must be positive")
        for name in ("beta2", "global_momentum"):
            require(0 <= getattr(self, name) < 1, f"{where}.{name}={getattr(self, name)} is outside [0, 1)")
        sizes, limits = self.chunk_sizes, self.chunk_limits
        require(
            len(sizes) == len(limits) + 1 and all(size >= 1 for size in sizes),
            f"{where}.chunk_sizes={sizes} must be positive, and one more than chunk_limits={limits}",
        )
        require(
            all(b > a for a, b in pairwise((0, *limits))), f"{where}.chunk_limits={limits} must be positive and rise strictly"
        )
        unknown = [site for site in self.sites if site not in ADAPTER_SITES]
        require(not unknown, f"{where}.sites={self.sites} has {unknown}; known are {', '.join(ADAPTER_SITES)}")
        require(
            len(self.sites) > 0 and len(set(self.sites)) == len(self.sites),
            f"{where}.sites={self.sites} must name at least one site, and none twice",
        )
        require(
            self.global_chunk_tokens >= self.global_context,
            f"{where}.global_chunk_tokens={self.global_chunk_tokens} is below global_context={self.global_context}, so no row "
            "would be trained on",
        )


@dataclass(frozen=True, kw_only=True)
class TiltConfig(Value):
    """N-gram tilt: the token that most often followed the last tokens of the coded text is made likelier.

    ``p'(v) = p(v) exp(strength [v = hint]) / (1 + p(hint) (exp(strength) - 1))``, where a context seen before proposes a hint
    with confidence (count of its commonest continuation) / (count of the context).
    """

    counting: Literal["exact", "pr2140", "pr1557"] = "exact"
    """How contexts are told apart: exact compares their tokens; the others use the hashes and the counting of those PRs."""
    contexts: tuple[int, ...] = (15,)
    """Lengths of the contexts in tokens, rising; the longest that passes its threshold proposes. PR #2140: 15."""
    thresholds: tuple[float, ...] = (0.8,)
    """Least confidence, for each length. PR #2140: 0.8; PR #1557: 0.7, 0.7, 0.6, 0.5, 0.5."""
    minimum_counts: tuple[int, ...] = (1,)
    """Least number of earlier occurrences, for each length. PR #2140: 1; PR #1557: 3, 3, 2, 2, 2."""
    strength: float = 2.625
    """Log-odds added to the hint. PR #2140: 2.625; PR #1557: 2.0 times the confidence."""
    confidence_scaled: bool = False
    """Multiply the strength by the confidence. PR #1557."""
    agreement: float = 0.0
    """Added to the strength where a word expert proposes the same token; above 0 the word experts run. PR #1557: 0.1."""
    within_word_strength: float = 0.0
    """Strength of the expert that continues words; it helps no published system, so 0 by default."""
    within_word_threshold: float = 0.25
    """Least confidence of the expert that continues words. PR #1557."""
    word_start_strength: float = 0.0
    """Strength of the expert that proposes the first token of a word from the words before it; 0 by default."""
    word_start_threshold: float = 0.8
    """Least confidence of the expert for word starts, which also needs three occurrences. PR #1557."""

    def validate(self) -> None:
        lengths = self.contexts
        require(len(lengths) > 0, "score.tilt.contexts is empty; name at least one length")
        require(
            all(b > a for a, b in pairwise(lengths)) and lengths[0] >= 1 and lengths[-1] <= 32,
            f"score.tilt.contexts={lengths} must rise within 1..32",
        )
        for name in ("thresholds", "minimum_counts"):
            values = getattr(self, name)
            require(len(values) == len(lengths), f"score.tilt.{name}={values} must have one value per context length {lengths}")
        require(
            all(0 < value <= 1 for value in self.thresholds), f"score.tilt.thresholds={self.thresholds} must be within (0, 1]"
        )
        require(
            all(value >= 1 for value in self.minimum_counts),
            f"score.tilt.minimum_counts={self.minimum_counts} must be at least 1",
        )
        for name in ("strength", "agreement", "within_word_strength", "word_start_strength"):
            value = getattr(self, name)
            require(0 <= value <= 16, f"score.tilt.{name}={value} is outside 0..16")
        require(
            self.counting != "pr2140" or len(lengths) == 1,
            f"score.tilt.contexts={lengths}: counting=pr2140 knows one length; use exact or pr1557 for several",
        )


@dataclass(frozen=True, kw_only=True)
class ScoreConfig(Value):
    """Scoring of the validation split in bits per byte."""

    mode: Literal["strict", "as_published"] = "strict"
    """strict: every prediction depends on coded text alone, or the run is refused. as_published: a published system's own order
    and state, even where no decoder could follow it; a record can be claimed from strict alone."""

    passes: tuple[PassName, ...] = ("float", "plain", "sliding", "adapted")
    """Passes to run; the last is the result. float: before quantization. From the artifact: plain, sliding, adapted, tilted,
    documents (adapters per document), documents_tilted."""
    context: int = 2048
    """Longest context of a prediction, in tokens."""
    stride: int = 64
    """Targets scored per sliding window after the first. PR #1394."""
    windows_per_forward: int = 32
    """Windows of ``context`` inputs in one forward pass; changes memory and speed only."""
    keep_tail: bool = True
    """Score the last partial window too; False drops targets beyond a multiple of ``context`` as PR #1394 did."""
    packed_tokens: int = 0
    """Length of the rows of the passes float and plain if they are packed: attention stays within a document, and within
    ``context`` inputs of where it began. 0: rows of ``context``, whatever they hold. PR #2140: 64,512."""
    max_tokens: int = 0
    """Score only this many leading targets and mark the result as partial; 0 scores the whole split."""
    proof_targets: int = 0
    """Targets that a run codes and decodes in fresh processes after scoring; 0 leaves the proof to ``fairway prove``."""
    adaptation: AdaptationConfig = field(default_factory=AdaptationConfig)
    """Test-time training of the ``adapted`` and ``tilted`` passes."""
    documents: DocumentAdaptationConfig = field(default_factory=DocumentAdaptationConfig)
    """Adapters and phases of the ``documents`` and ``documents_tilted`` passes."""
    tilt: TiltConfig = field(default_factory=TiltConfig)
    """N-gram tilt of the ``tilted`` pass, which is otherwise the adapted pass, and of ``documents_tilted``."""

    def validate(self) -> None:
        require(len(self.passes) > 0, f"score.passes is empty; name at least one of float, {', '.join(ARTIFACT_PASSES)}")
        require(len(set(self.passes)) == len(self.passes), f"score.passes={self.passes} names a pass twice")
        require(self.passes[-1] != "float", "score.passes ends with float; the result must come from the artifact")
        for name in ("context", "stride", "windows_per_forward"):
            require(getattr(self, name) >= 1, f"score.{name}={getattr(self, name)} must be at least 1")
        require(self.stride <= self.context, f"score.stride={self.stride} exceeds score.context={self.context}")
        require(
            self.packed_tokens == 0 or self.packed_tokens >= self.context,
            f"score.packed_tokens={self.packed_tokens} is below score.context={self.context}; use 0 for rows of the context",
        )
        require(self.max_tokens >= 0, f"score.max_tokens={self.max_tokens} is negative; use 0 for all")
        require(self.proof_targets >= 0, f"score.proof_targets={self.proof_targets} is negative; use 0 for none")
        chunk = self.adaptation.chunk_tokens
        require(
            not {"adapted", "tilted"} & set(self.passes) or chunk >= self.context,
            f"score.adaptation.chunk_tokens={chunk} is below score.context={self.context}, so no row would be trained on",
        )
        largest = max(self.documents.chunk_sizes)
        require(
            not set(DOCUMENT_PASSES) & set(self.passes) or largest <= self.context,
            f"score.documents.chunk_sizes={self.documents.chunk_sizes} exceed score.context={self.context}",
        )
        words = self.tilt.agreement + self.tilt.within_word_strength + self.tilt.word_start_strength
        require(
            "documents_tilted" not in self.passes or words == 0,
            "score.tilt runs word experts, which follow one text from its beginning; the pass documents_tilted takes turns "
            "between documents: set agreement, within_word_strength and word_start_strength to 0",
        )


def stated_settings(stated: Mapping[str, Any] | None, packed: ScoreConfig) -> ScoreConfig:
    """Settings that a score was made with.

    Args:
        stated: The content of ``score.json``, if there is one. Files of the first releases do not have them.
        packed: Settings of the artifact, which stand where nothing else is stated.
    """
    return from_dict(ScoreConfig, stated["settings"], "settings") if stated and "settings" in stated else packed

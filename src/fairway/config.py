"""Every choice of a run as one frozen value. Imports no torch; ``fairway recipe show NAME`` prints one with its docs.

Fields have no hidden meaning elsewhere: no environment variable and no constant in a forward pass changes a result.
The source of a default is the pull request (PR) of the Parameter Golf challenge, or the paper, that introduced it.
"""

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

from fairway.base.errors import RecipeError
from fairway.base.values import Value

PassName = Literal["float", "plain", "sliding", "adapted", "tilted"]


def require(condition: bool, message: str) -> None:
    """Raise a ``RecipeError`` with ``message`` unless ``condition`` holds."""
    if not condition:
        raise RecipeError(message)


@dataclass(frozen=True, kw_only=True)
class RecurrenceConfig(Value):
    """Depth recurrence: a segment of layers is applied several times with the same weights."""

    first: int = 4
    """First looped layer, counted from 0. PR #1394; PR #1533 and its successors use 3."""
    last: int = 5
    """Last looped layer, inclusive. PR #1394."""
    extra_passes: int = 2
    """Passes through the segment beyond the first; 0 turns recurrence off. PR #1394; PR #1557 uses 3."""
    begins_at: float = 0.5
    """Progress of training in [0, 1] from which the extra passes run; scoring always runs them. PR #1394; #1533 uses 0.35."""

    def validate(self) -> None:
        require(self.extra_passes >= 0, f"model.recurrence.extra_passes={self.extra_passes} is negative; use 0 for none")
        require(0 <= self.first <= self.last, f"model.recurrence.first={self.first} lies after last={self.last}")
        require(0.0 <= self.begins_at <= 1.0, f"model.recurrence.begins_at={self.begins_at} is outside [0, 1]")


@dataclass(frozen=True, kw_only=True)
class ModelConfig(Value):
    """The network. ``fairway model RECIPE`` prints its parts with shapes, parameters, FLOPs and planned bytes."""

    vocab_size: int = 8192
    """Number of token ids; equal to the pieces of the data's tokenizer."""
    layers: int = 11
    """Physical layers; the first half are encoder layers of the U-Net skips. PR #1394."""
    width: int = 512
    """Channels of the residual stream."""
    query_heads: int = 8
    """Attention heads; a multiple of ``kv_heads``."""
    kv_heads: int = 4
    """Key and value heads shared by groups of query heads (grouped-query attention, arXiv 2305.13245)."""
    mlp_hidden: int = 2048
    """Hidden channels of each MLP. PR #1394 uses 4 times the width, the challenge's baseline 2 times."""
    activation_slope: float = 0.5
    """Slope of LeakyReLU before squaring; 0 is ReLU squared. PR #1394; PR #2140 uses 0.3."""
    rotary_channels: int = 16
    """Channels per head that rotate with position, an even number; the rest carry no position. PR #1394."""
    rotary_base: float = 10000.0
    """Base of the rotary frequencies ``base ** (-2j / rotary_channels)``. arXiv 2104.09864."""
    rotary_bfloat16: bool = True
    """Round the rotary frequencies to bfloat16, as the published systems did by casting the whole module. PR #1394."""
    query_gain: float = 4.0
    """Initial learned multiplier of the normalised queries, per head. PR #1394; PR #1413 uses 5."""
    exclusive_attention_layers: int = 11
    """Last layers whose attention output drops its part along the token's own value (XSA). PR #1394: all."""
    depth_scale: bool = True
    """Multiply the normalised input of layer i by ``1 / sqrt(i + 1)``. PR #1394."""
    skip_gates: bool = True
    """Blend each U-Net skip with a learned gate instead of adding it. PR #1394."""
    softcap: float = 30.0
    """Bound in nats of the logits, ``cap * tanh(logits / cap)``. arXiv 2408.00118."""
    embedding_std: float = 0.005
    """Standard deviation of the initial tied embedding. The challenge's baseline."""
    recurrence: RecurrenceConfig = field(default_factory=RecurrenceConfig)
    """Depth recurrence."""

    @property
    def head_width(self) -> int:
        """Channels of one attention head."""
        return self.width // self.query_heads

    def validate(self) -> None:
        require(2 <= self.vocab_size <= 65536, f"model.vocab_size={self.vocab_size} is outside 2..65536 (tokens are 16-bit)")
        for name in ("layers", "width", "query_heads", "kv_heads", "mlp_hidden"):
            require(getattr(self, name) >= 1, f"model.{name}={getattr(self, name)} must be at least 1")
        if self.width % self.query_heads:
            fits = [heads for heads in range(1, self.width + 1) if self.width % heads == 0 and heads % self.kv_heads == 0]
            raise RecipeError(
                f"model.query_heads={self.query_heads} does not divide model.width={self.width}; use one of {fits[:6]}"
            )
        if self.query_heads % self.kv_heads:
            fits = [self.kv_heads * factor for factor in (1, 2, 3)]
            raise RecipeError(
                f"model.query_heads={self.query_heads} is not a multiple of model.kv_heads={self.kv_heads}; "
                f"use {fits[0]}, {fits[1]} or {fits[2]} query heads, or set model.kv_heads={self.query_heads}"
            )
        rotary, head = self.rotary_channels, self.head_width
        require(
            0 <= rotary <= head and rotary % 2 == 0,
            f"model.rotary_channels={rotary} must be even and at most the head width {head} (= width / query_heads)",
        )
        require(
            0 <= self.exclusive_attention_layers <= self.layers,
            f"model.exclusive_attention_layers={self.exclusive_attention_layers} is outside 0..{self.layers} (model.layers)",
        )
        require(self.softcap > 0, f"model.softcap={self.softcap} must be positive; 30 is usual")
        require(self.embedding_std > 0, f"model.embedding_std={self.embedding_std} must be positive")
        require(self.activation_slope >= 0, f"model.activation_slope={self.activation_slope} is negative")
        loop = self.recurrence
        require(
            loop.extra_passes == 0 or loop.last < self.layers,
            f"model.recurrence.last={loop.last} is not below model.layers={self.layers}; loop earlier layers or none",
        )


@dataclass(frozen=True, kw_only=True)
class MuonConfig(Value):
    """Muon with row normalisation: momentum, then orthogonalisation by Newton-Schulz, for all matrices of the blocks."""

    learning_rate: float = 0.02
    """Spectral norm of one update of a square matrix at full schedule. PR #1394."""
    momentum: float = 0.99
    """Momentum after the ramp. PR #1394."""
    momentum_start: float = 0.92
    """Momentum at step 0. PR #1394."""
    momentum_ramp_steps: int = 1500
    """Steps over which the momentum rises linearly to ``momentum``. PR #1394."""
    weight_decay: float = 0.085
    """Decoupled decay, multiplied by the scheduled learning rate. PR #1394; PR #1533 uses 0.095."""
    newton_schulz_steps: int = 5
    """Iterations of the orthogonalisation."""
    row_normalize: bool = True
    """Scale every row of the update to unit length before the orthogonalisation. PR #1394."""

    def validate(self) -> None:
        require(self.learning_rate > 0, f"optim.matrices.learning_rate={self.learning_rate} must be positive")
        require(0 <= self.momentum < 1, f"optim.matrices.momentum={self.momentum} is outside [0, 1)")
        require(0 <= self.momentum_start < 1, f"optim.matrices.momentum_start={self.momentum_start} is outside [0, 1)")
        require(self.momentum_ramp_steps >= 0, "optim.matrices.momentum_ramp_steps is negative; use 0 for no ramp")
        require(self.newton_schulz_steps >= 1, "optim.matrices.newton_schulz_steps must be at least 1")
        require(self.weight_decay >= 0, f"optim.matrices.weight_decay={self.weight_decay} is negative")


@dataclass(frozen=True, kw_only=True)
class AdamConfig(Value):
    """AdamW with decoupled weight decay (arXiv 1711.05101) for one group of parameters."""

    learning_rate: float = 0.02
    """Step size at full schedule. PR #1394: 0.02 for scalars, 0.03 for the tied embedding."""
    beta1: float = 0.9
    """Decay of the first moment."""
    beta2: float = 0.95
    """Decay of the second moment."""
    epsilon: float = 1e-8
    """Added to the root of the second moment."""
    weight_decay: float = 0.02
    """Decoupled decay, multiplied by the scheduled learning rate. PR #1394: 0.02 for scalars, 0.085 for the embedding."""

    def validate(self) -> None:
        require(self.learning_rate > 0, f"optim: learning_rate={self.learning_rate} must be positive")
        require(0 <= self.beta1 < 1 and 0 <= self.beta2 < 1, f"optim: beta1={self.beta1}, beta2={self.beta2} outside [0, 1)")
        require(self.epsilon > 0 and self.weight_decay >= 0, "optim: epsilon must be positive, weight_decay not negative")


@dataclass(frozen=True, kw_only=True)
class OptimConfig(Value):
    """Three groups of parameters, one schedule for all, and the average of the weights that is kept."""

    matrices: MuonConfig = field(default_factory=MuonConfig)
    """Attention and MLP matrices."""
    embedding: AdamConfig = field(default_factory=lambda: AdamConfig(learning_rate=0.03, weight_decay=0.085))
    """The token embedding, tied to the output head."""
    scalars: AdamConfig = field(default_factory=AdamConfig)
    """Gains, channel scales, residual mixes, skip weights and gates."""
    gradient_clip: float = 0.3
    """Largest joint L2 norm of all gradients, after averaging over ranks; 0 turns clipping off. PR #1394."""
    warmdown: float = 0.667
    """Share of progress, from the end, over which the learning rate falls linearly to its floor. PR #1394; #1776: 0.72."""
    learning_rate_floor: float = 0.0
    """Smallest learning-rate multiplier. PR #1394; PR #2140 uses 0.1."""
    ema_decay: float = 0.997
    """Decay per step of the float32 weight average that is packed; 0 packs the last weights. PR #1394."""
    embedding_bfloat16: bool = True
    """Store the embedding and its moments in bfloat16 when training in bfloat16, as published. PR #1394."""

    def validate(self) -> None:
        require(self.gradient_clip >= 0, f"optim.gradient_clip={self.gradient_clip} is negative; use 0 for no clipping")
        require(0 <= self.warmdown <= 1, f"optim.warmdown={self.warmdown} is outside [0, 1]")
        require(0 <= self.learning_rate_floor <= 1, f"optim.learning_rate_floor={self.learning_rate_floor} is outside [0, 1]")
        require(0 <= self.ema_decay < 1, f"optim.ema_decay={self.ema_decay} is outside [0, 1)")


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Value):
    """The training loop: how long, how much per step, in which order of data."""

    budget: float = 600.0
    """Length of training in ``budget_unit``."""
    budget_unit: Literal["seconds", "steps", "tokens"] = "seconds"
    """What progress counts. Seconds is the challenge's rule; steps makes a run deterministic."""
    reserve_seconds: float = 12.0
    """Seconds of a time budget left for the calibration that reads training data. PR #1394."""
    batch_tokens: int = 786432
    """Tokens per optimizer step over all ranks. PR #1394."""
    context: int = 2048
    """Tokens of one training row."""
    loader: Literal["random_windows", "contiguous"] = "random_windows"
    """Random windows without replacement (PR #1394), or one stream read in order (the challenge's baseline)."""
    streams: int = 8
    """Logical data streams; physical ranks share them, so the order of data does not depend on the hardware."""
    warmup_steps: int = 20
    """Steps before the clock starts, per depth schedule, to compile and settle; every state is restored afterwards."""
    validate_every: int = 4000
    """Steps between validations during training, off the clock; 0 for none."""
    log_every: int = 500
    """Steps between log lines; the first five steps are always logged."""
    checkpoint_every: int = 1000
    """Steps between resumable states on disk; 0 keeps one only when the run is interrupted."""

    def validate(self) -> None:
        require(self.budget > 0, f"train.budget={self.budget} must be positive")
        seconds = self.budget_unit == "seconds"
        require(self.reserve_seconds >= 0, f"train.reserve_seconds={self.reserve_seconds} is negative")
        require(
            not seconds or self.reserve_seconds < self.budget,
            f"train.reserve_seconds={self.reserve_seconds} leaves nothing of train.budget={self.budget} seconds",
        )
        for name in ("batch_tokens", "context", "streams"):
            require(getattr(self, name) >= 1, f"train.{name}={getattr(self, name)} must be at least 1")
        for name in ("warmup_steps", "validate_every", "checkpoint_every"):
            require(getattr(self, name) >= 0, f"train.{name}={getattr(self, name)} is negative")
        require(self.log_every >= 1, f"train.log_every={self.log_every} must be at least 1")
        row = self.streams * self.context
        require(
            self.batch_tokens % row == 0,
            f"train.batch_tokens={self.batch_tokens} is not a multiple of streams x context = {row}; "
            f"use {max(1, round(self.batch_tokens / row)) * row}",
        )


@dataclass(frozen=True, kw_only=True)
class SchemeConfig(Value):
    """How one class of matrices is turned into integer codes with one float16 scale per row."""

    method: Literal["gptq", "round"] = "gptq"
    """GPTQ propagates each column's error with the Hessian of its inputs (arXiv 2210.17323); round does not."""
    bits: int = 6
    """Codes lie in ``[-(2**(bits-1) - 1), 2**(bits-1) - 1]``. PR #1394: 6 for matrices, 8 for the embedding."""
    clip_sigmas: float = 12.85
    """Clip at this many standard deviations of the row: step ``clip_sigmas * sigma / max_code`` (SDClip). PR #1394."""

    def validate(self) -> None:
        require(2 <= self.bits <= 8, f"quant: bits={self.bits} is outside 2..8")
        require(self.clip_sigmas > 0, f"quant: clip_sigmas={self.clip_sigmas} must be positive")


@dataclass(frozen=True, kw_only=True)
class QuantConfig(Value):
    """Quantization after training: a scheme per class of tensor; everything else is stored as float16."""

    matrices: SchemeConfig = field(default_factory=SchemeConfig)
    """Attention and MLP matrices."""
    embedding: SchemeConfig = field(default_factory=lambda: SchemeConfig(bits=8, clip_sigmas=20.0))
    """The tied embedding, quantized in its role as output head. PR #1394; PR #2140 uses 7 bits and 14 sigmas."""
    calibration_batches: int = 64
    """Micro-batches of training data whose activations give the Hessians. PR #1394."""
    damping: float = 0.01
    """Share of the mean Hessian diagonal added to the diagonal. arXiv 2210.17323."""

    def validate(self) -> None:
        require(self.calibration_batches >= 1, "quant.calibration_batches must be at least 1")
        require(self.damping > 0, f"quant.damping={self.damping} must be positive")


@dataclass(frozen=True, kw_only=True)
class ArtifactConfig(Value):
    """The byte budget of the file that scoring reads, together with the code."""

    byte_cap: int = 16_000_000
    """Largest sum of artifact and code bytes, decimal. The challenge's rule."""
    embed_tokenizer: bool = False
    """Carry the tokenizer inside the artifact, where its bytes count; the challenge does not count it. PR #1394: no."""

    def validate(self) -> None:
        require(self.byte_cap >= 1, f"artifact.byte_cap={self.byte_cap} must be positive")


@dataclass(frozen=True, kw_only=True)
class AdaptationConfig(Value):
    """Test-time training: each chunk is scored first, then trained on by SGD, then the next chunk is scored."""

    chunk_tokens: int = 32768
    """Targets that are scored before the weights change. PR #1413."""
    epochs: int = 3
    """Passes of SGD over each scored chunk. PR #1413; PR #1557 uses 5."""
    learning_rate: float = 0.005
    """Peak step size; falls as a cosine over the chunks. PR #1413."""
    momentum: float = 0.9
    """Momentum of SGD; its buffers live on over chunks. PR #1413."""
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
    """Passes to run; the last is the result. float: before quantization; plain, sliding, adapted, tilted: from the artifact."""
    context: int = 2048
    """Longest context of a prediction, in tokens."""
    stride: int = 64
    """Targets scored per sliding window after the first. PR #1394."""
    windows_per_forward: int = 32
    """Windows in one forward pass; changes memory and speed only."""
    keep_tail: bool = True
    """Score the last partial window too; False drops targets beyond a multiple of ``context`` as PR #1394 did."""
    max_tokens: int = 0
    """Score only this many leading targets and mark the result as partial; 0 scores the whole split."""
    proof_targets: int = 0
    """Targets that a run codes and decodes in fresh processes after scoring; 0 leaves the proof to ``fairway prove``."""
    adaptation: AdaptationConfig = field(default_factory=AdaptationConfig)
    """Test-time training of the ``adapted`` and ``tilted`` passes."""
    tilt: TiltConfig = field(default_factory=TiltConfig)
    """N-gram tilt of the ``tilted`` pass, which is otherwise the adapted pass."""

    def validate(self) -> None:
        require(len(self.passes) > 0, "score.passes is empty; name at least one of float, plain, sliding, adapted, tilted")
        require(len(set(self.passes)) == len(self.passes), f"score.passes={self.passes} names a pass twice")
        require(self.passes[-1] != "float", "score.passes ends with float; the result must come from the artifact")
        for name in ("context", "stride", "windows_per_forward"):
            require(getattr(self, name) >= 1, f"score.{name}={getattr(self, name)} must be at least 1")
        require(self.stride <= self.context, f"score.stride={self.stride} exceeds score.context={self.context}")
        require(self.max_tokens >= 0, f"score.max_tokens={self.max_tokens} is negative; use 0 for all")
        require(self.proof_targets >= 0, f"score.proof_targets={self.proof_targets} is negative; use 0 for none")
        chunk = self.adaptation.chunk_tokens
        require(
            not {"adapted", "tilted"} & set(self.passes) or chunk >= self.context,
            f"score.adaptation.chunk_tokens={chunk} is below score.context={self.context}, so no row would be trained on",
        )


@dataclass(frozen=True, kw_only=True)
class MachineConfig(Value):
    """Where the run happens. Changes speed and rounding, never the meaning of a result."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto takes a CUDA GPU where there is one."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Type of activations; auto is bfloat16 on a GPU and float32 on a CPU. Master weights are float32."""
    compile: Literal["auto", "on", "off"] = "auto"
    """Compile the network with torch.compile; auto compiles on a GPU only."""
    threads: int = 0
    """CPU threads per process; 0 leaves torch's choice."""

    def validate(self) -> None:
        require(self.threads >= 0, f"machine.threads={self.threads} is negative; use 0 for torch's choice")


@dataclass(frozen=True, kw_only=True)
class Recipe(Value):
    """One whole run as a value: data variant, network, training, quantization, artifact, scoring, machine."""

    name: str
    """Name of the recipe."""
    summary: str
    """What it is, in one line."""
    data_variant: str = "sp8192"
    """Published data set that ``fairway data fetch`` brings for this recipe; any built folder with the same vocabulary fits."""
    seed: int = 1337
    """Seed of the initial weights; the order of data does not depend on it."""
    model: ModelConfig = field(default_factory=ModelConfig)
    """The network."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    """Optimizers and schedules."""
    train: TrainConfig = field(default_factory=TrainConfig)
    """The training loop."""
    quant: QuantConfig = field(default_factory=QuantConfig)
    """Quantization."""
    artifact: ArtifactConfig = field(default_factory=ArtifactConfig)
    """The byte budget."""
    score: ScoreConfig = field(default_factory=ScoreConfig)
    """Scoring."""
    machine: MachineConfig = field(default_factory=MachineConfig)
    """Device, precision, compilation."""

    def validate(self) -> None:
        require(0 <= self.seed < 2**63, f"seed={self.seed} is outside 0..2**63-1")

"""The network."""

from dataclasses import dataclass, field
from typing import Literal

from fairway.base.errors import RecipeError
from fairway.base.values import Value, require


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
class ResidualConfig(Value):
    """Residual topology: what attention and MLP of a layer read and write. The equations are in ``docs/topologies.md``."""

    topology: Literal["sequential", "single_stream", "decoupled_lanes", "routed_lanes"] = "sequential"
    """sequential: attention, then MLP. single_stream: both read one input (PR #1776). decoupled_lanes: two streams with a
    learned merge (PR #1533). routed_lanes: two streams into which both write with learned weights (PR #1557)."""
    parallel_from: int = 7
    """First layer, counted from 0, that is not sequential; of no effect in a sequential network. PR #1533, #1557, #1776."""
    opening_skip: Literal["both_lanes", "attention_lane"] = "both_lanes"
    """Where the skip of the layer that opens the lanes goes; of no effect without lanes. PR #2140: the attention lane alone."""

    def validate(self) -> None:
        require(self.parallel_from >= 0, f"model.residual.parallel_from={self.parallel_from} is negative; layers count from 0")


@dataclass(frozen=True, kw_only=True)
class GateConfig(Value):
    """Learned gates that read the first few channels of their input, so that they cost next to nothing."""

    attention: bool = False
    """Sparse attention gate: heads times ``sigmoid(attention_scale * z[:window] w)``, z the input of attention. PR #1787."""
    attention_scale: float = 0.5
    """Factor before the sigmoid of the attention gate. PR #1787."""
    smear: bool = False
    """SmearGate: the embedding of a token takes on some of the one before it, except where a document begins. PR #1667; the
    exception since PR #1851."""
    window: int = 12
    """Channels that a gate reads. PR #1667."""

    def validate(self) -> None:
        require(self.window >= 1, f"model.gates.window={self.window} must be at least 1")
        require(self.attention_scale > 0, f"model.gates.attention_scale={self.attention_scale} must be positive")


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
    asymmetric_softcap: Literal["off", "fixed", "trained"] = "off"
    """Bounds of their own for positive and negative logits, which start at ``softcap``. trained: with the scalars. fixed: for
    scoring, but no optimizer moves them and the training loss has ``softcap``. PR #2140: fixed."""
    embedding_std: float = 0.005
    """Standard deviation of the initial tied embedding. The challenge's baseline."""
    recurrence: RecurrenceConfig = field(default_factory=RecurrenceConfig)
    """Depth recurrence."""
    residual: ResidualConfig = field(default_factory=ResidualConfig)
    """Residual topology."""
    gates: GateConfig = field(default_factory=GateConfig)
    """Gates of attention and embedding."""

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
        gates, loop = self.gates, self.recurrence
        require(
            not (gates.attention or gates.smear) or gates.window <= self.width,
            f"model.gates.window={gates.window} exceeds model.width={self.width}",
        )
        require(
            loop.extra_passes == 0 or loop.last < self.layers,
            f"model.recurrence.last={loop.last} is not below model.layers={self.layers}; loop earlier layers or none",
        )
        self._validate_residual()

    def _validate_residual(self) -> None:
        residual, loop = self.residual, self.recurrence
        if residual.topology == "sequential":
            return
        where = f"model.residual.parallel_from={residual.parallel_from}"
        require(residual.parallel_from < self.layers, f"{where} is not below model.layers={self.layers}; start earlier")
        if residual.topology == "single_stream":
            return
        # Lanes open once and stay open: a single-stream layer after them, or one whose output a skip carries, has no meaning.
        decoder, looped = self.layers // 2, loop.last + 1 if loop.extra_passes else 0
        least = max(decoder, looped)
        require(
            residual.parallel_from >= least,
            f"{where} lies before layer {least}: lanes open behind the encoder (layers below {decoder}) and the looped layers "
            f"(below {looped}); use {least} or more, or topology single_stream",
        )

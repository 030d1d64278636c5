"""Optimizers, schedules and the training loop."""

from dataclasses import dataclass, field
from typing import Literal

from fairway.base.values import Value, require


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
    layout: Literal["per_matrix", "banked"] = "per_matrix"
    """per_matrix: each rank orthogonalises some of the matrices. banked: matrices of one shape lie in one bank, whose gradient
    is scattered over the ranks while it is summed, and whose update is gathered. The maths is the same. PR #1533."""

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

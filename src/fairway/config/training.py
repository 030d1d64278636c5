"""Optimizers, schedules and the training loop."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

from fairway.base.values import Value, require

POLAR_EXPRESS_STEPS = 5
"""Iterations for which Polar Express has a polynomial."""


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
    """Iterations of the orthogonalisation; Polar Express has no more than 5."""
    coefficients: Literal["quintic", "polar_express"] = "quintic"
    """Polynomials of the orthogonalisation. quintic: one for every iteration (PR #1394). polar_express: one for each, which
    ends with singular values nearer to 1 (arXiv 2505.16932, PR #2140)."""
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
        require(
            self.coefficients != "polar_express" or self.newton_schulz_steps <= POLAR_EXPRESS_STEPS,
            f"optim.matrices.newton_schulz_steps={self.newton_schulz_steps} exceeds the {POLAR_EXPRESS_STEPS} polynomials of "
            f"polar_express; use {POLAR_EXPRESS_STEPS} or fewer, or optim.matrices.coefficients=quintic",
        )
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
    """Largest joint L2 norm of all gradients, after averaging over ranks; 0 turns clipping off. PR #1394. The banked systems
    clipped each rank's own gradient before averaging; here every number of ranks clips alike."""
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
    """Tokens of one training row, or of the longest segment of a packed one; the last stage's where there are stages."""
    context_lengths: tuple[int, ...] = ()
    """Progressive context: the contexts of the stages, rising to ``context``; empty for one stage. Tokens per step stay. PR
    #2140: 1024, 2048, 3072."""
    context_until: tuple[float, ...] = ()
    """Progress in (0, 1) up to which each stage but the last is in force, itself included. PR #2140: 0.1, 0.7."""
    context_rewarm_steps: int = 32
    """Steps over which the learning rate rises linearly again after a change of context; 0 for none. PR #2140."""
    loader: Literal["random_windows", "contiguous", "packed_documents"] = "random_windows"
    """Random windows without replacement (PR #1394), one stream read in order (the challenge's baseline), or one long row per
    stream in which each document attends to itself alone (PR #2140)."""
    streams: int = 8
    """Logical data streams; physical ranks share them, so the order of data does not depend on the hardware."""
    warmup_steps: int = 20
    """Steps before the clock starts, per context and depth schedule, to compile and settle; every state is restored after."""
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
        for name in ("warmup_steps", "validate_every", "checkpoint_every", "context_rewarm_steps"):
            require(getattr(self, name) >= 0, f"train.{name}={getattr(self, name)} is negative")
        require(self.log_every >= 1, f"train.log_every={self.log_every} must be at least 1")
        row = self.streams * self.context
        require(
            self.batch_tokens % row == 0,
            f"train.batch_tokens={self.batch_tokens} is not a multiple of streams x context = {row}; "
            f"use {max(1, round(self.batch_tokens / row)) * row}",
        )
        self._validate_stages()

    def _validate_stages(self) -> None:
        lengths, until = self.context_lengths, self.context_until
        require(
            len(until) == max(0, len(lengths) - 1),
            f"train.context_until={_listed(until)} has {len(until)} entries for the {len(lengths)} of train.context_lengths="
            f"{_listed(lengths)}; give one for each stage but the last",
        )
        if not lengths:
            return
        require(
            lengths[0] >= 1 and _rises(lengths) and lengths[-1] == self.context,
            f"train.context_lengths={_listed(lengths)} must rise to train.context={self.context}",
        )
        require(
            _rises((0.0, *until, 1.0)), f"train.context_until={_listed(until)} must rise, above 0 and below 1, such as 0.1,0.7"
        )
        packed = self.loader == "packed_documents"
        row = self.batch_tokens // self.streams if packed else self.context
        what = "the packed row (batch_tokens / streams)" if packed else "train.context, whose rows are cut into shorter ones"
        for length in lengths:
            require(row % length == 0, f"train.context_lengths has {length}, which does not divide {row}, {what}; use divisors")


def _rises(numbers: Sequence[float | int]) -> bool:
    return all(before < after for before, after in pairwise(numbers))


def _listed(numbers: Sequence[float | int]) -> str:
    return ",".join(f"{number:g}" for number in numbers) or "()"

"""Everything that changes during training, as pure functions of progress and step."""

from dataclasses import dataclass

from fairway.config import MuonConfig, OptimConfig, RecurrenceConfig


@dataclass(frozen=True, kw_only=True)
class ScheduleValues:
    """What is in force during one step."""

    learning_rate: float
    """Multiplier in [0, 1] of the learning rate of every group."""
    momentum: float
    """Momentum of Muon."""
    recurrent: bool
    """Whether the looped layers run their extra passes."""


def learning_rate_multiplier(progress: float, *, warmdown: float, floor: float) -> float:
    """1 until the warm-down, then linear to 0: ``max((1 - progress) / warmdown, floor)`` where ``progress >= 1 - warmdown``.

    Args:
        progress: Share of training that is done; may exceed 1 by a step.
        warmdown: Share of progress, counted from the end, over which the rate falls.
        floor: Smallest multiplier.

    Source: PR #1394.
    """
    if progress < 1 - warmdown:
        return 1.0
    remaining = (1 - progress) / warmdown if warmdown > 0 else 0.0
    return max(remaining, floor)


def muon_momentum(step: int, config: MuonConfig) -> float:
    """Linear ramp by steps: ``start + (final - start) * min(step / ramp_steps, 1)``. PR #1394."""
    ramp = min(step / config.momentum_ramp_steps, 1.0) if config.momentum_ramp_steps else 1.0
    return config.momentum_start + (config.momentum - config.momentum_start) * ramp


def schedule_at(optim: OptimConfig, recurrence: RecurrenceConfig, progress: float, step: int) -> ScheduleValues:
    """All scheduled values of one step.

    Args:
        optim: Learning-rate and momentum settings.
        recurrence: When the extra passes begin; without extra passes they never do.
        progress: Share of training that is done before this step, agreed by all ranks.
        step: Optimizer steps done before this one.
    """
    return ScheduleValues(
        learning_rate=learning_rate_multiplier(progress, warmdown=optim.warmdown, floor=optim.learning_rate_floor),
        momentum=muon_momentum(step, optim.matrices),
        recurrent=recurrence.extra_passes > 0 and progress >= recurrence.begins_at,
    )

"""Everything that changes during training, as pure functions of progress and step."""

from dataclasses import dataclass

from fairway.config import MuonConfig, OptimConfig, RecurrenceConfig, TrainConfig


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
    # At the threshold itself the quotient may round to just above 1.
    return max(min(remaining, 1.0), floor)


def muon_momentum(step: int, config: MuonConfig) -> float:
    """Linear ramp by steps: ``start + (final - start) * min(step / ramp_steps, 1)``. PR #1394."""
    ramp = min(step / config.momentum_ramp_steps, 1.0) if config.momentum_ramp_steps else 1.0
    return config.momentum_start + (config.momentum - config.momentum_start) * ramp


@dataclass(frozen=True, kw_only=True)
class ContextStage:
    """A stage of progressive context."""

    context: int
    """Tokens of a row, or of the longest segment of a packed one."""
    since: int = 0
    """Optimizer steps done before the stage began."""


def context_at(train: TrainConfig, progress: float) -> int:
    """Context of the first stage whose ``context_until`` is not below ``progress``, else of the last.

    Source: PR #2140.
    """
    stages = zip(train.context_lengths, train.context_until, strict=False)
    return next((context for context, until in stages if progress <= until), train.context)


def rewarm_multiplier(step: int, stage: ContextStage, rewarm_steps: int) -> float:
    """``min((step - since + 1) / rewarm_steps, 1)`` after a change of context; 1 in the stage that training began with.

    Args:
        step: Optimizer steps done before this one.
        stage: The stage in force.
        rewarm_steps: Steps until the learning rate is back; 0 for at once.

    Source: PR #2140.
    """
    if stage.since == 0 or rewarm_steps == 0:
        return 1.0
    return min((step - stage.since + 1) / rewarm_steps, 1.0)


def reachable_shapes(train: TrainConfig, recurrence: RecurrenceConfig) -> list[tuple[int, bool]]:
    """Every pair of a context and "the extra passes run" that some progress in [0, 1) leads to, in their order.

    A stage from progress a, itself excluded, to b, itself included, has steps without extra passes if ``a < begins_at``, and
    with them if ``b >= begins_at``.

    Source: PR #2140.
    """
    begins_at = recurrence.begins_at if recurrence.extra_passes else 1.0
    lengths, edges = train.context_lengths or (train.context,), (0.0, *train.context_until)
    shapes = []
    for stage, (context, begin) in enumerate(zip(lengths, edges, strict=True)):
        end = edges[stage + 1] if stage + 1 < len(edges) else 1.0
        if begin < begins_at:
            shapes.append((context, False))
        if begins_at <= end and begins_at < 1.0:
            shapes.append((context, True))
    return shapes


def schedule_at(
    optim: OptimConfig, recurrence: RecurrenceConfig, progress: float, step: int, *, rewarm: float = 1.0
) -> ScheduleValues:
    """All scheduled values of one step.

    Args:
        optim: Learning-rate and momentum settings.
        recurrence: When the extra passes begin; without extra passes they never do.
        progress: Share of training that is done before this step, agreed by all ranks.
        step: Optimizer steps done before this one.
        rewarm: ``rewarm_multiplier``; applied after the floor of the learning rate.
    """
    return ScheduleValues(
        learning_rate=rewarm * learning_rate_multiplier(progress, warmdown=optim.warmdown, floor=optim.learning_rate_floor),
        momentum=muon_momentum(step, optim.matrices),
        recurrent=recurrence.extra_passes > 0 and progress >= recurrence.begins_at,
    )

"""The training loop: schedule, gradients, one step, average; on any number of ranks the same maths."""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor
from tqdm import tqdm

from fairway.base.errors import RecipeError
from fairway.base.log import logger
from fairway.config import Recipe
from fairway.data.dataset import Dataset
from fairway.data.prefetch import Prefetcher
from fairway.model.gpt import GPT
from fairway.model.initial import initialize
from fairway.optim.averaging import WeightAverage
from fairway.optim.optimizer import Optimizers, build
from fairway.optim.schedules import (
    ContextStage,
    ScheduleValues,
    context_at,
    reachable_shapes,
    rewarm_multiplier,
    schedule_at,
)
from fairway.train.batches import RankBatches, micro_batches, practice_batches
from fairway.train.clock import Clock
from fairway.train.distributed import Ranks
from fairway.train.interrupt import Interrupted, StopRequest
from fairway.train.machine import Machine
from fairway.train.metrics import Metrics
from fairway.train.state import SavedState, load_state, save_state

CPU_FORWARD_TOKENS = 2048
"""Tokens per forward pass on a CPU: larger passes fall out of the cache, smaller ones pay the overhead of each call."""

GRAPHS = 128
"""Graphs that torch may compile of the network: contexts x depth schedules x numbers of segments. PR #2140; torch has 8."""

Validate = Callable[[GPT], tuple[float, float]]


@dataclass
class Learner:
    """What training changes: weights, optimizer state, weight average, and how far it is."""

    model: GPT
    optimizers: Optimizers
    average: WeightAverage
    step: int = 0
    stage: ContextStage | None = None
    """Stage of progressive context in force; None before the first step."""

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor that a step changes, by a unique name; the tensors are the live ones."""
        parts = {
            "model": dict(self.model.named_parameters()),
            "optimizer": self.optimizers.state_dict(),
            "average": self.average.state_dict(),
        }
        return {f"{part}.{name}": tensor.detach() for part, tensors in parts.items() for name, tensor in tensors.items()}

    @torch.no_grad()
    def restore(self, saved: dict[str, Tensor]) -> None:
        """Copy saved tensors into the live ones, bit by bit, momenta of other ranks' matrices too, and drop gradients."""
        for name, tensor in self.tensors().items():
            tensor.copy_(saved[name])
        self.optimizers.zero_grad()


@dataclass(frozen=True)
class Training:
    """Everything around a training run; see ``train``."""

    recipe: Recipe
    dataset: Dataset
    machine: Machine
    ranks: Ranks
    clock: Clock
    metrics: Metrics
    state_path: Path
    stop: StopRequest
    validate: Validate
    bar: "tqdm[Any]"


def new_learner(recipe: Recipe, machine: Machine, ranks: Ranks) -> Learner:
    """A network with initial weights of the recipe's seed, its optimizers and its average, on the machine's device."""
    model = GPT(recipe.model)
    initialize(model, recipe.seed)
    model.to(machine.device)
    model.compute_dtype = machine.activations
    model.use_attention(machine.attention)
    model.use_fused_kernels(machine.fused_kernels)
    optimizers = build(
        model,
        recipe.optim,
        world_size=ranks.world,
        rank=ranks.rank,
        low_precision=machine.activations == torch.bfloat16,
    )
    return Learner(model, optimizers, WeightAverage(model, recipe.optim.ema_decay))


def train(run: Training, *, resume: bool) -> Learner:
    """Train until the budget is used; return the learner, whose ``average`` holds the weights to pack.

    Progress is the share of the budget in counted seconds, steps or tokens; rank 0's reading decides for all. Validation,
    warm-up and saving are outside the counted phase ``train``.

    Raises:
        Interrupted: a signal asked to stop; the state is saved and ``resume`` continues from it.
        RecipeError: the loss is no longer finite.
    """
    recipe, machine = run.recipe, run.machine
    learner = new_learner(recipe, machine, run.ranks)
    forward: Callable[..., Tensor] = learner.model
    if machine.compile:
        # The flag of the depth schedule and the context are guarded constants: a graph each, with static shapes.
        forward = torch.compile(learner.model, dynamic=False, fullgraph=True)
    with torch._dynamo.config.patch(recompile_limit=GRAPHS):
        _warm_up_and_loop(run, learner, forward, resume=resume)
    return learner


def _warm_up_and_loop(run: Training, learner: Learner, forward: Callable[..., Tensor], *, resume: bool) -> None:
    """Compile off the clock, open the streams, continue where a state says so, and train."""
    with run.clock.phase("warm-up", counted=False):
        warm_up(learner, forward, run.recipe, run.machine, run.ranks)
    batches = RankBatches(run.dataset, run.recipe.train, run.ranks)
    if resume:
        _restore(run, learner, batches)
    graphs = compiled_graphs()
    with Prefetcher(batches, depth=2) as loader, run.clock.phase("train", counted=True):
        _loop(run, learner, forward, loader)
    if run.machine.compile:
        late = compiled_graphs() - graphs
        run.metrics.event("compile", graphs=graphs, recompilations=late)
        logger.info(f"compiled graphs={graphs} recompilations-after-warm-up={late}")


def compiled_graphs() -> int:
    """Graphs that torch.compile has made in this process."""
    return torch._dynamo.utils.counters["stats"]["unique_graphs"]


def _loop(run: Training, learner: Learner, forward: Callable[..., Tensor], loader: Prefetcher) -> None:
    """Steps until the budget is used; validation and saving interrupt the phase ``train`` with phases of their own."""
    recipe, config, clock = run.recipe, run.recipe.train, run.clock
    first = learner.step
    pace = Pace(run.machine)
    while (progress := _progress(run, learner.step)) < 1.0:
        pace.wait()
        learner.stage = stage = _stage(run, learner, progress)
        rewarm = rewarm_multiplier(learner.step, stage, config.context_rewarm_steps)
        values = schedule_at(recipe.optim, recipe.model.recurrence, progress, learner.step, rewarm=rewarm)
        inputs, targets = loader.next_batch()
        loss = accumulate(forward, inputs, targets, values, recipe, run.machine, context=stage.context)
        norm = learner.optimizers.reduce_clip_and_step(values)
        learner.optimizers.zero_grad()
        learner.average.update()
        learner.step += 1
        pace.mark()
        if learner.step <= 5 or learner.step % config.log_every == 0 or learner.step == first + 1:
            _log_step(run, learner, values, progress, loss, norm)
        run.bar.update(max(0.0, min(1.0, _progress(run, learner.step)) - run.bar.n))
        if config.validate_every and learner.step % config.validate_every == 0:
            with clock.phase("validate", counted=False):
                _validate(run, learner)
        asked = run.ranks.agree(float(bool(run.stop)))
        if asked or (config.checkpoint_every and learner.step % config.checkpoint_every == 0):
            with clock.phase("save", counted=False):
                _save(run, learner, loader)
        if asked:
            _log_stop(run, learner, run.stop.signal_name)
            raise Interrupted(
                f"stopped by {run.stop.signal_name} after step {learner.step}; the state is saved, continue with --resume"
            )
    run.machine.settle()
    _log_stop(run, learner, "budget")


def accumulate(
    forward: Callable[..., Tensor],
    inputs: Int64[np.ndarray, "rows time"],
    targets: Int64[np.ndarray, "rows time"],
    values: ScheduleValues,
    recipe: Recipe,
    machine: Machine,
    *,
    context: int,
    tokens_at_once: int = 0,
) -> Float[Tensor, ""]:
    """Add the gradients of this rank's rows, scaled so that the sum over ranks is the gradient of the global mean.

    Args:
        forward: The network, compiled or not.
        inputs: Token ids of this rank's rows.
        targets: The same, one token later.
        values: Whether the extra passes run.
        recipe: Tokens of the global batch, and whether rows are packed.
        machine: Where the network is.
        context: Context of the stage.
        tokens_at_once: Tokens of one forward pass, at least one row; 0 takes 2,048 on a CPU, one stream on a GPU. A packed
            row is always one pass.

    Returns:
        This rank's part of the global mean loss, in nats per token, on the device.
    """
    config = recipe.train
    usual = CPU_FORWARD_TOKENS if machine.device.type == "cpu" else config.batch_tokens // config.streams
    passes = micro_batches(inputs, targets, config, machine.device, context=context, tokens_at_once=tokens_at_once or usual)
    loss = torch.zeros((), device=machine.device)
    for ids, wanted, segments in passes:
        share = forward(ids, wanted, recurrent=values.recurrent, segments=segments) * (ids.numel() / config.batch_tokens)
        share.backward()
        loss += share.detach()
    return loss


def warm_up(learner: Learner, forward: Callable[..., Tensor], recipe: Recipe, machine: Machine, ranks: Ranks) -> None:
    """Run steps on random tokens to compile and to settle memory, then put every tensor back as it was.

    No text is read, so nothing can be learned from it (conditions V11, V12 of the validity notes), and the random tokens
    have their own generator, so no random state moves either. Every context is run with every depth schedule that it meets;
    a compiled network takes two steps at least for each shape of segments (PR #2140).
    """
    config = recipe.train
    if config.warmup_steps == 0:
        return
    saved = {name: tensor.clone() for name, tensor in learner.tensors().items()}
    for context, recurrent in reachable_shapes(config, recipe.model.recurrence):
        values = ScheduleValues(learning_rate=1.0, momentum=recipe.optim.matrices.momentum_start, recurrent=recurrent)
        batches = practice_batches(
            config, ranks, context=context, vocab_size=recipe.model.vocab_size, every_count=machine.compile
        )
        least = 2 * len(batches) if machine.compile else 1
        for step in range(max(config.warmup_steps, least)):
            inputs, targets = batches[step % len(batches)]
            accumulate(forward, inputs, targets, values, recipe, machine, context=context)
            learner.optimizers.reduce_clip_and_step(values)
            learner.optimizers.zero_grad()
            learner.average.update()
    learner.restore(saved)


class Pace:
    """Keeps the processor at most one step ahead of the GPU, so that the clock read at a step's start is true."""

    def __init__(self, machine: Machine) -> None:
        self.events: list[torch.cuda.Event] = []
        self.cuda = machine.device.type == "cuda"

    def mark(self) -> None:
        """Note the end of a step."""
        if self.cuda:
            event = torch.cuda.Event()
            event.record()
            self.events.append(event)

    def wait(self) -> None:
        """Wait for the step before the last one."""
        while len(self.events) > 1:
            self.events.pop(0).synchronize()


def _progress(run: Training, step: int) -> float:
    """Share of the budget that is used, agreed by all ranks."""
    config = run.recipe.train
    match config.budget_unit:
        case "steps":
            return step / config.budget
        case "tokens":
            return step * config.batch_tokens / config.budget
        case "seconds":
            return run.ranks.agree(run.clock.seconds("train")) / (config.budget - config.reserve_seconds)


def _stage(run: Training, learner: Learner, progress: float) -> ContextStage:
    """The stage in force; a change is told once. Progress is agreed by all ranks, so they change together."""
    context, before = context_at(run.recipe.train, progress), learner.stage
    if before is None:
        return ContextStage(context=context)
    if before.context == context:
        return before
    seconds = run.clock.seconds("train")
    run.metrics.event("context", step=learner.step, progress=progress, seconds=seconds, before=before.context, context=context)
    logger.info(f"step={learner.step} context={before.context}->{context} progress={progress:.3f} seconds={seconds:.1f}")
    return ContextStage(context=context, since=learner.step)


def _log_step(run: Training, learner: Learner, values: ScheduleValues, progress: float, loss: Tensor, norm: Tensor) -> None:
    """One ``train`` event and one log line; the only place of a step that waits for the device."""
    mean = run.ranks.sum_(loss.double().cpu()).item()
    if not math.isfinite(mean):
        raise RecipeError(
            f"the training loss is {mean} at step {learner.step}; lower optim.matrices.learning_rate "
            f"({run.recipe.optim.matrices.learning_rate}) or set optim.gradient_clip"
        )
    seconds, tokens = run.clock.seconds("train"), learner.step * run.recipe.train.batch_tokens
    speed = tokens / seconds if seconds > 0 else 0.0
    run.metrics.event(
        "train",
        step=learner.step,
        tokens=tokens,
        seconds=seconds,
        progress=progress,
        loss=mean,
        learning_rate=values.learning_rate,
        momentum=values.momentum,
        recurrent=values.recurrent,
        gradient_norm=norm.item(),
        tokens_per_second=speed,
    )
    logger.info(f"step={learner.step} loss={mean:.4f} progress={progress:.3f} seconds={seconds:.1f} tokens/s={speed:.0f}")


def _log_stop(run: Training, learner: Learner, reason: str) -> None:
    """Why and when training ended, and the most memory that the device gave it (0 on a CPU)."""
    run.metrics.event(
        "stop",
        reason=reason,
        step=learner.step,
        seconds=run.clock.seconds("train"),
        peak_memory_bytes=run.machine.peak_memory_bytes(),
    )


def _validate(run: Training, learner: Learner) -> None:
    nats, bits = run.validate(learner.model)
    tokens = learner.step * run.recipe.train.batch_tokens
    run.metrics.event(
        "validation",
        step=learner.step,
        tokens=tokens,
        seconds=run.clock.seconds("train"),
        nats_per_token=nats,
        bits_per_byte=bits,
    )
    logger.info(f"step={learner.step} validation nats/token={nats:.4f} bits/byte={bits:.4f}")


def _save(run: Training, learner: Learner, loader: Prefetcher) -> None:
    """Write the resumable state; every rank sends its streams and, where they are spread, its momenta."""
    learner.optimizers.synchronize()
    streams = {key: value for part in run.ranks.gather(loader.state()) for key, value in part.items()}
    if run.ranks.leads:
        numbers = {
            "step": learner.step,
            "stage": asdict(learner.stage) if learner.stage else None,
            "streams": streams,
            "clock": run.clock.to_dict(),
            "metrics_bytes": run.metrics.position(),
        }
        save_state(run.state_path, SavedState(learner.tensors(), numbers))


def _restore(run: Training, learner: Learner, batches: RankBatches) -> None:
    """Continue from the saved state: weights, optimizers, average, streams, clock."""
    saved = load_state(run.state_path)
    learner.restore(saved.tensors)
    learner.step = saved.numbers["step"]
    # A state from before there were stages has none: its run knew one context.
    stage = saved.numbers.get("stage")
    learner.stage = ContextStage(**stage) if stage else None
    batches.restore(saved.numbers["streams"])
    run.clock.restore(saved.numbers["clock"])
    logger.info(f"resumed at step {learner.step}")

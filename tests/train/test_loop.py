"""Training: warm-up restores everything, resuming changes nothing, whatever the layout of the matrices."""

import os
import signal
from pathlib import Path

import pytest
import torch
from loop_cases import StopAfter, assert_same, tensors_of, training

from fairway.base.errors import DataError, RecipeError
from fairway.base.values import with_fields
from fairway.config import Recipe
from fairway.data.dataset import Dataset
from fairway.train.batches import RankBatches
from fairway.train.clock import Clock
from fairway.train.distributed import ONE_RANK, Ranks
from fairway.train.interrupt import Interrupted, StopRequest, stop_on_signals
from fairway.train.loop import accumulate, new_learner, train, warm_up
from fairway.train.machine import choose
from fairway.train.state import load_state

LAYOUTS = ["per_matrix", "banked"]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_warm_up_leaves_no_trace(quick: Recipe, layout: str) -> None:
    quick = with_fields(quick, {"optim.matrices.layout": layout})
    machine = choose(quick.machine)
    learner = new_learner(quick, machine, ONE_RANK)
    before, random_state = tensors_of(learner), torch.get_rng_state()
    warm_up(learner, learner.model, with_fields(quick, {"train.warmup_steps": 2}), machine, ONE_RANK)
    assert_same(learner.tensors(), before)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert all(parameter.grad is None or not parameter.grad.any() for parameter in learner.model.parameters())


def test_training_is_the_same_with_and_without_warm_up(quick: Recipe, corpus: Path, tmp_path: Path) -> None:
    found = []
    for steps in (0, 2):
        recipe = with_fields(quick, {"train.warmup_steps": steps, "train.budget": 3.0})
        with training(recipe, corpus, tmp_path / str(steps)) as run:
            found.append(tensors_of(train(run, resume=False)))
    assert_same(found[0], found[1])


@pytest.mark.parametrize(("stop_after", "layout"), [(1, "per_matrix"), (3, "banked"), (5, "per_matrix")])
def test_an_interrupted_run_continues_bit_for_bit(
    quick: Recipe, corpus: Path, tmp_path: Path, stop_after: int, layout: str
) -> None:
    quick = with_fields(quick, {"optim.matrices.layout": layout})
    with training(quick, corpus, tmp_path / "whole") as run:
        whole = tensors_of(train(run, resume=False))
    folder = tmp_path / "parts"
    with (
        training(quick, corpus, folder, StopAfter(stop_after)) as run,
        pytest.raises(Interrupted, match=f"after step {stop_after}.*--resume"),
    ):
        train(run, resume=False)
    assert load_state(folder / "state.safetensors").numbers["step"] == stop_after
    with training(quick, corpus, folder) as run:
        assert_same(tensors_of(train(run, resume=True)), whole)


def test_loss_falls(quick: Recipe, corpus: Path, tmp_path: Path) -> None:
    recipe = with_fields(quick, {"train.budget": 40.0, "train.checkpoint_every": 0})
    with training(recipe, corpus, tmp_path) as run:
        train(run, resume=False)
    events = [line for line in (tmp_path / "metrics.jsonl").read_text().splitlines() if '"train"' in line]
    losses = [float(line.split('"loss": ')[1].split(",")[0]) for line in events]
    assert len(losses) == 40
    assert losses[0] == pytest.approx(5.95, abs=0.15)
    assert losses[-1] < losses[0] - 1.5


def test_a_budget_of_seconds_ends_at_the_first_step_beyond_it(quick: Recipe, corpus: Path, tmp_path: Path) -> None:
    ticks = iter(range(10**6))
    recipe = with_fields(
        quick,
        {
            "train.budget_unit": "seconds",
            "train.budget": 100.0,
            "train.reserve_seconds": 10.0,
            "train.validate_every": 0,
            "train.checkpoint_every": 0,
        },
    )
    clock = Clock(now=lambda: float(next(ticks)))
    with training(recipe, corpus, tmp_path, clock=clock) as run:
        train(run, resume=False)
    assert 90 <= clock.seconds("train") <= 100


def test_gradients_do_not_depend_on_how_rows_are_grouped(quick: Recipe, corpus: Path) -> None:
    from fairway.optim.schedules import ScheduleValues

    values = ScheduleValues(learning_rate=1.0, momentum=0.9, recurrent=True)
    machine, gradients = choose(quick.machine), []
    for at_once in (32, 64, 1024):
        learner = new_learner(quick, machine, ONE_RANK)
        torch.nn.init.normal_(learner.model.blocks[0].mlp.down.weight, std=0.1)
        inputs, targets = RankBatches(Dataset.open(corpus), quick.train, ONE_RANK).next_batch()
        torch.manual_seed(0)
        torch.nn.init.normal_(learner.model.blocks[0].mlp.down.weight, std=0.1)
        accumulate(learner.model, inputs, targets, values, quick, machine, context=32, tokens_at_once=at_once)
        gradients.append([parameter.grad.clone() for parameter in learner.model.parameters() if parameter.grad is not None])
    for other in gradients[1:]:
        for found, wanted in zip(other, gradients[0], strict=True):
            torch.testing.assert_close(found, wanted, atol=1e-6, rtol=1e-4)


def test_streams_are_dealt_to_ranks_without_changing_the_rows(quick: Recipe, corpus: Path) -> None:
    dataset = Dataset.open(corpus)
    whole = RankBatches(dataset, quick.train, ONE_RANK)
    for _ in range(3):
        inputs, targets = whole.next_batch()
        assert (inputs[:, 1:] == targets[:, :-1]).all()
    parts = [RankBatches(dataset, quick.train, Ranks(rank, 3)) for rank in range(3)]
    for _ in range(3):
        batches = [part.next_batch()[0] for part in parts]
    assert sum(len(batch) for batch in batches) == len(inputs)
    assert (torch.from_numpy(inputs) == torch.cat([torch.from_numpy(batch) for batch in batches])).all()
    with pytest.raises(RecipeError, match=r"9 ranks share train\.streams=8"):
        RankBatches(dataset, quick.train, Ranks(0, 9))


def test_resuming_nothing_is_refused(quick: Recipe, corpus: Path, tmp_path: Path) -> None:
    with training(quick, corpus, tmp_path) as run, pytest.raises(DataError, match="nothing to resume"):
        train(run, resume=True)
    (tmp_path / "state.safetensors").write_bytes(b"not a state")
    with training(quick, corpus, tmp_path) as run, pytest.raises(DataError, match="is not a training state"):
        train(run, resume=True)


def test_divergence_is_said_with_the_remedy(quick: Recipe, corpus: Path, tmp_path: Path) -> None:
    recipe = with_fields(quick, {"optim.matrices.learning_rate": 1e30, "optim.gradient_clip": 0.0})
    with training(recipe, corpus, tmp_path) as run, pytest.raises(RecipeError, match=r"lower optim\.matrices\.learning_rate"):
        train(run, resume=False)


def test_the_attention_that_was_asked_for_reaches_training(quick: Recipe) -> None:
    machine = choose(with_fields(quick, {"machine.attention": "plain"}).machine)
    learner = new_learner(quick, machine, Ranks())
    assert {learner.model.block(layer).attention.backend for layer in range(quick.model.layers)} == {"plain"}


@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_reaches_the_blocks_around_too(kind: signal.Signals) -> None:
    with stop_on_signals() as outer:
        with stop_on_signals() as inner:
            os.kill(os.getpid(), kind)
            assert inner.signal_name == outer.signal_name == kind.name
        assert outer
    assert not isinstance(getattr(signal.getsignal(kind), "__self__", None), StopRequest)

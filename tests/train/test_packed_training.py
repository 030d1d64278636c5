"""Training on packed documents with progressive context: stages, resuming, ranks, warm-up, calibration and validation."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from loop_cases import StopAfter, assert_same, tensors_of, training

from fairway.base.values import with_fields
from fairway.config import Recipe
from fairway.data.dataset import Dataset
from fairway.data.tokenizer import BOS
from fairway.kernels.attention import Segments
from fairway.optim.schedules import ScheduleValues, context_at
from fairway.quant.hessian import collect_hessians
from fairway.score.passes import run_pass, select_text
from fairway.train.batches import RankBatches, calibration_batches, micro_batches, practice_batches
from fairway.train.distributed import ONE_RANK, Ranks
from fairway.train.interrupt import Interrupted
from fairway.train.loop import accumulate, new_learner, train, warm_up
from fairway.train.machine import choose

CPU = torch.device("cpu")
ROW = 512
STAGED = {
    "train.streams": 2,
    "train.context": 128,
    "train.context_lengths": (32, 64, 128),
    "train.context_until": (0.2, 0.6),
    "train.context_rewarm_steps": 3,
    "model.recurrence.begins_at": 0.5,
    "model.gates.smear": True,
    "model.gates.attention": True,
}
LOADERS = ["packed_documents", "random_windows", "contiguous"]


@pytest.fixture(params=LOADERS)
def staged(quick: Recipe, request: pytest.FixtureRequest) -> Recipe:
    """Six steps: two at context 32, two at 64, two at 128, the last three with recurrence."""
    return with_fields(quick, {**STAGED, "train.loader": request.param})


@pytest.fixture
def packed(quick: Recipe) -> Recipe:
    return with_fields(quick, {**STAGED, "train.loader": "packed_documents"})


def events(folder: Path, kind: str) -> list[dict[str, Any]]:
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [line for line in lines if line["event"] == kind]


class Recorder:
    """Stands in for a network: notes what a compiled graph would be guarded by, and moves every parameter a little."""

    def __init__(self, network: torch.nn.Module) -> None:
        self.network, self.shapes = network, []

    def __call__(self, ids: torch.Tensor, targets: torch.Tensor, *, recurrent: bool, segments: Segments | None):
        cut = None if segments is None else (len(segments.starts), segments.longest)
        self.shapes.append((*ids.shape, ids.stride(), targets.stride(), recurrent, cut))
        return torch.stack([parameter.sum() for parameter in self.network.parameters()]).sum()


def test_stages_follow_progress_and_the_rate_rises_again(staged: Recipe, corpus: Path, tmp_path: Path) -> None:
    with training(staged, corpus, tmp_path) as run:
        learner = train(run, resume=False)
    changes = [(event["step"], event["before"], event["context"]) for event in events(tmp_path, "context")]
    assert changes == [(2, 32, 64), (4, 64, 128)]
    assert learner.stage is not None
    assert (learner.stage.context, learner.stage.since) == (128, 4)
    with training(with_fields(staged, {"train.context_rewarm_steps": 0}), corpus, tmp_path / "steady") as run:
        train(run, resume=False)
    rates, steady = (
        [event["learning_rate"] for event in events(folder, "train")] for folder in (tmp_path, tmp_path / "steady")
    )
    factors = [1, 1, 1 / 3, 2 / 3, 1 / 3, 2 / 3]
    assert rates == pytest.approx([factor * rate for factor, rate in zip(factors, steady, strict=True)], rel=1e-12)
    assert rates != steady


@pytest.mark.parametrize("stop_after", [1, 3])
def test_an_interrupted_run_continues_bit_for_bit(staged: Recipe, corpus: Path, tmp_path: Path, stop_after: int) -> None:
    with training(staged, corpus, tmp_path / "whole") as run:
        whole = tensors_of(train(run, resume=False))
    with training(staged, corpus, tmp_path / "parts", StopAfter(stop_after)) as run, pytest.raises(Interrupted):
        train(run, resume=False)
    with training(staged, corpus, tmp_path / "parts") as run:
        assert_same(tensors_of(train(run, resume=True)), whole)


@pytest.mark.parametrize("streams", [4, 8])
def test_the_order_does_not_depend_on_the_number_of_ranks(packed: Recipe, corpus: Path, streams: int) -> None:
    dataset, config = Dataset.open(corpus), with_fields(packed, {"train.streams": streams}).train
    whole = RankBatches(dataset, config, ONE_RANK)
    expected = [whole.next_batch() for _ in range(30)]
    for world in (2, 4):
        parts = [RankBatches(dataset, config, Ranks(rank, world)) for rank in range(world)]
        for inputs, targets in expected:
            batches = [part.next_batch() for part in parts]
            assert np.array_equal(np.concatenate([batch[0] for batch in batches]), inputs)
            assert np.array_equal(np.concatenate([batch[1] for batch in batches]), targets)


@pytest.mark.parametrize("context", [32, 64, 128])
def test_a_stage_cuts_the_rows_it_is_given(staged: Recipe, corpus: Path, context: int) -> None:
    config = staged.train
    inputs, targets = RankBatches(Dataset.open(corpus), config, ONE_RANK).next_batch()
    parts = list(micro_batches(inputs, targets, config, CPU, context=context, tokens_at_once=64))
    assert np.array_equal(torch.cat([part.ids.flatten() for part in parts]).numpy(), inputs.ravel())
    assert np.array_equal(torch.cat([part.targets.flatten() for part in parts]).numpy(), targets.ravel())
    for part in parts:
        if config.loader == "packed_documents":
            assert part.ids.shape == (1, ROW)
            assert part.segments is not None
            assert part.segments.longest == context
            begins = {begin for begin, _ in part.segments.ranges()}
            assert begins >= set(np.flatnonzero(part.ids[0].numpy() == BOS).tolist())
        else:
            assert part.ids.shape == (max(1, 64 // context), context)
            assert part.segments is None


def test_rows_of_one_packed_batch_have_the_mean_gradient_of_all_tokens(packed: Recipe, corpus: Path) -> None:
    """The gradient of a step is that of the mean over all its targets, computed row by row without the loop."""
    machine = choose(packed.machine)
    learner = new_learner(packed, machine, ONE_RANK)
    torch.nn.init.normal_(learner.model.blocks[0].mlp.down.weight, std=0.1)
    inputs, targets = RankBatches(Dataset.open(corpus), packed.train, ONE_RANK).next_batch()
    values = ScheduleValues(learning_rate=1.0, momentum=0.9, recurrent=True)
    loss = accumulate(learner.model, inputs, targets, values, packed, machine, context=64)
    found = [parameter.grad.clone() for parameter in learner.model.parameters() if parameter.grad is not None]
    learner.model.zero_grad()
    rows = [
        learner.model(
            torch.from_numpy(x[None].copy()),
            torch.from_numpy(y[None].copy()),
            recurrent=True,
            segments=Segments.cut(np.flatnonzero(x == BOS).tolist(), ROW, 64),
        )
        for x, y in zip(inputs, targets, strict=True)
    ]
    mean = torch.stack(rows).mean()
    mean.backward()
    torch.testing.assert_close(loss, mean.detach(), atol=1e-5, rtol=1e-5)
    wanted = [parameter.grad for parameter in learner.model.parameters() if parameter.grad is not None]
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)


def test_warm_up_meets_every_shape_of_training_and_leaves_no_trace(staged: Recipe, corpus: Path) -> None:
    recipe = with_fields(staged, {"train.warmup_steps": 1})
    machine = replace(choose(recipe.machine), compile=True)
    learner = new_learner(recipe, machine, ONE_RANK)
    before, warmed = tensors_of(learner), Recorder(learner.model)
    warm_up(learner, warmed, recipe, machine, ONE_RANK)
    assert_same(learner.tensors(), before)
    trained = Recorder(learner.model)
    values = {on: ScheduleValues(learning_rate=1.0, momentum=0.9, recurrent=on) for on in (False, True)}
    batches = RankBatches(Dataset.open(corpus), recipe.train, ONE_RANK)
    for step in range(6):
        context, recurrent = context_at(recipe.train, step / 6), step >= 3
        accumulate(trained, *batches.next_batch(), values[recurrent], recipe, machine, context=context)
    assert set(trained.shapes) <= set(warmed.shapes)
    reached = {(shape[1] if shape[-1] is None else shape[-1][1], shape[-2]) for shape in trained.shapes}
    assert reached == {(32, False), (64, False), (64, True), (128, True)}
    assert min(warmed.shapes.count(shape) for shape in set(warmed.shapes)) >= 2


@pytest.mark.parametrize(
    ("context", "entries"), [(8, [192, 256]), (64, [64, 128, 192, 256]), (1024, [64, 128, 192, 256]), (1, [1088])]
)
def test_warm_up_meets_every_number_of_starts_that_fits(packed: Recipe, context: int, entries: list[int]) -> None:
    """Rows of 1,024 tokens in segments of at most 8, 64 and 1,024: 129, 17 and 2 starts at least."""
    changes = {"train.batch_tokens": 2048, "train.context_lengths": (), "train.context_until": ()}
    config = with_fields(packed, changes).train
    for every_count in (True, False):
        batches = practice_batches(config, ONE_RANK, context=context, vocab_size=384, every_count=every_count)
        cuts = [
            [part.segments for part in micro_batches(*batch, config, CPU, context=context, tokens_at_once=1)]
            for batch in batches
        ]
        assert [{len(segments.starts) for segments in cut if segments} for cut in cuts] == [
            {count} for count in (entries if every_count else entries[:1])
        ]
        assert {segments.longest for cut in cuts for segments in cut if segments} == {context}


@pytest.mark.parametrize("world", [1, 2])
def test_practice_has_the_strides_of_training(packed: Recipe, corpus: Path, world: int) -> None:
    """A rank with one stream has a batch of one row, where NumPy is careless with strides."""
    config, ranks = packed.train, Ranks(0, world)
    real = RankBatches(Dataset.open(corpus), config, ranks).next_batch()
    (practice,) = practice_batches(config, ranks, context=32, vocab_size=384, every_count=False)
    strides = [
        {(part.ids.shape, part.ids.stride(), part.targets.stride()) for part in parts}
        for parts in (micro_batches(*rows, config, CPU, context=32, tokens_at_once=1) for rows in (real, practice))
    ]
    assert strides[0] == strides[1] == {((1, ROW), (ROW, 1), (ROW, 1))}


def test_calibration_is_dense_with_the_final_context(packed: Recipe, corpus: Path) -> None:
    dataset = Dataset.open(corpus)
    plain = with_fields(packed, {"train.loader": "random_windows", "train.context_lengths": (), "train.context_until": ()})
    found, expected = (list(calibration_batches(dataset, r.train, 16, ONE_RANK, CPU)) for r in (packed, plain))
    assert len(found) == 16
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    two = replace(dataset, _train=tuple(dataset.train_shards()[:2]))
    parts = [list(calibration_batches(two, packed.train, 16, Ranks(rank, 2), CPU)) for rank in range(2)]
    assert [batch.shape for part in parts for batch in part] == [(4, 128)] * 16
    learner = new_learner(packed, choose(packed.machine), ONE_RANK)
    assert all(torch.isfinite(moment).all() for moment in collect_hessians(learner.model, parts[0]).values())


def test_a_network_trained_on_packed_documents_learns_and_is_scored_in_plain_rows(
    packed: Recipe, corpus: Path, tmp_path: Path
) -> None:
    recipe = with_fields(packed, {"train.budget": 30.0, "train.checkpoint_every": 0, "optim.ema_decay": 0.0})
    with training(recipe, corpus, tmp_path) as run:
        learner = train(run, resume=False)
        text = select_text(run.dataset.validation(), recipe.score)
    losses = [event["loss"] for event in events(tmp_path, "train")]
    assert losses[0] == pytest.approx(5.95, abs=0.15)
    assert losses[-1] < losses[0] - 1.0
    ledger = run_pass("plain", learner.model, text, recipe.score)
    assert float(ledger.nats.mean()) < losses[0] - 1.0

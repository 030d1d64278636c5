"""Training on two ranks is training on one: the same weights, warm-up without a trace, states that either can resume."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from loop_cases import StopAfter, assert_same, tensors_of, training

from fairway.base.values import with_fields
from fairway.config import Recipe
from fairway.train.distributed import ONE_RANK, Ranks
from fairway.train.interrupt import Interrupted
from fairway.train.loop import new_learner, train, warm_up
from fairway.train.machine import choose
from fairway.train.state import load_state

STEPS = 20
LAYOUTS = ["per_matrix", "banked"]


def twenty_steps(quick: Recipe, layout: str, warmup_steps: int = 0) -> Recipe:
    return with_fields(
        quick,
        {
            "optim.matrices.layout": layout,
            "train.budget": float(STEPS),
            "train.warmup_steps": warmup_steps,
            "train.validate_every": 0,
            "train.checkpoint_every": 0,
        },
    )


def train_as_rank(rank: int, world: int, recipe: Recipe, corpus: Path, folder: Path, stop_after: int) -> None:
    """One process of a run; it leaves all its tensors, as it holds them at the end."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", store=dist.FileStore(str(folder / "store"), world), rank=rank, world_size=world)
    try:
        ranks, machine = Ranks(rank, world), choose(recipe.machine)
        learner = new_learner(recipe, machine, ranks)
        first = tensors_of(learner)
        warm_up(learner, learner.model, recipe, machine, ranks)
        # Without gathering: a momentum that warm-up left behind on this rank must show.
        assert_same(learner.tensors(), first)
        with training(recipe, corpus, folder / str(rank), StopAfter(stop_after), ranks=ranks) as run:
            try:
                learner = train(run, resume=False)
            except Interrupted:
                return
        learner.optimizers.synchronize()
        torch.save(tensors_of(learner), folder / f"{rank}.pt")
    finally:
        dist.destroy_process_group()


def on_two_ranks(recipe: Recipe, corpus: Path, folder: Path, stop_after: int = 10**9) -> None:
    folder.mkdir()
    for rank in range(2):
        (folder / str(rank)).mkdir()
    mp.spawn(train_as_rank, (2, recipe, corpus, folder, stop_after), nprocs=2)


def train_alone(recipe: Recipe, corpus: Path, folder: Path, *, resume: bool = False) -> dict[str, torch.Tensor]:
    with training(recipe, corpus, folder, ranks=ONE_RANK) as run:
        return tensors_of(train(run, resume=resume))


def assert_close(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> None:
    """Equal up to what another order of float32 sums does to twenty steps."""
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        # Adam makes a step of full size out of any gradient, so the noise of a tiny one shows in single entries.
        torch.testing.assert_close(found[name], tensor, rtol=1e-3, atol=2e-4, msg=lambda text, name=name: f"{name}: {text}")
        distance = (found[name] - tensor).float().norm() / (tensor.float().norm() + 1e-6)
        assert distance < 1e-4, f"{name}: {distance}"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_two_ranks_train_as_one_and_warm_up_leaves_no_trace(quick: Recipe, corpus: Path, tmp_path: Path, layout: str) -> None:
    on_two_ranks(twenty_steps(quick, layout, warmup_steps=2), corpus, tmp_path / "two")
    ranks = [torch.load(tmp_path / "two" / f"{rank}.pt") for rank in range(2)]
    assert_same(ranks[0], ranks[1])
    assert_close(ranks[0], train_alone(twenty_steps(quick, "per_matrix"), corpus, tmp_path / "one"))


def test_a_banked_state_of_two_ranks_resumes_per_matrix_on_one(quick: Recipe, corpus: Path, tmp_path: Path) -> None:
    on_two_ranks(twenty_steps(quick, "banked"), corpus, tmp_path / "two", stop_after=8)
    state = tmp_path / "two" / "0" / "state.safetensors"
    assert load_state(state).numbers["step"] == 8
    momenta = {name: tensor for name, tensor in load_state(state).tensors.items() if name.endswith("/momentum")}
    assert len(momenta) > 2
    assert all(momentum.any() for momentum in momenta.values())
    resumed = train_alone(twenty_steps(quick, "per_matrix"), corpus, state.parent, resume=True)
    assert_close(resumed, train_alone(twenty_steps(quick, "per_matrix"), corpus, tmp_path / "one"))


def test_two_ranks_train_on_packed_documents_as_one_and_change_context_together(
    quick: Recipe, corpus: Path, tmp_path: Path
) -> None:
    changes = {
        "train.loader": "packed_documents",
        "train.streams": 2,
        "train.context": 128,
        "train.context_lengths": (32, 128),
        "train.context_until": (0.4,),
        "train.context_rewarm_steps": 2,
        "train.budget": 6.0,
        "model.gates.smear": True,
    }
    recipe = with_fields(twenty_steps(quick, "per_matrix", warmup_steps=1), changes)
    on_two_ranks(recipe, corpus, tmp_path / "two")
    ranks = [torch.load(tmp_path / "two" / f"{rank}.pt") for rank in range(2)]
    assert_same(ranks[0], ranks[1])
    assert_close(ranks[0], train_alone(recipe, corpus, tmp_path / "one"))
    for folder in (tmp_path / "one", tmp_path / "two" / "0", tmp_path / "two" / "1"):
        assert (folder / "metrics.jsonl").read_text().count('"event": "context", "step": 3') == 1

"""What the tests of the training loop share: a run around a recipe, a signal at a chosen step, and comparisons."""

from contextlib import contextmanager
from pathlib import Path

import torch
from tqdm import tqdm

from fairway.config import Recipe
from fairway.data.dataset import Dataset
from fairway.train.clock import Clock
from fairway.train.distributed import ONE_RANK, Ranks
from fairway.train.interrupt import StopRequest
from fairway.train.loop import Learner, Training
from fairway.train.machine import choose
from fairway.train.metrics import Metrics


class StopAfter(StopRequest):
    """Asks to stop once it has been looked at ``steps`` times, as a signal during a step does."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.left = steps

    def __bool__(self) -> bool:
        self.left -= 1
        if self.left == 0:
            self.signal_name = "SIGTERM"
        return super().__bool__()


@contextmanager
def training(
    recipe: Recipe,
    corpus: Path,
    folder: Path,
    stop: StopRequest | None = None,
    clock: Clock | None = None,
    ranks: Ranks = ONE_RANK,
):
    with Metrics(folder / "metrics.jsonl") as metrics, tqdm(total=1.0, disable=True) as bar:
        yield Training(
            recipe=recipe,
            dataset=Dataset.open(corpus),
            machine=choose(recipe.machine),
            ranks=ranks,
            clock=clock or Clock(),
            metrics=metrics,
            state_path=folder / "state.safetensors",
            stop=StopRequest() if stop is None else stop,
            validate=lambda model: (1.0, 1.0),
            bar=bar,
        )


def tensors_of(learner: Learner) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in learner.tensors().items()}


def assert_same(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> None:
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert torch.equal(found[name], tensor), name

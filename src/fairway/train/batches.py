"""One rank's share of every global batch: the micro-batches of the logical streams that it serves."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from fairway.base.errors import RecipeError
from fairway.config import TrainConfig
from fairway.data.batches import Loader
from fairway.data.contiguous import Contiguous
from fairway.data.dataset import Dataset
from fairway.data.random_windows import RandomWindows
from fairway.train.distributed import Ranks


def open_stream(dataset: Dataset, config: TrainConfig, stream: int) -> Loader:
    """The loader of one logical stream, at its first batch."""
    kind = RandomWindows if config.loader == "random_windows" else Contiguous
    return kind(
        dataset.train_shards(),
        stream=stream,
        streams=config.streams,
        context=config.context,
        rows=config.batch_tokens // (config.streams * config.context),
        vocab_size=dataset.vocab_size,
    )


class RankBatches:
    """The rows of all streams of this rank for one optimizer step, stream after stream.

    Streams are fixed by the recipe and dealt to ranks in order, so one rank serving eight streams and eight ranks serving
    one each see the same rows in the same step.
    """

    def __init__(self, dataset: Dataset, config: TrainConfig, ranks: Ranks) -> None:
        """Open this rank's streams.

        Raises:
            RecipeError: there are more ranks than streams.
        """
        if ranks.world > config.streams:
            raise RecipeError(
                f"{ranks.world} ranks share train.streams={config.streams}; start fewer ranks, or raise train.streams"
            )
        first, stop = ranks.share(config.streams)
        self.loaders = {str(stream): open_stream(dataset, config, stream) for stream in range(first, stop)}

    def next_batch(self) -> tuple[np.ndarray, np.ndarray]:
        """Inputs and targets, each int64 (streams of this rank * rows, context)."""
        pairs = [loader.next_batch() for loader in self.loaders.values()]
        return np.concatenate([pair[0] for pair in pairs]), np.concatenate([pair[1] for pair in pairs])

    def state(self) -> dict[str, Any]:
        """State of every stream under its number; all JSON."""
        return {stream: loader.state() for stream, loader in self.loaders.items()}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue every stream of this rank; states of other ranks' streams may be present."""
        for stream, loader in self.loaders.items():
            loader.restore(state[stream])


def to_device(array: np.ndarray, device: torch.device) -> Int[Tensor, "rows context"]:
    """Token ids on the device; the copy overlaps with queued work where the memory allows."""
    # A compiled network guards strides as well as shapes: a view of a larger array would cost a second graph.
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


def calibration_batches(
    dataset: Dataset, config: TrainConfig, batches: int, ranks: Ranks, device: torch.device
) -> Iterator[Int[Tensor, "rows context"]]:
    """Inputs of the first training micro-batches, ``batches`` in all, dealt over the streams of all ranks.

    PR #1394 calibrates on the first 64 micro-batches of one rank's stream; here every stream gives its share, so the
    statistics do not depend on the number of ranks.
    """
    first, stop = ranks.share(config.streams)
    for stream in range(first, stop):
        loader = open_stream(dataset, config, stream)
        for _ in range(batches * (stream + 1) // config.streams - batches * stream // config.streams):
            yield to_device(loader.next_batch()[0], device)

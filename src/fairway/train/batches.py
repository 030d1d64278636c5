"""One rank's share of every global batch: the micro-batches of the logical streams that it serves."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from fairway.config import TrainConfig
from fairway.data.dataset import Dataset
from fairway.data.loaders import ContiguousLoader, RandomWindowLoader
from fairway.train.distributed import Ranks


def open_stream(dataset: Dataset, config: TrainConfig, stream: int) -> RandomWindowLoader | ContiguousLoader:
    """The loader of one logical stream, at its first batch."""
    kind = RandomWindowLoader if config.loader == "random_windows" else ContiguousLoader
    rows = config.batch_tokens // (config.streams * config.context)
    return kind(
        dataset.train_shards(),
        stream=stream,
        streams=config.streams,
        length=config.context,
        rows=rows,
        vocab_size=dataset.vocab_size,
    )


class RankBatches:
    """The rows of all streams of this rank for one optimizer step, stream after stream.

    Streams are fixed by the recipe and dealt to ranks in order, so one rank serving eight streams and eight ranks serving
    one each see the same rows in the same step.
    """

    def __init__(self, dataset: Dataset, config: TrainConfig, ranks: Ranks) -> None:
        """Open this rank's streams."""
        first, stop = ranks.share(config.streams)
        self.loaders = {stream: open_stream(dataset, config, stream) for stream in range(first, stop)}

    def next_batch(self) -> tuple[np.ndarray, np.ndarray]:
        """Inputs and targets, each int64 (streams of this rank * rows, context)."""
        pairs = [loader.next_batch() for loader in self.loaders.values()]
        return np.concatenate([pair[0] for pair in pairs]), np.concatenate([pair[1] for pair in pairs])

    def state(self) -> dict[str, Any]:
        """State of every stream under its number."""
        return {str(stream): loader.state() for stream, loader in self.loaders.items()}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue every stream of this rank; states of other ranks' streams may be present."""
        for stream, loader in self.loaders.items():
            loader.restore(state[str(stream)])


def to_device(array: np.ndarray, device: torch.device) -> Int[Tensor, "rows context"]:
    """Token ids on the device; the copy overlaps with queued work where the memory allows."""
    tensor = torch.from_numpy(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor

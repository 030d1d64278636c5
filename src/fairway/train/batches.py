"""One rank's share of every global batch: the rows of the logical streams that it serves, and what one pass takes of them."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Int, Int64
from torch import Tensor

from fairway.base.errors import RecipeError
from fairway.config import TrainConfig
from fairway.data.batches import Loader
from fairway.data.contiguous import Contiguous
from fairway.data.dataset import Dataset
from fairway.data.packed_documents import PackedDocuments, document_segments
from fairway.data.random_windows import RandomWindows
from fairway.data.tokenizer import BOS
from fairway.kernels.attention import Segments
from fairway.kernels.attention.segments import PADDING
from fairway.train.distributed import Ranks

WARMED_STARTS = 256
"""Entries of ``Segments.starts`` up to which warm-up compiles a graph for each multiple of the padding. PR #2140."""


def open_stream(dataset: Dataset, config: TrainConfig, stream: int) -> Loader:
    """The loader of one logical stream, at its first batch."""
    shards, tokens = dataset.train_shards(), config.batch_tokens // config.streams
    if config.loader == "packed_documents":
        return PackedDocuments(shards, stream=stream, streams=config.streams, tokens=tokens, vocab_size=dataset.vocab_size)
    kind = RandomWindows if config.loader == "random_windows" else Contiguous
    return kind(
        shards,
        stream=stream,
        streams=config.streams,
        context=config.context,
        rows=tokens // config.context,
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
        """Inputs and targets, each int64: rows of ``context`` tokens, or one long row per stream of packed documents."""
        pairs = [loader.next_batch() for loader in self.loaders.values()]
        return np.concatenate([pair[0] for pair in pairs]), np.concatenate([pair[1] for pair in pairs])

    def state(self) -> dict[str, Any]:
        """State of every stream under its number; all JSON."""
        return {stream: loader.state() for stream, loader in self.loaders.items()}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue every stream of this rank; states of other ranks' streams may be present."""
        for stream, loader in self.loaders.items():
            loader.restore(state[stream])


class MicroBatch(NamedTuple):
    """What one forward pass takes, on the device."""

    ids: Int[Tensor, "rows time"]
    targets: Int[Tensor, "rows time"]
    segments: Segments | None
    """Segments of a packed row; None for rows that attend as a whole."""


def micro_batches(
    inputs: Int64[np.ndarray, "rows time"],
    targets: Int64[np.ndarray, "rows time"],
    config: TrainConfig,
    device: torch.device,
    *,
    context: int,
    tokens_at_once: int,
) -> Iterator[MicroBatch]:
    """Cut a rank's batch to the context in force and deal it to forward passes.

    A packed row is one pass, its segments at most ``context`` long. Other rows are cut into shorter ones of ``context``.

    Args:
        inputs: Token ids as the loader gave them.
        targets: The same, one token later.
        config: Whether rows are packed.
        device: Where the tensors are wanted.
        context: Context of the stage; divides a row.
        tokens_at_once: Tokens of one pass over rows that are not packed, at least one row.
    """
    if config.loader == "packed_documents":
        for row in range(len(inputs)):
            part, segments = slice(row, row + 1), document_segments(inputs[row], context)
            segments = segments._replace(starts=_move(segments.starts, device))
            yield MicroBatch(to_device(inputs[part], device), to_device(targets[part], device), segments)
        return
    inputs, targets = inputs.reshape(-1, context), targets.reshape(-1, context)
    at_once = max(1, tokens_at_once // context)
    for begin in range(0, len(inputs), at_once):
        part = slice(begin, begin + at_once)
        yield MicroBatch(to_device(inputs[part], device), to_device(targets[part], device), None)


def to_device(array: np.ndarray, device: torch.device) -> Int[Tensor, "rows context"]:
    """Token ids on the device; the copy overlaps with queued work where the memory allows."""
    # A compiled network guards strides as well as shapes: a view of a larger array would cost a second graph. NumPy takes a
    # lone row for contiguous whatever its stride, so the shape is written anew.
    return _move(torch.from_numpy(np.ascontiguousarray(array)).reshape(-1).view(array.shape), device)


def _move(tensor: Tensor, device: torch.device) -> Tensor:
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


def practice_batches(
    config: TrainConfig, ranks: Ranks, *, context: int, vocab_size: int, every_count: bool
) -> list[tuple[Int64[np.ndarray, "rows time"], Int64[np.ndarray, "rows time"]]]:
    """Inputs and targets of random tokens in the shapes that training will have in a stage; no text is read.

    Rows of any content have one shape. The segments of packed rows have several: one for each multiple of the padding that
    their starts fill.

    Args:
        config: Rows and loader.
        ranks: This rank's share of the streams.
        context: Context of the stage.
        vocab_size: Ids lie below this.
        every_count: Whether packed rows are wanted for every number of starts up to ``WARMED_STARTS``, or the fewest alone.
    """
    first, stop = ranks.share(config.streams)
    row = config.batch_tokens // config.streams
    packed = config.loader == "packed_documents"
    shape = (stop - first, row + 1) if packed else ((stop - first) * row // config.context, config.context + 1)
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(vocab_size, shape, generator=generator).numpy()
    if not packed:
        return [(tokens[:, :-1], tokens[:, 1:])]
    tokens[tokens == BOS] = 0
    fewest, most = -(-(row // context + 1) // PADDING), min(WARMED_STARTS, row + PADDING) // PADDING
    batches = []
    for multiple in range(fewest, max(fewest, most) + 1 if every_count else fewest + 1):
        # Pieces of nearly equal length, none above the context: as many starts as fill the padding exactly.
        pieces = min(multiple * PADDING - 1, row)
        practice = tokens.copy()
        practice[:, row * np.arange(pieces) // pieces] = BOS
        batches.append((practice[:, :-1], practice[:, 1:]))
    return batches


def calibration_batches(
    dataset: Dataset, config: TrainConfig, batches: int, ranks: Ranks, device: torch.device
) -> Iterator[Int[Tensor, "rows context"]]:
    """Inputs of the first training micro-batches, ``batches`` in all, dealt over the streams of all ranks.

    PR #1394 calibrates on the first 64 micro-batches of one rank's stream; here every stream gives its share, so the
    statistics do not depend on the number of ranks. Training on packed documents calibrates on random windows of the final
    context, as PR #2140 does.
    """
    packed, rows = config.loader == "packed_documents", config.batch_tokens // (config.streams * config.context)
    # Packed documents need one long shard, windows one for each stream.
    shards = [shard for shard in dataset.train_shards() if shard.tokens > config.context or not packed]
    streams = min(config.streams, len(shards)) if packed else config.streams
    first, stop = ranks.share(streams)
    for stream in range(first, stop):
        if packed:
            shared = {"stream": stream, "streams": streams, "context": config.context, "rows": rows}
            loader: Loader = RandomWindows(shards, **shared, vocab_size=dataset.vocab_size)
        else:
            loader = open_stream(dataset, config, stream)
        for _ in range(batches * (stream + 1) // streams - batches * stream // streams):
            yield to_device(loader.next_batch()[0], device)

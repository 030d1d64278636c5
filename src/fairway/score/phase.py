"""A phase of adaptation per document: SGD of the whole network on documents that are scored already."""

import torch
from jaxtyping import Int
from torch import Tensor, nn

from fairway.config import DocumentAdaptationConfig
from fairway.data.packed_documents import document_segments
from fairway.data.tokenizer import BOS
from fairway.model.gpt import GPT
from fairway.score.adaptation import cosine_rate
from fairway.train.distributed import ONE_RANK, Ranks


def train_phase(
    model: GPT,
    parameters: list[nn.Parameter],
    text: Int[Tensor, " length"],
    config: DocumentAdaptationConfig,
    ranks: Ranks = ONE_RANK,
) -> int:
    """One pass of SGD with momentum over ``text``, chunk by chunk, and the number of steps.

    Of every chunk of ``global_chunk_tokens`` inputs the leading whole rows of ``global_context`` are packed into one row, in
    which attention stays within documents and within stretches of ``global_context`` from their start. The loss is the mean
    over its tokens, the rate falls as a cosine over the chunks, and the last chunk is left out, however long it is. Ranks share
    a chunk between documents, so that the steps do not depend on their number; the reference cuts documents where a rank ends.

    Args:
        model: The network, with no parameter that asks for a gradient; so it is left.
        parameters: What is trained.
        text: Documents one after the other, each from its marker on.
        config: Rate, momentum, clip, chunk and row.
        ranks: Ranks that share the documents of a chunk.

    Source: PR #1610, #1626, #2140.
    """
    targets = len(text) - 1
    chunks = -(-targets // config.global_chunk_tokens)
    length = config.global_chunk_tokens // config.global_context * config.global_context
    for parameter in parameters:
        parameter.requires_grad_(True)
    optimizer = torch.optim.SGD(parameters, lr=config.global_learning_rate, momentum=config.global_momentum)
    for chunk in range(chunks - 1):
        optimizer.param_groups[0]["lr"] = cosine_rate(config.global_learning_rate, chunk, chunks)
        optimizer.zero_grad(set_to_none=True)
        begin = chunk * config.global_chunk_tokens
        inputs, wanted = text[begin : begin + length], text[begin + 1 : begin + length + 1]
        first, stop = _share(inputs, ranks)
        if stop > first:
            _loss(model, inputs[first:stop], wanted[first:stop], config.global_context, (stop - first) / length)
        ranks.sum_gradients_(parameters)
        if config.global_clip > 0:
            nn.utils.clip_grad_norm_(parameters, config.global_clip)
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    for parameter in parameters:
        parameter.requires_grad_(False)
    return max(0, chunks - 1)


def _share(inputs: Tensor, ranks: Ranks) -> tuple[int, int]:
    """This rank's stretch of a row: about an equal part, from one beginning of a document to another."""
    starts = [*(inputs == BOS).nonzero().flatten().tolist(), len(inputs)]
    first, stop = (next(start for start in starts if start >= edge) if edge else 0 for edge in ranks.share(len(inputs)))
    return first, stop


@torch.enable_grad()
def _loss(model: GPT, inputs: Tensor, targets: Tensor, longest: int, weight: float) -> None:
    """Add the gradient of the weighted mean loss of one packed row."""
    device = model.embedding.weight.device
    segments = document_segments(inputs, longest, device=device)
    loss = model(inputs[None].to(device), targets[None].to(device), recurrent=True, segments=segments)
    (loss * weight).backward()

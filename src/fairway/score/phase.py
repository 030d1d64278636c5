"""A phase of adaptation per document: SGD of the whole network on documents that are scored already."""

import torch
from jaxtyping import Int
from torch import Tensor, nn

from fairway.config import DocumentAdaptationConfig
from fairway.data.tokenizer import BOS
from fairway.kernels.attention import Segments
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
    a chunk's rows and pack their own; with more ranks, documents are cut at more places.

    Args:
        model: The network, with no parameter that asks for a gradient; so it is left.
        parameters: What is trained.
        text: Documents one after the other, each from its marker on.
        config: Rate, momentum, clip, chunk and row.
        ranks: Ranks that share the rows.

    Source: PR #1610, #1626, #2140.
    """
    targets = len(text) - 1
    chunks, rows = -(-targets // config.global_chunk_tokens), config.global_chunk_tokens // config.global_context
    first, stop = ranks.share(rows)
    for parameter in parameters:
        parameter.requires_grad_(True)
    optimizer = torch.optim.SGD(parameters, lr=config.global_learning_rate, momentum=config.global_momentum)
    for chunk in range(chunks - 1):
        optimizer.param_groups[0]["lr"] = cosine_rate(config.global_learning_rate, chunk, chunks)
        optimizer.zero_grad(set_to_none=True)
        begin = chunk * config.global_chunk_tokens
        span = slice(begin + first * config.global_context, begin + stop * config.global_context)
        if stop > first:
            inputs, wanted = text[span], text[span.start + 1 : span.stop + 1]
            _loss(model, inputs, wanted, config.global_context, (stop - first) / rows)
        ranks.sum_gradients_(parameters)
        if config.global_clip > 0:
            nn.utils.clip_grad_norm_(parameters, config.global_clip)
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    for parameter in parameters:
        parameter.requires_grad_(False)
    return max(0, chunks - 1)


@torch.enable_grad()
def _loss(model: GPT, inputs: Tensor, targets: Tensor, longest: int, weight: float) -> None:
    """Add the gradient of the weighted mean loss of one packed row."""
    device = model.embedding.weight.device
    documents = (inputs == BOS).nonzero().flatten().tolist()
    segments = Segments.cut(documents, len(inputs), longest, device=device)
    loss = model(inputs[None].to(device), targets[None].to(device), recurrent=True, segments=segments)
    (loss * weight).backward()

"""Text from an artifact: sample one token after the other."""

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

from fairway.base.errors import DataError, RecipeError
from fairway.data.tokenizer import Tokenizer
from fairway.model.gpt import GPT
from fairway.score.load import PackedModel


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How tokens are drawn."""

    tokens: int = 128
    """Tokens to write."""
    temperature: float = 0.8
    """Divides the logits; 0 takes the likeliest token."""
    seed: int = 0
    """Seed of the draws."""

    def __post_init__(self) -> None:
        if self.tokens < 1 or self.temperature < 0:
            raise RecipeError(f"tokens={self.tokens} must be at least 1 and temperature={self.temperature} not negative")


@torch.no_grad()
def sample(model: GPT, prompt: list[int], sampling: Sampling, *, context: int, stop: int) -> list[int]:
    """Continue ``prompt`` by draws from ``softmax(logits / temperature)``.

    Args:
        model: The network.
        prompt: Token ids, at least the document marker.
        sampling: Length, temperature and seed.
        context: Longest window that the network sees.
        stop: Token id at which writing ends; it is not part of the result.
    """
    device = model.embedding.weight.device
    generator = torch.Generator().manual_seed(sampling.seed)
    ids: Int[Tensor, " time"] = torch.tensor(prompt, dtype=torch.int64)
    written: list[int] = []
    for _ in range(sampling.tokens):
        hidden = model.hidden(ids[None, -context:].to(device), recurrent=True)
        logits = model.logits(hidden[0, -1]).float().cpu()
        if sampling.temperature == 0:
            token = int(logits.argmax())
        else:
            token = int(torch.multinomial((logits / sampling.temperature).softmax(-1), 1, generator=generator))
        if token == stop:
            break
        written.append(token)
        ids = torch.cat([ids, torch.tensor([token])])
    return written


def read_tokenizer(packed: PackedModel, path: Path | None) -> Tokenizer:
    """The artifact's own tokenizer, or the given file if it is the one that the model was trained with.

    Raises:
        DataError: the artifact carries none and no file is given, or the file is another tokenizer.
    """
    carried = packed.tokenizer
    if path is None and carried is None:
        raise DataError(f"{packed.path} does not carry its tokenizer; name the file with --tokenizer")
    tokenizer = Tokenizer.load(path) if path is not None else Tokenizer(carried or b"")
    packed.require_tokenizer(tokenizer.sha256, str(path or packed.path))
    return tokenizer

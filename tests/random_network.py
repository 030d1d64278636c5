"""Networks in which every parameter is random, so that every term of the forward pass is seen."""

import torch

from fairway.config import ModelConfig
from fairway.model.gpt import GPT


def random_network(config: ModelConfig, seed: int = 0, dtype: torch.dtype = torch.float32) -> GPT:
    """Matrices with deviation 0.3, all others 1; weights and activations in ``dtype``."""
    model, generator = GPT(config).to(dtype), torch.Generator().manual_seed(seed)
    model.compute_dtype = dtype
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * (0.3 if parameter.ndim > 1 else 1.0))
    return model

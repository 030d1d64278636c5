"""A tiny network for tests of what walks with it: untrained, and perturbed so that it predicts something at all."""

from typing import Any

from fairway.audit.artifact import perturbed
from fairway.config import ModelConfig, RecurrenceConfig
from fairway.model.gpt import GPT


def toy_config(vocab_size: int, **changes: Any) -> ModelConfig:
    """Two layers, one of which is passed twice, so that recurrence is on."""
    settings: dict[str, Any] = {
        "layers": 2,
        "width": 16,
        "query_heads": 2,
        "kv_heads": 1,
        "mlp_hidden": 32,
        "rotary_channels": 4,
        "exclusive_attention_layers": 2,
        "recurrence": RecurrenceConfig(first=0, last=0, extra_passes=1),
    }
    return ModelConfig(vocab_size=vocab_size, **{**settings, **changes})


def toy_network(vocab_size: int, seed: int = 0, noise_seed: int = 1, **changes: Any) -> GPT:
    """A fresh network of the toy's shape."""
    return perturbed(toy_config(vocab_size, **changes), seed, noise_seed)

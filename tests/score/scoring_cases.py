"""A small trained network and a stream, with the published system's own scores of it (PR #1413, float32, CPU)."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from fairway.config import AdaptationConfig, ModelConfig, RecurrenceConfig
from fairway.model.gpt import GPT
from reference_names import to_fairway

GOLDEN = Path(__file__).parents[1] / "golden" / "score"


@dataclass(frozen=True)
class ScoringCase:
    """Stored scores and the settings behind them."""

    arrays: dict[str, np.ndarray]
    settings: dict[str, float]
    tokens: torch.Tensor
    byte_costs: np.ndarray

    def setting(self, name: str) -> int:
        return int(self.settings[name])

    def adaptation(self, chunk: int) -> AdaptationConfig:
        return AdaptationConfig(
            chunk_tokens=chunk,
            epochs=self.setting("epochs"),
            learning_rate=self.settings["lr"],
            momentum=self.settings["momentum"],
            gradient_clip=self.settings["clip"],
            sequences_per_step=self.setting("train_batch_sequences"),
        )


@cache
def scoring_case() -> ScoringCase:
    with np.load(GOLDEN / "scores_1413.npz") as file:
        arrays = dict(file)
    settings = dict(zip(arrays["settings_names"].tolist(), arrays["settings_values"].tolist(), strict=True))
    stream = arrays["stream.tokens"].astype(np.int64)
    context = int(settings["context"])
    targets = (len(stream) - 1) // context * context
    before, after = stream[:targets], stream[1 : targets + 1]
    spaces = arrays["stream.has_leading_space"][after] & ~arrays["stream.is_boundary"][before]
    costs = arrays["stream.base_bytes"][after] + spaces
    return ScoringCase(arrays, settings, torch.from_numpy(stream[: targets + 1]), costs.astype(np.uint16))


def scoring_model() -> GPT:
    """A fresh copy of the stored network."""
    case = scoring_case()
    config = ModelConfig(
        vocab_size=case.setting("vocab_size"),
        layers=case.setting("layers"),
        width=case.setting("width"),
        query_heads=case.setting("heads"),
        kv_heads=case.setting("kv_heads"),
        mlp_hidden=case.setting("width") * case.setting("mlp_multiplier"),
        rotary_channels=case.setting("rotary_dims"),
        exclusive_attention_layers=case.setting("layers"),
        recurrence=RecurrenceConfig(
            first=case.setting("loop_start"), last=case.setting("loop_end"), extra_passes=case.setting("extra_passes")
        ),
    )
    model = GPT(config)
    state = load_file(GOLDEN / "model_1413.safetensors")
    state.pop("rope_inv_freq")
    model.load_state_dict(to_fairway(state, config.layers))
    return model

"""Small trained networks and a stream, with the published systems' own scores of it (float32, CPU)."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from fairway.config import AdaptationConfig, PassName, ScoreConfig
from fairway.model.gpt import GPT
from fairway.score.passes import ScoredText
from reference_networks import stored_network

GOLDEN = Path(__file__).parents[1] / "golden" / "score"
WHOLE = Path(__file__).parents[3] / "shared" / "golden" / "score"
SYSTEMS = ("1413", "1533", "1557", "1776")
PASSES: dict[str, PassName] = {"plain": "plain", "sliding": "sliding", "ttt": "adapted", "ttt_b": "adapted"}
"""Passes by their names in the stored arrays."""
STEP_COLUMNS = {"chunk": 0, "loss": 4, "norm": 5, "rate": 6}
"""Of a table of steps."""


@dataclass(frozen=True)
class ScoringCase:
    """Stored scores and the settings behind them."""

    pr: str
    arrays: dict[str, np.ndarray]
    settings: dict[str, float]
    text: ScoredText

    def setting(self, name: str) -> int:
        return int(self.settings[name])

    def config(self, name: str, **changes: int) -> ScoreConfig:
        """Our settings of the stored pass ``name``, as published."""
        ending = "_b" if name == "ttt_b" else ""
        adaptation = AdaptationConfig(
            chunk_tokens=self.setting(f"chunk{ending}"),
            epochs=self.setting("epochs"),
            learning_rate=self.settings["lr"],
            momentum=self.settings["momentum"],
            gradient_clip=self.settings["clip"],
            frozen_blocks=self.setting("frozen_blocks"),
            window_key="last_input" if self.pr == "1776" else "first_input",
            sequences_per_step=self.setting("train_batch_sequences"),
        )
        return ScoreConfig(
            mode="as_published" if (self.pr, name) == ("1776", "ttt_b") else "strict",
            context=self.setting("context"),
            stride=self.setting(f"stride{ending}"),
            keep_tail=False,
            adaptation=adaptation,
            **changes,
        )

    def network(self) -> GPT:
        """A fresh copy of the stored network."""
        return stored_network(self.pr, self.settings, load_file(GOLDEN / f"model_{self.pr}.safetensors"))


@cache
def scoring_case(pr: str) -> ScoringCase:
    arrays = dict(np.load(GOLDEN / f"scores_{pr}.npz"))
    settings = dict(zip(arrays["settings_names"].tolist(), arrays["settings_values"].tolist(), strict=True))
    shared = arrays if pr == "1413" else scoring_case("1413").arrays
    stream = shared["stream.tokens"].astype(np.int64)
    context = int(settings["context"])
    targets = (len(stream) - 1) // context * context
    before, after = stream[:targets], stream[1 : targets + 1]
    spaces = shared["stream.has_leading_space"][after] & ~shared["stream.is_boundary"][before]
    costs = (shared["stream.base_bytes"][after] + spaces).astype(np.uint16)
    tokens = torch.from_numpy(stream[: targets + 1])
    return ScoringCase(pr, arrays, settings, ScoredText(tokens, costs, torch.zeros(0, dtype=torch.int64), partial=False))

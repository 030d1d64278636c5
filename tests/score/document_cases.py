"""The small network and stream of PR #2140 with its own scores per document, and settings that reproduce them."""

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from scoring_cases import GOLDEN, WHOLE
from torch import Tensor

from fairway.config import DocumentAdaptationConfig, ScoreConfig, TiltConfig
from fairway.model.gpt import GPT
from fairway.model.step import Site
from fairway.score.passes import ScoredText
from reference_networks import stored_network

FAMILIES: dict[str, Site] = {"k": "key", "o": "output", "mlp": "mlp", "head": "head"}


@dataclass(frozen=True)
class DocumentCase:
    """Stored scores, by run."""

    runs: dict[str, dict[str, np.ndarray]]
    settings: dict[str, float]
    text: ScoredText

    def setting(self, name: str) -> int:
        return int(self.settings[name])

    def config(self, *, as_published: bool, **changes: Any) -> ScoreConfig:
        """The settings of run ``2140_a``."""
        values = self.settings
        options: dict[str, Any] = {
            "lanes": self.setting("rows"),
            "chunk_sizes": (4, 8, self.setting("base_chunk")),
            "chunk_limits": (24, 80),
            "rank": self.setting("lora_rank"),
            "alpha": values["lora_alpha"],
            "learning_rate": values["lora_lr"] * values["local_lr_multiplier"],
            "beta2": values["beta2"],
            "weight_decay": values["weight_decay"],
            "prefix_documents": self.setting("prefix_documents"),
            "global_learning_rate": values["global_lr"],
            "global_momentum": values["global_momentum"],
            "global_chunk_tokens": self.setting("global_chunk"),
            "global_context": self.setting("global_sequence"),
            "global_clip": values["global_clip"],
        }
        return ScoreConfig(
            mode="as_published" if as_published else "strict",
            context=self.setting("document_context"),
            documents=DocumentAdaptationConfig(**{**options, **changes}),
            tilt=TiltConfig(counting="pr2140", contexts=(5,), thresholds=(0.6,), minimum_counts=(1,), strength=1.75),
        )

    def network(self) -> GPT:
        """A fresh copy of the stored network."""
        return stored_network("2140", self.settings, load_file(GOLDEN / "model_2140.safetensors"))


@cache
def document_case() -> DocumentCase:
    arrays = dict(np.load(GOLDEN / "scores_2140.npz"))
    runs: dict[str, dict[str, np.ndarray]] = {}
    for name, array in arrays.items():
        run, _, rest = name.partition(".")
        runs.setdefault(run, {})[rest] = array
    shared = runs["shared"]
    settings = dict(zip(shared["settings_names"].tolist(), shared["settings_values"].tolist(), strict=True))
    tokens = torch.from_numpy(shared["tokens"].astype(np.int64))
    text = ScoredText(tokens, shared["token_bytes"][1:].astype(np.uint16), torch.from_numpy(shared["doc_start"]), partial=False)
    return DocumentCase(runs, settings, text)


def stored_adapters(name: str, prefix: str, kind: str) -> dict[Site, Tensor]:
    """Stored A or B as [application, lane, ...]; the first axis of run ``b`` is the document."""
    stored = load_file(WHOLE / f"2140_{name}_adapters.safetensors")
    found: dict[Site, Tensor] = {}
    for family, site in FAMILIES.items():
        tensor = stored[f"{prefix}.{family}_{kind}"]
        found[site] = tensor[None] if family == "head" else tensor
    return found

"""Every choice of a run as one frozen value. Imports no torch; ``fairway recipe show NAME`` prints one with its docs.

Fields have no hidden meaning elsewhere: no environment variable and no constant in a forward pass changes a result.
The source of a default is the pull request (PR) of the Parameter Golf challenge, or the paper, that introduced it.
"""

from fairway.config.network import GateConfig, ModelConfig, RecurrenceConfig, ResidualConfig
from fairway.config.packing import ArtifactConfig, ProtectionConfig, QuantConfig, RepairConfig, SchemeConfig
from fairway.config.recipe import MachineConfig, Recipe
from fairway.config.scoring import (
    ADAPTIVE_PASSES,
    ARTIFACT_PASSES,
    DOCUMENT_PASSES,
    AdaptationConfig,
    DocumentAdaptationConfig,
    PassName,
    ScoreConfig,
    TiltConfig,
    stated_settings,
)
from fairway.config.training import AdamConfig, MuonConfig, OptimConfig, TrainConfig

__all__ = [
    "ADAPTIVE_PASSES",
    "ARTIFACT_PASSES",
    "DOCUMENT_PASSES",
    "AdamConfig",
    "AdaptationConfig",
    "ArtifactConfig",
    "DocumentAdaptationConfig",
    "GateConfig",
    "MachineConfig",
    "ModelConfig",
    "MuonConfig",
    "OptimConfig",
    "PassName",
    "ProtectionConfig",
    "QuantConfig",
    "Recipe",
    "RecurrenceConfig",
    "RepairConfig",
    "ResidualConfig",
    "SchemeConfig",
    "ScoreConfig",
    "TiltConfig",
    "TrainConfig",
    "stated_settings",
]

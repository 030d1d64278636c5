"""The machine, and the recipe that holds every other choice."""

from dataclasses import dataclass, field
from typing import Literal

from fairway.base.values import Value, require
from fairway.config.network import ModelConfig
from fairway.config.packing import ArtifactConfig, QuantConfig
from fairway.config.scoring import ScoreConfig
from fairway.config.training import OptimConfig, TrainConfig


@dataclass(frozen=True, kw_only=True)
class MachineConfig(Value):
    """Where the run happens. Changes speed and rounding, never the meaning of a result."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto takes a CUDA GPU where there is one."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Type of activations; auto is bfloat16 on a GPU and float32 on a CPU. Master weights are float32."""
    compile: Literal["auto", "on", "off"] = "auto"
    """Compile the network with torch.compile; auto compiles on a GPU only."""
    attention: Literal["auto", "flash4", "flash3", "varlen", "flex", "sdpa", "plain"] = "auto"
    """Attention back end; auto takes the fastest that runs here and says why. flash4, flash3: FlashAttention packages, varlen:
    torch's variable-length kernel, flex: FlexAttention, sdpa: torch's scaled dot product, plain: written out."""
    fused_kernels: Literal["auto", "on", "off"] = "auto"
    """Triton kernels in training: loss and gradient of the logits in one, the MLP's activation inside its matrix products. auto
    takes them where a GPU and Triton are; their results differ from those of plain operations by rounding alone. PR #2140."""
    threads: int = 0
    """CPU threads per process; 0 leaves torch's choice."""

    def validate(self) -> None:
        require(self.threads >= 0, f"machine.threads={self.threads} is negative; use 0 for torch's choice")


@dataclass(frozen=True, kw_only=True)
class Recipe(Value):
    """One whole run as a value: data variant, network, training, quantization, artifact, scoring, machine."""

    name: str
    """Name of the recipe."""
    summary: str
    """What it is, in one line."""
    data_variant: str = "sp8192"
    """Published data set that ``fairway data fetch`` brings for this recipe; any built folder with the same vocabulary fits."""
    seed: int = 1337
    """Seed of the initial weights; the order of data does not depend on it."""
    model: ModelConfig = field(default_factory=ModelConfig)
    """The network."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    """Optimizers and schedules."""
    train: TrainConfig = field(default_factory=TrainConfig)
    """The training loop."""
    quant: QuantConfig = field(default_factory=QuantConfig)
    """Quantization."""
    artifact: ArtifactConfig = field(default_factory=ArtifactConfig)
    """The byte budget."""
    score: ScoreConfig = field(default_factory=ScoreConfig)
    """Scoring."""
    machine: MachineConfig = field(default_factory=MachineConfig)
    """Device, precision, compilation."""

    def validate(self) -> None:
        require(0 <= self.seed < 2**63, f"seed={self.seed} is outside 0..2**63-1")
        frozen = self.score.adaptation.frozen_blocks
        require(
            frozen <= self.model.layers,
            f"score.adaptation.frozen_blocks={frozen} exceeds model.layers={self.model.layers}; freeze fewer blocks",
        )

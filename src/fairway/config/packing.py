"""Quantization and the byte budget."""

from dataclasses import dataclass, field
from typing import Literal

from fairway.base.values import Value, require


@dataclass(frozen=True, kw_only=True)
class SchemeConfig(Value):
    """How one class of matrices is turned into integer codes with one float16 scale per row."""

    method: Literal["gptq", "round"] = "gptq"
    """GPTQ propagates each column's error with the Hessian of its inputs (arXiv 2210.17323); round does not."""
    bits: int = 6
    """Codes lie in ``[-(2**(bits-1) - 1), 2**(bits-1) - 1]``. PR #1394: 6 for matrices, 8 for the embedding."""
    clip_sigmas: float = 12.85
    """Clip at this many standard deviations of the row: step ``clip_sigmas * sigma / max_code`` (SDClip). PR #1394."""
    importance: float = 0.0
    """Hessian-aware SDClip: weight in a row's step of its importance against the mean row's; 0 is plain. PR #1557: 0.175."""

    def validate(self) -> None:
        require(2 <= self.bits <= 8, f"quant: bits={self.bits} is outside 2..8")
        require(self.clip_sigmas > 0, f"quant: clip_sigmas={self.clip_sigmas} must be positive")
        require(0 <= self.importance < 1, f"quant: importance={self.importance} is outside [0, 1); a step could become zero")
        require(
            self.importance == 0 or self.method == "gptq",
            f"quant: importance={self.importance} needs a Hessian, which method=round does not use; set method=gptq",
        )


@dataclass(frozen=True, kw_only=True)
class QuantConfig(Value):
    """Quantization after training: a scheme per class of tensor; everything else is stored as float16."""

    matrices: SchemeConfig = field(default_factory=SchemeConfig)
    """Attention and MLP matrices."""
    embedding: SchemeConfig = field(default_factory=lambda: SchemeConfig(bits=8, clip_sigmas=20.0))
    """The tied embedding, quantized in its role as output head. PR #1394; PR #2140 uses 7 bits and 14 sigmas."""
    calibration_batches: int = 64
    """Micro-batches of training data whose activations give the Hessians. PR #1394."""
    damping: float = 0.01
    """Share of the mean Hessian diagonal added to the diagonal. arXiv 2210.17323."""

    def validate(self) -> None:
        require(self.calibration_batches >= 1, "quant.calibration_batches must be at least 1")
        require(self.damping > 0, f"quant.damping={self.damping} must be positive")


@dataclass(frozen=True, kw_only=True)
class ArtifactConfig(Value):
    """The byte budget of the file that scoring reads, together with the code."""

    byte_cap: int = 16_000_000
    """Largest sum of artifact and code bytes, decimal. The challenge's rule."""
    embed_tokenizer: bool = False
    """Carry the tokenizer inside the artifact, where its bytes count; the challenge does not count it. PR #1394: no."""

    def validate(self) -> None:
        require(self.byte_cap >= 1, f"artifact.byte_cap={self.byte_cap} must be positive")

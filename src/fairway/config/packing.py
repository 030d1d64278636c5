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
    states: Literal[0, 4, 8, 16, 64, 256] = 0
    """States of a trellis-coded quantizer inside GPTQ; 0 rounds to a scalar grid. The grid of a trellis is twice as fine, so
    that equal clip_sigmas cost about equal bits; at equal bits the squared error falls by 1.0 dB (4 states) to 1.4 dB (256).
    Dependent quantization of ISO/IEC 15938-17 (8 states)."""
    centroids: bool = False
    """Reconstruct codes at the centroids of their cells: one factor per matrix, close to ``1 - step**2 / 12`` for a scalar step
    in standard deviations. PR #1394: off, codes stand for mid-points."""
    column_steps: Literal["equal", "conditional"] = "equal"
    """How steps differ between the columns: not at all (PR #1394), or in inverse proportion to the deviation of each input that
    the inputs after it in GPTQ's order leave unexplained, so that every column adds the same error at high rate."""
    scale_grid: int = 0
    """Steps per octave of the logarithmic grid to which row and column scales are rounded before GPTQ, so that they are coded
    in a few bits; 0 leaves them free float16 numbers. 8 costs 0.001 bit per weight in error."""

    def validate(self) -> None:
        require(2 <= self.bits <= 8, f"quant: bits={self.bits} is outside 2..8")
        require(self.clip_sigmas > 0, f"quant: clip_sigmas={self.clip_sigmas} must be positive")
        require(0 <= self.scale_grid <= 64, f"quant: scale_grid={self.scale_grid} is outside 0..64")
        require(0 <= self.importance < 1, f"quant: importance={self.importance} is outside [0, 1); a step could become zero")
        require(
            self.importance == 0 or self.method == "gptq",
            f"quant: importance={self.importance} needs a Hessian, which method=round does not use; set method=gptq",
        )
        require(
            not self.states or self.method == "gptq",
            f"quant: states={self.states} is a trellis inside GPTQ, but method=round; set method=gptq or states=0",
        )
        require(
            self.column_steps == "equal" or (self.method == "gptq" and self.scale_grid > 0),
            "quant: column_steps=conditional needs a Hessian and coded scales; set method=gptq and scale_grid=8",
        )


@dataclass(frozen=True, kw_only=True)
class ProtectionConfig(Value):
    """Columns whose inputs are large keep more bits (mixed precision by activation, "AWQ-lite"). PR #1908, PR #2140."""

    groups: int = 0
    """Groups of columns that are protected, the best over all GPTQ matrices of fewer bits; 0 protects none. PR #2140: 1."""
    columns: int = 64
    """Neighbouring columns of a group; what remains at the end of a matrix is no group. PR #2140."""
    bits: int = 8
    """Width of a protected code. PR #2140."""
    keep: Literal["always", "worth"] = "always"
    """worth keeps a protection only where the error of the outputs, weighted by their sensitivity, falls by more than its bytes
    would buy as finer steps; always keeps it, as published. PR #2140: always."""

    def validate(self) -> None:
        require(self.groups >= 0, f"quant.protection.groups={self.groups} is negative; use 0 to protect none")
        require(self.columns >= 1, f"quant.protection.columns={self.columns} must be at least 1")
        require(3 <= self.bits <= 8, f"quant.protection.bits={self.bits} is outside 3..8")


@dataclass(frozen=True, kw_only=True)
class RepairConfig(Value):
    """A product of two thin matrices that makes up for part of the quantization error (LQER, arXiv 2402.02446)."""

    tensors: int = 0
    """GPTQ matrices that are repaired, those with the largest error; 0 repairs none. PR #1797, PR #2140: 3."""
    rank: int = 4
    """Columns of the left and rows of the right factor. PR #1797."""
    weighting: Literal["published", "hessian"] = "hessian"
    """Hessian lowers the error of the outputs, tr(E H E^T), and keeps a repair only where that falls; published takes the
    plain SVD of E, in a packing whose result depends on the signs of the singular vectors. PR #2140: published."""
    keep: Literal["always", "worth"] = "always"
    """worth keeps a repair only where the error of the outputs, weighted by their sensitivity, falls by more than its bytes
    would buy as finer steps; always keeps it, as published. PR #2140: always."""

    def validate(self) -> None:
        require(self.tensors >= 0, f"quant.repair.tensors={self.tensors} is negative; use 0 to repair none")
        require(self.rank >= 1, f"quant.repair.rank={self.rank} must be at least 1")


@dataclass(frozen=True, kw_only=True)
class QuantConfig(Value):
    """Quantization after training: a scheme per class of tensor; everything else is stored as float16."""

    attention: SchemeConfig = field(default_factory=SchemeConfig)
    """Query, key, value and output matrices. PR #2140: 13 sigmas."""
    mlp: SchemeConfig = field(default_factory=SchemeConfig)
    """Both matrices of every MLP. PR #2140: 11.5 sigmas."""
    embedding: SchemeConfig = field(default_factory=lambda: SchemeConfig(bits=8, clip_sigmas=20.0))
    """The tied embedding, quantized in its role as output head. PR #1394; PR #2140 uses 7 bits and 14 sigmas."""
    gates: Literal["float16", "int8"] = "float16"
    """How attention gates are stored: int8 rounds to 1/127 of the largest magnitude of each row. PR #2140: int8."""
    protection: ProtectionConfig = field(default_factory=ProtectionConfig)
    """Columns with more bits."""
    repair: RepairConfig = field(default_factory=RepairConfig)
    """Low-rank correction of the matrices with the largest error."""
    calibration_batches: int = 64
    """Micro-batches of training data whose activations give the Hessians. PR #1394."""
    damping: float = 0.01
    """Share of the mean Hessian diagonal added to the diagonal. arXiv 2210.17323."""
    sensitivity_batches: int = 0
    """Micro-batches of training data on which the squared gradient of the loss by the outputs of every matrix is measured; 0
    measures none, and all outputs count the same. Diagonal K-FAC, arXiv 1503.05671."""
    target_bytes: int = 0
    """Bytes of the artifact that packing fills, to within 0.1 % from below, by one factor on all steps; the steps of the
    matrices then stand to each other as is best for the loss, whatever their clip_sigmas. 0: sizes follow from clip_sigmas."""

    def validate(self) -> None:
        require(self.calibration_batches >= 1, "quant.calibration_batches must be at least 1")
        require(self.damping > 0, f"quant.damping={self.damping} must be positive")
        require(self.sensitivity_batches >= 0, f"quant.sensitivity_batches={self.sensitivity_batches} is negative; use 0")
        require(self.target_bytes >= 0, f"quant.target_bytes={self.target_bytes} is negative; use 0 for no target")
        schemes = (self.attention, self.mlp, self.embedding)
        gptq = [scheme for scheme in schemes if scheme.method == "gptq"]
        require(
            not self.target_bytes or all(scheme.states for scheme in schemes),
            "quant.target_bytes takes steps of any size, for which a scalar grid is too short; set states=8 for every class",
        )
        require(
            not self.protection.groups or not any(scheme.states or scheme.column_steps != "equal" for scheme in schemes),
            f"quant.protection.groups={self.protection.groups} gives columns a grid of their own, which a trellis and "
            "column_steps=conditional do not have; set groups=0",
        )
        require(
            not self.protection.groups or any(scheme.bits < self.protection.bits for scheme in gptq),
            f"quant.protection.groups={self.protection.groups} finds no class with method=gptq and fewer than "
            f"{self.protection.bits} bits; lower the bits of a class or set groups=0",
        )
        require(
            not self.repair.tensors or bool(gptq),
            f"quant.repair.tensors={self.repair.tensors} needs a class with method=gptq; set tensors=0",
        )


@dataclass(frozen=True, kw_only=True)
class ArtifactConfig(Value):
    """The byte budget of the file that scoring reads, together with the code."""

    byte_cap: int = 16_000_000
    """Largest sum of artifact and code bytes, decimal. The challenge's rule."""
    embed_tokenizer: bool = False
    """Carry the tokenizer inside the artifact, where its bytes count; the challenge does not count it. PR #1394: no."""

    def validate(self) -> None:
        require(self.byte_cap >= 1, f"artifact.byte_cap={self.byte_cap} must be positive")

"""The byte budget, measured on the real files: ``artifact + code <= cap``, and what to change where it is exceeded."""

import math
from dataclasses import dataclass, field
from pathlib import Path

from fairway.artifact.container import read_layout
from fairway.artifact.records import element_count, largest_code
from fairway.base.errors import ArtifactError, BudgetError
from fairway.config import QuantConfig, SchemeConfig
from fairway.model.roles import StorageClass, storage_class

LARGEST_STEP = 0.5
"""Largest step in units of the row's standard deviation for which the entropy formula is accurate to 1e-4 bit."""


@dataclass(frozen=True)
class CodeClass:
    """Quantized tensors with one clip setting.

    Attributes:
        setting: Name of the setting in the recipe, such as ``quant.mlp.clip_sigmas``.
        elements: Codes under it.
        bits: Width of the codes.
        clip_sigmas: Value of the setting, or None where the recipe is not at hand.
    """

    setting: str
    elements: int
    bits: int
    clip_sigmas: float | None = None


@dataclass(frozen=True)
class ByteBudget:
    """Bytes that count against the cap.

    Attributes:
        artifact_bytes: Length of the artifact file.
        code_bytes: Length of the code bundle.
        cap: Largest allowed sum.
        classes: Quantized tensors by clip setting, for advice.
    """

    artifact_bytes: int
    code_bytes: int
    cap: int
    classes: tuple[CodeClass, ...] = field(default=())

    @property
    def total_bytes(self) -> int:
        """Artifact and code together."""
        return self.artifact_bytes + self.code_bytes

    @property
    def slack(self) -> int:
        """Bytes left below the cap; negative above it."""
        return self.cap - self.total_bytes

    def check(self) -> None:
        """Accept a total at or below the cap.

        Raises:
            BudgetError: the total is above the cap; the message says by how much and which settings would fit.
        """
        if self.slack < 0:
            raise BudgetError(
                f"artifact {self.artifact_bytes:,} + code {self.code_bytes:,} = {self.total_bytes:,} bytes, "
                f"{-self.slack:,} above the cap of {self.cap:,}; {self.advice()}"
            )

    def advice(self) -> str:
        """Changes that would remove the excess, each on its own, from the largest class of codes downwards."""
        over = -self.slack
        options = []
        for group in sorted(self.classes, key=lambda group: -group.elements):
            factor = clip_factor(group, over)
            if factor is not None and group.clip_sigmas is not None:
                options.append(f"raise {group.setting} from {group.clip_sigmas:g} to {group.clip_sigmas * factor:.2f}")
            elif factor is not None:
                options.append(f"raise {group.setting} by {100 * (factor - 1):.1f} %")
            if group.elements / 8 >= over and group.bits > 2:
                options.append(f"set {group.setting.replace('clip_sigmas', 'bits')}={group.bits - 1}")
        share = 1 - math.sqrt(max(0.0, 1 - over / max(1, self.artifact_bytes)))
        options.append(f"make model.width or model.mlp_hidden about {math.ceil(100 * share)} % smaller")
        return "to fit, " + ", or ".join(options)


def gaussian_bits(step: float) -> float:
    """Entropy in bits of a Gaussian of standard deviation 1 rounded with ``step``: ``2.0471 + log2(1/step**2 + 1/12) / 2``.

    Accurate to 1e-4 bit for steps up to 0.5. Source: ``0.5 log2(2 pi e)`` plus the variance of the rounding.
    """
    return 0.5 * math.log2(2 * math.pi * math.e) + 0.5 * math.log2(1 / step**2 + 1 / 12)


def clip_factor(group: CodeClass, over: int) -> float | None:
    """Factor on ``clip_sigmas`` that makes the codes of ``group`` ``over`` bytes smaller; None where that is not reasonable.

    The step is ``clip_sigmas / c`` standard deviations; the factor solves ``gaussian_bits`` for the lower rate.
    Without a known setting the step is taken as small, where the rate falls by ``log2(factor)`` bits.
    """
    if group.elements == 0:
        return None
    saved = 8 * over / group.elements
    if group.clip_sigmas is None:
        return 2**saved if saved <= 1 else None
    step = group.clip_sigmas / largest_code(group.bits)
    precision = (1 / step**2 + 1 / 12) * 4**-saved - 1 / 12
    if precision <= 0 or precision**-0.5 > max(2 * step, LARGEST_STEP):
        return None
    return precision**-0.5 / step


def measure(artifact_path: Path, code: bytes | Path, cap: int, quant: QuantConfig | None = None) -> ByteBudget:
    """Measure the artifact and the code as they are on disk.

    Args:
        artifact_path: The artifact; it must be readable, its streams are not decoded.
        code: The code bundle, or its file.
        cap: Largest allowed sum in bytes, such as 16,000,000.
        quant: Settings that made the artifact, for advice with absolute values.

    Raises:
        ArtifactError: the artifact or the code file is missing or damaged.
    """
    layout = read_layout(artifact_path)
    counts: dict[tuple[StorageClass, int], int] = {}
    for entry in layout.entries:
        if entry.bits:
            key = storage_class(entry.name), entry.bits
            counts[key] = counts.get(key, 0) + element_count(entry.shape)
    classes = []
    for (storage, bits), elements in counts.items():
        # Gates are scaled by their largest magnitude: they have no clip to raise.
        scheme = getattr(quant or QuantConfig(), storage, None)
        if isinstance(scheme, SchemeConfig):
            sigmas = scheme.clip_sigmas if quant else None
            classes.append(CodeClass(f"quant.{storage}.clip_sigmas", elements, bits, sigmas))
    return ByteBudget(layout.report.total_bytes, _code_bytes(code), cap, tuple(classes))


def _code_bytes(code: bytes | Path) -> int:
    if isinstance(code, bytes):
        return len(code)
    try:
        return code.stat().st_size
    except OSError as error:
        raise ArtifactError(f"code bundle {code} cannot be read: {error.strerror}; write it with fairway pack") from None

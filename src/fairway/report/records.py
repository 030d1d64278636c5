"""What a run folder says, as frozen values. Units: nats per token, bits per byte, bytes, seconds."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float64, Int64, Num, UInt16

from fairway.config import Recipe, ScoreConfig


@dataclass(frozen=True)
class Phase:
    """One named stretch of the run's clock."""

    name: str
    seconds: float
    counted: bool
    """Whether the phase counts against a budget."""


@dataclass(frozen=True)
class TrainCurve:
    """The logged training steps; losses that were not a number stay NaN."""

    step: Int64[np.ndarray, " events"]
    tokens: Int64[np.ndarray, " events"]
    seconds: Float64[np.ndarray, " events"]
    progress: Float64[np.ndarray, " events"]
    loss: Float64[np.ndarray, " events"]
    learning_rate: Float64[np.ndarray, " events"]
    """Multiplier of the peak learning rate."""
    momentum: Float64[np.ndarray, " events"]
    gradient_norm: Float64[np.ndarray, " events"]
    tokens_per_second: Float64[np.ndarray, " events"]
    recurrent: Bool[np.ndarray, " events"]

    def __len__(self) -> int:
        return len(self.step)

    @property
    def recurrence_start(self) -> int | None:
        """Index of the first logged step with depth recurrence, or None when it never or always ran."""
        return int(np.argmax(self.recurrent)) if self.recurrent.any() and not self.recurrent[0] else None


@dataclass(frozen=True)
class ValidationCurve:
    """Validations during training."""

    step: Int64[np.ndarray, " events"]
    tokens: Int64[np.ndarray, " events"]
    seconds: Float64[np.ndarray, " events"]
    nats_per_token: Float64[np.ndarray, " events"]
    bits_per_byte: Float64[np.ndarray, " events"]

    def __len__(self) -> int:
        return len(self.step)


@dataclass(frozen=True)
class Stop:
    """Why and when training ended."""

    reason: str
    step: int
    seconds: float
    peak_memory_bytes: int = 0
    """Most memory that the device gave to training; 0 on a CPU, and in runs that did not log it."""


@dataclass(frozen=True)
class Metrics:
    """The events of ``metrics.jsonl``."""

    train: TrainCurve
    validation: ValidationCurve
    phases: tuple[Phase, ...]
    """Phases in the order of their first event, times of equal names added up."""
    parameters: int | None = None
    seed: int | None = None
    stop: Stop | None = None


@dataclass(frozen=True)
class PassScore:
    """The result of one walk over the scored text."""

    name: str
    bits_per_byte: float
    nats_per_token: float
    tokens: int
    bytes: int
    nats: float
    seconds: float


@dataclass(frozen=True)
class Score:
    """The content of ``score.json``."""

    bits_per_byte: float
    nats_per_token: float
    tokens: int
    bytes: int
    nats: float
    mode: str
    predictor: str
    artifact_bytes: int
    code_bytes: int
    total_bytes: int
    byte_cap: int
    passes: tuple[PassScore, ...]
    """In the order float, plain, sliding, adapted, tilted, documents, documents_tilted, but the result is the last."""
    clock: tuple[Phase, ...]
    seed: int
    data_fingerprint: str
    partial: bool
    """Whether only a leading part of the validation split was scored."""
    settings: ScoreConfig | None
    """How it was scored; None in files of the first releases."""


@dataclass(frozen=True)
class Ledger:
    """Cost of every target of the scored stream, pass by pass."""

    nats: dict[str, Num[np.ndarray, " targets"]]
    bytes: UInt16[np.ndarray, " targets"]
    documents: Int64[np.ndarray, " documents"]
    """Start of each document in the stream, rising, the first at 0; empty when unknown."""
    context: int

    def __len__(self) -> int:
        return len(self.bytes)


@dataclass(frozen=True)
class TensorRecord:
    """How one tensor was stored."""

    name: str
    role: str
    shape: tuple[int, ...]
    bits: int
    """Width of one stored value before entropy coding."""
    scheme: str
    entropy_bits: float | None
    """Empirical entropy in bits per weight."""
    coded_bits: float | None
    """Bits per weight in the artifact."""
    bytes: int
    rms_error: float | None
    hessian_error: float | None

    @property
    def weights(self) -> int:
        """Number of values."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def group(self) -> str:
        """The name without the block's number and without ``.weight``, such as ``attention.query``."""
        return re.sub(r"\.weight$", "", re.sub(r"^blocks\.\d+\.", "", self.name))

    @property
    def quantized(self) -> bool:
        """Whether the values are integer codes of fewer than 16 bits."""
        return self.bits < 16


@dataclass(frozen=True)
class Sample:
    """Text that the model wrote after a prompt."""

    prompt: str
    text: str


@dataclass(frozen=True)
class ProofRecord:
    """Text that was coded with the score's own distributions and came back from the bytes."""

    pass_name: str
    targets: int
    text_bytes: int
    blocks: int
    coded_bytes: int
    decoded_exactly: int
    """Fresh processes that returned the text."""
    coded_bits_per_byte: float
    scored_bits_per_byte: float


@dataclass(frozen=True)
class ConditionRecord:
    """What the audit says about one validity condition."""

    name: str
    verdict: str
    tests: dict[str, str]
    """Letters of the tests that speak for it, with their verdicts."""

    @property
    def speaking(self) -> str:
        """See the function."""
        return speaking(self.tests)


def speaking(tests: Mapping[str, str]) -> str:
    """Letters of tests by what they say; those that do not apply are left out."""
    said = ("fail", "pass", "undecided")
    groups = {verdict: [letter for letter, found in sorted(tests.items()) if found == verdict] for verdict in said}
    return ", ".join(f"{verdict} {' '.join(letters)}" for verdict, letters in groups.items() if letters) or "none"


@dataclass(frozen=True)
class FindingRecord:
    """What one test of the audit says."""

    test: str
    name: str
    verdict: str
    reason: str
    meaning: str
    """What a failure of the test means; empty in files that were written before it was told."""


@dataclass(frozen=True)
class AuditRecord:
    """The content of ``audit.json`` that is shown."""

    scorer: str
    """What was audited: artifact and pass."""
    verdict: str
    """pass, fail or undecided."""
    conditions: tuple[ConditionRecord, ...]
    findings: tuple[FindingRecord, ...]

    @property
    def headline(self) -> str:
        """The verdict in a few words, with the conditions that fail."""
        if self.verdict == "fail":
            return f"audit failed: {', '.join(item.name for item in self.conditions if item.verdict == 'fail')}"
        return "audit passed" if self.verdict == "pass" else "audit undecided"

    def with_verdict(self, verdict: str) -> tuple[FindingRecord, ...]:
        """Findings of one verdict, in the order in which they were made."""
        return tuple(item for item in self.findings if item.verdict == verdict)


@dataclass(frozen=True)
class RunData:
    """Everything a report shows of one run; a part that the folder lacks is None."""

    path: Path
    recipe: Recipe
    environment: dict[str, object] | None = None
    metrics: Metrics | None = None
    score: Score | None = None
    ledger: Ledger | None = None
    tensors: tuple[TensorRecord, ...] | None = None
    samples: tuple[Sample, ...] | None = None
    proof: ProofRecord | None = None
    audit: AuditRecord | None = None
    missing: tuple[str, ...] = ()
    """One sentence per file that is absent, with the command that makes it."""
    warnings: tuple[str, ...] = ()
    """Sentences on figures that contradict each other or were left out."""

    @property
    def clock(self) -> tuple[Phase, ...]:
        """Phases of ``score.json``, or those of ``metrics.jsonl`` while there is no score."""
        if self.score is not None and self.score.clock:
            return self.score.clock
        return self.metrics.phases if self.metrics is not None else ()

"""An artifact, or the run folder around it, put before the audit: its logic tests, and the tests about its files."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fairway.audit.accounting import byte_accounting
from fairway.audit.artifact import logic_scale
from fairway.audit.caps import size, wall_clock
from fairway.audit.documents import artifact_scorer
from fairway.audit.finding import Finding
from fairway.audit.ledger import AGAIN, ledger_coverage, read_ledger, scored_again
from fairway.audit.run import run_audit
from fairway.audit.runner import ADAPTED, BFLOAT16, FLOAT32, Tolerances
from fairway.audit.streams import Streams, generate, shared_documents
from fairway.base.errors import DataError
from fairway.base.files import read_json
from fairway.base.runs import RunFolder, artifact_and_folder
from fairway.config import ADAPTIVE_PASSES, DOCUMENT_PASSES, PassName, ScoreConfig
from fairway.data.dataset import Dataset
from fairway.score.load import PackedModel
from fairway.train.machine import Machine, limited_threads

LOGIC_CONTEXT, LOGIC_CHUNK, LOGIC_TARGETS = 32, 64, 256
"""Geometry of the logic tests: four chunks, three of which are adapted to."""
PHRASE = 40
"""Length of the phrases that the logic stream repeats; longer than the longest context of a tilt."""
NOISE = 0.04
"""Share of its tokens that are replaced; small, so that long contexts come back whole."""
SMALL_NETWORK = 4_000_000
"""Parameters up to which windows of 32 tokens are computed as fast by one thread as by several."""
ACCOUNTED_TOKENS = 1_000_000
"""Leading tokens whose bytes are checked against their text."""
MOST_DOCUMENT_TARGETS = 20_000
"""Targets up to which a pass over documents is scored again, which takes the whole text."""
AGAIN_CHUNKS = 1.25
"""Chunks of the run's own size that are scored again: one, and enough of the next to see its adaptation."""


@dataclass(frozen=True)
class ArtifactAudit:
    """What is known about an artifact under audit."""

    packed: PackedModel
    machine: Machine
    pass_name: PassName
    settings: ScoreConfig
    """How the run was scored; without a run, how the artifact is meant to be."""
    dataset: Dataset | None = None
    run: RunFolder | None = None
    """The folder of the run, if its own artifact is audited."""
    stated: dict[str, Any] | None = None
    """The ``score.json`` of the run."""

    @property
    def tolerances(self) -> Tolerances:
        """What the machine's arithmetic explains."""
        if str(self.machine.activations) == "torch.bfloat16":
            return BFLOAT16
        return ADAPTED if self.pass_name in ADAPTIVE_PASSES else FLOAT32

    def streams(self, seed: int) -> Streams:
        """Documents made of phrases of the validation text, or of random ones where there is no data."""
        vocab = self.packed.model.vocab_size
        text = self.dataset.validation().tokens[:20_000].astype(np.int64) if self.dataset else None
        logic = shared_documents(vocab, LOGIC_TARGETS, seed, documents=8, phrase=PHRASE, noise=NOISE, text=text)
        chunk = self._logic.adaptation.chunk_tokens
        borders = tuple(entry for border in range(chunk, LOGIC_TARGETS, chunk) for entry in (border - 1, border))
        return Streams(replace(logic, landmarks=borders), generate(vocab, seed).sources)

    def audit(
        self, budget_seconds: float, seed: int = 0, progress: Callable[[Finding], None] = lambda finding: None
    ) -> list[Finding]:
        """Tests about files first, then the catalogue on the pass at a small scale, within the time budget.

        Raises:
            DataError: the data is not the artifact's, or a file of the run is missing.
        """
        began = time.perf_counter()
        findings = self._files()
        for finding in findings:
            progress(finding)
        tokenizer = self.dataset.tokenizer if self.dataset else None
        scorer = artifact_scorer(self.packed, self.machine, self._logic, self.pass_name, tokenizer)
        options = {"seed": seed, "tolerances": self.tolerances, "progress": progress}
        # A small network gains nothing from a second thread, and loses much where another process wants the core.
        with limited_threads(1 if scorer.parameters <= SMALL_NETWORK else torch.get_num_threads()):
            left = budget_seconds - (time.perf_counter() - began)
            return [*findings, *run_audit(scorer, self.streams(seed), left, **options)]

    @property
    def _logic(self) -> ScoreConfig:
        """Geometry of the logic tests."""
        return logic_scale(self.settings, LOGIC_CONTEXT, LOGIC_CHUNK)

    def _files(self) -> list[Finding]:
        stated, findings = self.stated, []
        if self.dataset is not None:
            self.packed.require_tokenizer(self.dataset.tokenizer.sha256, str(self.dataset.folder))
            findings.append(self._bytes(self.dataset, stated))
        if self.run is None or stated is None:
            return findings
        findings.append(size(self.run.artifact, self.run.code, int(self.packed.header["byte_cap"]), stated))
        environment = read_json(self.run.environment) if self.run.environment.exists() else {}
        device = str(environment.get("device_name", environment.get("device", "an unknown device")))
        findings.append(wall_clock(stated["clock"], device, int(environment.get("ranks", 1))))
        if self.dataset is not None and self.run.ledger.exists():
            arrays = read_ledger(self.run.ledger)
            findings.append(ledger_coverage(arrays, stated, self.dataset))
            if f"{self.pass_name}_nll" in arrays:
                findings.append(self._again(arrays, self.dataset))
        return findings

    def _bytes(self, dataset: Dataset, stated: dict[str, Any] | None) -> Finding:
        """Whole documents from the start of the validation split."""
        stream = dataset.validation()
        ends = [*stream.documents[1:].tolist(), len(stream.tokens)]
        stop = max((end for end in ends if end <= ACCOUNTED_TOKENS), default=ends[0])
        documents = stream.documents[stream.documents < stop]
        return byte_accounting(
            dataset.tokenizer,
            stream.tokens[:stop],
            stream.byte_costs[:stop],
            documents,
            rule=stream.byte_rule,
            lossy_documents=dataset.lossy_documents,
            passes=stated["passes"] if stated else None,
        )

    def _again(self, arrays: dict[str, np.ndarray], dataset: Dataset) -> Finding:
        config = self.settings
        if self.pass_name in DOCUMENT_PASSES and len(arrays["bytes"]) > MOST_DOCUMENT_TARGETS:
            return AGAIN.undecided(
                f"the rounds of {self.pass_name} depend on where the text ends, so its beginning cannot be scored alone, and "
                f"all {len(arrays['bytes'])} targets are more than {MOST_DOCUMENT_TARGETS}; score the run again to compare"
            )
        count = (
            round(AGAIN_CHUNKS * config.adaptation.chunk_tokens) if self.pass_name in ADAPTIVE_PASSES else 4 * config.context
        )
        if self.pass_name in DOCUMENT_PASSES:
            count = len(arrays["bytes"])
        scorer = artifact_scorer(self.packed, self.machine, config, self.pass_name, dataset.tokenizer)
        return scored_again(scorer, arrays, self.pass_name, dataset, count, self.tolerances)


def open_run(target: Path) -> tuple[Path, RunFolder | None]:
    """The artifact that a path names, and the run folder that it is the artifact of, if any.

    Raises:
        DataError: there is no such file.
    """
    artifact, folder = artifact_and_folder(target)
    if not artifact.exists():
        raise DataError(f"{artifact} does not exist; name an artifact, or a run folder that holds one")
    own = artifact.name == folder.artifact.name and folder.score.exists()
    return artifact, folder if own else None

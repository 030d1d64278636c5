"""The names of the files in a run folder, in one place; every stage reads and writes through them."""

from dataclasses import dataclass
from pathlib import Path

from fairway.base.errors import DataError
from fairway.base.files import read_json


@dataclass(frozen=True)
class RunFolder:
    """Paths of one run; nothing is created by naming it."""

    root: Path

    @property
    def recipe(self) -> Path:
        """What was asked: the resolved recipe."""
        return self.root / "recipe.json"

    @property
    def environment(self) -> Path:
        """What it ran on: versions, device, data folder, hash of the source."""
        return self.root / "environment.json"

    @property
    def metrics(self) -> Path:
        """One line per event of training."""
        return self.root / "metrics.jsonl"

    @property
    def clock(self) -> Path:
        """Seconds by phase, and whether each counts."""
        return self.root / "clock.json"

    @property
    def state(self) -> Path:
        """Resumable training state; removed once the weights are written."""
        return self.root / "state" / "training.safetensors"

    @property
    def weights(self) -> Path:
        """Averaged weights before quantization."""
        return self.root / "weights.safetensors"

    @property
    def artifact(self) -> Path:
        """The only file that scoring reads besides the text."""
        return self.root / "model.fwz"

    @property
    def code(self) -> Path:
        """The source that a score needs, packed; its length counts against the byte cap."""
        return self.root / "code.bundle"

    @property
    def tensors(self) -> Path:
        """Bits, bytes and error of every tensor."""
        return self.root / "tensors.json"

    @property
    def score(self) -> Path:
        """The result."""
        return self.root / "score.json"

    @property
    def ledger(self) -> Path:
        """Cost of every target in every pass."""
        return self.root / "ledger.npz"

    @property
    def proof(self) -> Path:
        """What was coded and decoded to prove the score."""
        return self.root / "proof.json"

    @property
    def coded(self) -> Path:
        """The coded text of the proof."""
        return self.root / "proof.fwc"

    @property
    def audit(self) -> Path:
        """Verdicts of the audit, with evidence."""
        return self.root / "audit.json"

    @property
    def samples(self) -> Path:
        """Text written by the packed model."""
        return self.root / "samples.json"

    @property
    def report(self) -> Path:
        """The page for people."""
        return self.root / "report.html"

    def drop_evidence(self, *, artifact: bool) -> tuple[str, ...]:
        """Remove what spoke of files that are replaced; returns the names of the files that were there.

        Args:
            artifact: Whether the artifact is replaced, which a proof is about; an audit is about the result too.
        """
        stale = [path for path in (*((self.proof, self.coded) if artifact else ()), self.audit) if path.exists()]
        for path in stale:
            path.unlink()
        return tuple(path.name for path in stale)

    def data_folder(self, given: Path | None) -> Path:
        """The data folder that was given, or the one that the run recorded.

        Raises:
            DataError: none is given and the folder holds no run.
        """
        if given is not None:
            return given
        if not self.environment.exists():
            raise DataError(f"{self.root} does not say which data it used; name the folder with --data DIR")
        return Path(read_json(self.environment)["data"])


def artifact_and_folder(target: Path) -> tuple[Path, RunFolder]:
    """What a path on the command line names: an artifact with the folder it lies in, or a run folder with its artifact.

    Neither need exist.
    """
    if target.is_dir():
        return RunFolder(target).artifact, RunFolder(target)
    return target, RunFolder(target.parent)

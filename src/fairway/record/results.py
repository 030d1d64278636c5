"""Scored runs as the comparison sees them: read from a run folder, or from a published record's JSON."""

import hashlib
import json
import math
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from fairway.base.errors import DataError, RecipeError
from fairway.base.fields import Fields
from fairway.base.files import read_json
from fairway.base.runs import RunFolder
from fairway.base.values import from_dict, to_dict
from fairway.config import Recipe
from fairway.record.figures import Claim, SeedFigures, digest_of, field_of, packed_bytes, read_claim
from fairway.record.paired import DocumentCosts, read_costs
from fairway.record.record_file import RECORD, handed_in, recorded_costs
from fairway.record.units import TextSize

TRAINING_PHASES = ("train", "hessian")
"""Counted phases that read training data; the other counted ones belong to the evaluation."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """One scored run."""

    name: str
    """Its folder, or the record and the seed."""
    stated: SeedFigures
    """What ``score.json`` or the record says."""
    text: TextSize
    bits_per_byte: float
    nats_per_token: float
    recipe: Recipe | None = None
    """None for a published record, which does not give its own in our terms."""
    recipe_name: str = ""
    pass_name: str | None = None
    mode: str | None = None
    partial: bool | None = None
    byte_rule: str | None = None
    data_fingerprint: str | None = None
    """None where the record does not say on which data it was scored."""
    byte_cap: int | None = None
    folder: RunFolder | None = None
    artifact: str | None = None
    """SHA-256 of the artifact."""
    record: Claim | None = None
    """The whole record, where this is one seed of a published one."""
    recorded_costs: DocumentCosts | None = None
    """Costs by document that the record brings."""

    @cached_property
    def costs(self) -> DocumentCosts | None:
        """Costs by document, or None where no ledger was kept."""
        if self.recorded_costs is not None:
            return self.recorded_costs
        if self.folder is None or self.pass_name is None or not self.folder.ledger.exists():
            return None
        return read_costs(self.folder.ledger, self.pass_name)

    def measured(self) -> SeedFigures:
        """The same figures from the ledger and the files on disk, wherever they are kept."""
        assert self.folder is not None
        model, code = packed_bytes(self.folder)
        figures = replace(
            self.stated,
            model_bytes=model,
            code_bytes=code,
            total_bytes=None if model is None or code is None else model + code,
            configuration=self.configuration,
            code=digest_of(self.folder.code),
        )
        costs = self.costs
        if costs is None:
            return replace(figures, bits_per_byte=None, nats_per_token=None, tokens=None, bytes=None)
        text = int(costs.bytes.sum())
        bits, nats = costs.bits_per_byte if text else None, float(costs.nats.sum())
        return replace(figures, bits_per_byte=bits, nats_per_token=nats / costs.tokens, tokens=costs.tokens, bytes=text)

    @property
    def settings(self) -> dict[str, Any]:
        """The recipe without its seed and machine: what the runs of one side must share."""
        if self.recipe is None:
            return {}
        return {name: value for name, value in to_dict(self.recipe).items() if name not in ("seed", "machine")}

    @property
    def configuration(self) -> str:
        """Digest of ``settings``."""
        return hashlib.sha256(json.dumps(self.settings, sort_keys=True).encode()).hexdigest()


def read_results(path: Path, pass_name: str | None = None) -> list[Result]:
    """The results behind one name on the command line: one of a run folder, or one per seed of a record's JSON.

    Args:
        path: A run folder with ``score.json``, a folder that ``fairway record`` wrote, or a JSON file with ``seeds``,
            ``tokens`` and ``bytes``.
        pass_name: Pass to take; by default the last one of each run, which is its result.

    Raises:
        DataError: what is there is neither, or is incomplete or damaged.
    """
    if path.is_dir() and (path / RECORD).exists():
        path = path / RECORD
    if path.is_dir():
        return [read_run(path, pass_name)]
    if not path.exists():
        raise DataError(f"{path} does not exist; name a run folder, or a record's JSON file")
    return _published(read_claim(path), path)


def read_run(root: Path, pass_name: str | None = None) -> Result:
    """Read the result of a run folder."""
    folder = RunFolder(root)
    if not folder.score.exists():
        raise DataError(f"{root} holds no score.json; score the run first: fairway score {root}")
    content = Fields(read_json(folder.score), str(folder.score))
    passes = dict(content.named_parts("passes"))
    name = pass_name or content.text("pass")
    if name not in passes:
        raise DataError(f"{root} has no pass {name!r}; it has {', '.join(passes)}; choose one of them with --pass")
    figures = passes[name]
    text = TextSize(figures.whole("tokens"), figures.whole("bytes"))
    nats = figures.number("nats")
    recipe = _recipe(folder)
    return Result(
        name=str(root),
        stated=_stated(content, figures),
        text=text,
        bits_per_byte=nats / math.log(2.0) / text.bytes,
        nats_per_token=nats / text.tokens,
        recipe=recipe,
        recipe_name=recipe.name,
        pass_name=name,
        mode=content.text("mode"),
        partial=content.flag("partial"),
        byte_rule=content.text("byte_rule"),
        data_fingerprint=content.text("data_fingerprint"),
        byte_cap=content.whole("byte_cap"),
        folder=folder,
        artifact=digest_of(folder.artifact),
    )


def _recipe(folder: RunFolder) -> Recipe:
    try:
        return from_dict(Recipe, read_json(folder.recipe))
    except RecipeError as error:
        raise DataError(f"{folder.recipe}: {error}; it is damaged or of another version, make the run again") from None


def _stated(content: Fields, figures: Fields) -> SeedFigures:
    counted = {name: phase.number("seconds") for name, phase in content.named_parts("clock") if phase.flag("counted")}
    return SeedFigures(
        seed=str(content.whole("seed")),
        bits_per_byte=figures.number("bits_per_byte"),
        nats_per_token=figures.number("nats_per_token"),
        tokens=figures.whole("tokens"),
        bytes=figures.whole("bytes"),
        model_bytes=content.whole("artifact_bytes"),
        code_bytes=content.whole("code_bytes"),
        total_bytes=content.whole("total_bytes"),
        train_seconds=math.fsum(counted.get(name, 0.0) for name in TRAINING_PHASES),
        eval_seconds=math.fsum(seconds for name, seconds in counted.items() if name not in TRAINING_PHASES),
    )


def _published(claim: Claim, path: Path) -> list[Result]:
    """Every seed of a record; a mean or a deviation that the file states is not used, for it cannot be checked."""
    if not claim.seeds:
        raise DataError(
            f"{path} gives no figures by seed; a mean and a deviation cannot be checked, so list them: "
            '{"name": ..., "tokens": ..., "bytes": ..., "seeds": {"42": {"val_bpb": ...}}}'
        )
    fingerprint = field_of(claim.document, "data_fingerprint", str, str(path)) if "data_fingerprint" in claim.document else None
    known = handed_in(claim.document, path)
    results = []
    for seed in claim.seeds:
        where = f"{path}: seed {seed.seed}"
        tokens, text_bytes = (
            field_of(claim.document, name, int, str(path)) if own is None else own
            for name, own in (("tokens", seed.tokens), ("bytes", seed.bytes))
        )
        text = TextSize(tokens, text_bytes)
        if seed.bits_per_byte is None or seed.bits_per_byte <= 0:
            raise DataError(f"{where}: val_bpb is {seed.bits_per_byte}; give the bits per byte of every seed, above 0")
        result = Result(
            name=f"{claim.name} seed {seed.seed}",
            stated=replace(seed, tokens=tokens, bytes=text_bytes),
            text=text,
            bits_per_byte=float(seed.bits_per_byte),
            nats_per_token=float(seed.bits_per_byte) * math.log(2.0) * text.bytes / text.tokens,
            recipe_name=claim.name,
            data_fingerprint=fingerprint,
            record=claim,
        )
        if known is not None:
            costs = recorded_costs(claim.document, seed, path)
            artifact = seed.further.get("artifact_sha256")
            result = replace(result, **known, artifact=artifact if isinstance(artifact, str) else None, recorded_costs=costs)
        results.append(result)
    return results

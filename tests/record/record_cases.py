"""What the record room's tests read: published figures as printed, and run folders with believable scores."""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fairway.base.values import to_dict, with_fields
from fairway.recipes import recipe
from fairway.record.statistics import Summary
from fairway.record.units import TextSize, Unit

SP8192 = TextSize(40_540_160, 151_078_222)
SP8192_OTHER = TextSize(40_548_352, 151_077_767)
CASEOPS_CUT = TextSize(47_851_520, 151_074_499)
CASEOPS = TextSize(47_853_343, 151_080_645)

PRINTED = 5e-7
"""Half a unit of the last of the six decimals in which means and deviations are printed."""


@dataclass(frozen=True)
class Printed:
    """Mean, deviation and number of seeds as published."""

    mean: float
    deviation: float
    count: int
    text: TextSize
    unit: Unit = Unit.NATS_PER_TOKEN

    def summary(self, mean_off: float = 0.0, deviation_off: float = 0.0) -> Summary:
        return Summary(self.mean + mean_off, self.deviation + deviation_off, self.count, self.unit, self.text)

    def corners(self) -> list[Summary]:
        """The extremes of what was rounded to the printed figures."""
        return [self.summary(a, b) for a in (-PRINTED, PRINTED) for b in (-PRINTED, PRINTED)]


PR1394 = Printed(2.804282, 0.001860, 5, SP8192)
PR1413 = Printed(2.796969, 0.001557, 3, SP8192)
PR1493 = Printed(2.792343, 0.000508, 3, SP8192)
PR1514 = Printed(2.789320, 0.001281, 3, SP8192)
PR1529 = Printed(2.778871, 0.001802, 3, SP8192)
PR1533 = Printed(2.787299, 0.000850, 5, SP8192)
PR1557 = Printed(2.782776, 0.001030, 3, SP8192)
PR1855 = Printed(2.322027, 0.002421, 3, CASEOPS_CUT)
PR2014 = Printed(2.314410, 0.000914, 3, CASEOPS)
PR2135 = Printed(2.312030, 0.000778, 3, CASEOPS_CUT)
PR2140 = Printed(2.313156, 0.002750, 3, CASEOPS)
PR2140_INITIAL = Printed(2.310951, 0.001397, 3, CASEOPS)
PR1413_BPB = Printed(1.082794, 0.000603, 3, SP8192, Unit.BPB)
PR1019_BPB = Printed(1.114735, 0.000354, 3, TextSize(62_021_920, 151_081_503), Unit.BPB)
"""Its counts are not published; these give the published 1.688463 nats per bpb. Nothing in bits per byte depends on it."""
PR1776_BPB = Printed(1.080826, 0.000625, 3, SP8192_OTHER, Unit.BPB)
PR1493_BPB = Printed(1.081003, 0.000197, 3, SP8192, Unit.BPB)


def make_scored_run(
    folder: Path,
    *,
    seed: int = 1,
    shift: float = 0.0,
    documents: int = 40,
    passes: tuple[str, ...] = ("plain", "sliding"),
    changes: dict | None = None,
    text_seed: int = 0,
    artifact: bytes | None = None,
    **score: object,
) -> Path:
    """A run folder whose costs are those of a common text, ``shift`` bits per byte higher, with noise of its seed.

    Args:
        folder: Where to write.
        seed: Of the run.
        shift: Added to its bits per byte.
        documents: Number of documents of the text.
        passes: The last is the result.
        changes: Settings that differ from ``tiny``.
        text_seed: Chooses the text.
        artifact: Content of model.fwz; by default of its own.
        score: Fields of score.json to overwrite.
    """
    text, noise = np.random.default_rng(text_seed), np.random.default_rng([seed, abs(round(shift * 1e6))])
    lengths = text.integers(20, 200, documents)
    targets = int(lengths.sum())
    starts = np.cumsum(lengths) - lengths
    byte_costs = np.minimum(1 + text.poisson(1.4, targets), 16).astype(np.uint16)
    byte_costs[starts[1:] - 1] = 0
    hardness = np.repeat(text.lognormal(0.0, 0.3, documents), lengths)
    per_document = np.repeat(noise.normal(0.0, 0.01, documents), lengths)
    size = int(byte_costs.sum(dtype=np.int64))
    arrays, results = {}, {}
    for index, name in enumerate(passes):
        nats = (1.6 * hardness + per_document + shift - 0.02 * index) * byte_costs * math.log(2.0)
        arrays[f"{name}_nll"] = np.maximum(nats, 0.0).astype(np.float32)
        arrays[f"{name}_order"] = np.arange(targets)
        total = float(arrays[f"{name}_nll"].sum(dtype=np.float64))
        results[name] = {
            "bits_per_byte": total / math.log(2.0) / size, "nats_per_token": total / targets,
            "tokens": targets, "bytes": size, "nats": total, "seconds": 1.0,
        }  # fmt: skip
    folder.mkdir(parents=True)
    np.savez(folder / "ledger.npz", bytes=byte_costs, documents=starts, context=np.int64(64), **arrays)
    (folder / "recipe.json").write_text(json.dumps(to_dict(with_fields(recipe("tiny"), {"seed": seed, **(changes or {})}))))
    model = artifact if artifact is not None else f"model of seed {seed} shifted by {shift} in {folder.name}".encode()
    (folder / "model.fwz").write_bytes(model)
    (folder / "code.bundle").write_bytes(b"FWBUNDLE")
    document = {
        **results[passes[-1]], "predictor": passes[-1], "pass": passes[-1], "mode": "strict", "partial": True,
        "byte_rule": "sidecar", "artifact_bytes": len(model), "code_bytes": 8, "total_bytes": len(model) + 8,
        "byte_cap": 1_000_000, "passes": results,
        "clock": {"train": {"seconds": 9.0, "counted": True}, passes[-1]: {"seconds": 1.0, "counted": True}},
        "seed": seed, "recipe": "tiny", "data_fingerprint": f"{text_seed:016x}", "side_information": [],
    }  # fmt: skip
    (folder / "score.json").write_text(json.dumps({**document, **score}))
    return folder

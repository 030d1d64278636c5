"""Write the golden artifacts of a format version once: ``python tests/artifact/make_golden_artifact.py FOLDER``.

The files in tests/golden/artifact stay as they are for ever; a new format version gets files of its own.
"""

import sys
from pathlib import Path

import numpy as np
from artifact_samples import (
    HEADER,
    REPAIR_ARRAYS,
    binomial_codes,
    grid_tensors,
    half_floats,
    parts_tensors,
    sample_tensors,
    walk_tensors,
    walked,
)

from fairway.artifact.container import encode
from fairway.artifact.records import CodedTensor, RawTensor


def golden_tensors():
    """The sample, and tensors for the coders and models that the small sample does not reach."""
    spread = binomial_codes(64, 48, 6, 21) * np.where(np.arange(64) % 3, 1, 3)[:, None].astype(np.int8)
    ramp = (np.arange(400, dtype=np.float32) / 7).reshape(20, 20)
    return sample_tensors() | {
        "blocks.2.mlp.down.weight": CodedTensor(np.clip(spread, -31, 31).astype(np.int8), half_floats(64, 17), 6),
        "blocks.2.constant": CodedTensor(np.full((4, 9), -127, np.int8), half_floats(4, 19), 8),
        "tables.ramp": RawTensor(ramp),
        "tables.repeated": RawTensor(np.tile(np.array([3, 1, 4, 1, 5, 9, 2, 6], np.int64), 30)),
        "note": RawTensor(np.frombuffer(b"every byte is accounted for, " * 8, np.uint8)),
        "flag": RawTensor(np.array([7], np.uint8)),
        "controls": RawTensor((1 + (binomial_codes(20, 20, 8, 23) * 37 % 101 - 50) / 400).astype(np.float16)),
    }


def arrays_to_compare(tensors):
    """What the artifact must decode to: ``name|part`` -> array."""
    arrays = {}
    for name, record in tensors.items():
        if not isinstance(record, CodedTensor):
            arrays[f"{name}|values"] = record.values
            continue
        arrays |= {f"{name}|codes|{record.bits}": record.codes, f"{name}|scales": record.scales}
        if (record.trellis, record.gain, record.scale_grid) != (0, 1.0, 0):
            arrays[f"{name}|grid"] = np.array([record.trellis, record.gain, record.scale_grid])
        if record.column_scales is not None:
            arrays[f"{name}|column scales"] = record.column_scales
        if record.protected is not None:
            groups = [record.protected.size, record.protected.bits, *record.protected.starts]
            arrays |= {f"{name}|protected.groups": np.array(groups), f"{name}|protected.scales": record.protected.scales}
        if record.repair is not None:
            arrays |= {f"{name}|repair.{part}": getattr(record.repair, part) for part in REPAIR_ARRAYS}
    return arrays


def main() -> int:
    folder = Path(sys.argv[1])
    golden = {
        "format1": (golden_tensors(), encode),
        "format1_parts": (parts_tensors(), encode),
        "format1_grid": (grid_tensors(), encode),
        "format1_walks": (walk_tensors(), walked),
    }
    for name, (tensors, make) in golden.items():
        if (folder / f"{name}.fwz").exists():
            sys.stderr.write(f"{folder}/{name}.fwz exists; golden files are never rewritten\n")
            continue
        (folder / f"{name}.fwz").write_bytes(make(tensors, HEADER))
        np.savez_compressed(folder / f"{name}.npz", **arrays_to_compare(tensors))
    return 0


if __name__ == "__main__":
    sys.exit(main())

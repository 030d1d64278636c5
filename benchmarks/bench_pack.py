"""Pack and unpack 36 million weights: bytes and seconds of our container against brotli and lzma, as ratios in one run.

    python benchmarks/bench_pack.py [--scale 1.0] [--subset 2000000] [--json]

The set has the shapes of PR #1413 (35,913,728 codes in 67 matrices, 29,784 float16 controls). Weights are Gaussian with
row spreads drawn from a lognormal of 0.3, quantized by plain rounding with the step size of SDClip; the seed is stored
below, so every run sees the same codes. brotli (quality 11, window 2**24) and lzma (preset 9 extreme) take minutes on
the whole set; they compress a documented subset (the first codes of every matrix in proportion), and bytes and seconds
are compared per weight. Time limits: pack and unpack under 5 s each on 2 cores; the exit code is 1 above them.
"""

import argparse
import json
import lzma
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import brotli
import numpy as np

from fairway.artifact.container import read_artifact, write_artifact
from fairway.artifact.frequencies import entropy_bits
from fairway.artifact.records import CodedTensor, RawTensor, TensorRecord, largest_code

SEED = 1413
LAYERS, WIDTH, KV_WIDTH, HIDDEN, VOCABULARY = 11, 512, 256, 2048, 8192
MATRICES = {
    "attention.query": (WIDTH, WIDTH),
    "attention.key": (KV_WIDTH, WIDTH),
    "attention.value": (KV_WIDTH, WIDTH),
    "attention.output": (WIDTH, WIDTH),
    "mlp.up": (HIDDEN, WIDTH),
    "mlp.down": (WIDTH, HIDDEN),
}
CONTROLS = {"attention.query_gain": (8,), "attention_scale": (WIDTH,), "mlp_scale": (WIDTH,), "residual_mix": (2, WIDTH)}
LIMIT_SECONDS = 5.0


def quantize(
    generator: np.random.Generator,
    rows: int,
    columns: int,
    bits: int,
    clip_sigmas: float,
    column_spread: np.ndarray | float = 1.0,
) -> CodedTensor:
    spread = 0.02 * np.exp(0.3 * generator.standard_normal((rows, 1)))
    weights = spread * generator.standard_normal((rows, columns)) * column_spread
    scales = (clip_sigmas * weights.std(axis=1, ddof=1) / largest_code(bits)).astype(np.float16)
    limit = largest_code(bits)
    codes = np.clip(np.rint(weights / scales[:, None].astype(np.float64)), -limit, limit).astype(np.int8)
    return CodedTensor(codes, scales, bits)


def synthetic_model(scale: float) -> dict[str, TensorRecord]:
    generator = np.random.default_rng(SEED)
    tensors: dict[str, TensorRecord] = {}
    tensors["embedding.weight"] = quantize(generator, max(1, round(VOCABULARY * scale)), WIDTH, 8, 20.0)
    for layer in range(LAYERS):
        for name, (rows, columns) in MATRICES.items():
            tensors[f"blocks.{layer}.{name}.weight"] = quantize(generator, max(1, round(rows * scale)), columns, 6, 12.85)
        for name, shape in CONTROLS.items():
            values = 1 + 0.2 * generator.standard_normal(shape)
            tensors[f"blocks.{layer}.{name}"] = RawTensor(values.astype(np.float16))
    for name in ("skips.weight", "skips.gate"):
        tensors[name] = RawTensor((0.3 * generator.standard_normal((7, WIDTH))).astype(np.float16))
    return tensors


def timed(action: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = action()
    return time.perf_counter() - start, result


def leading_codes(codes: list[np.ndarray], count: int) -> bytes:
    total = sum(array.size for array in codes)
    return b"".join(array.reshape(-1)[: round(array.size * min(1.0, count / total))].tobytes() for array in codes)


def run(scale: float, subset: int) -> dict[str, Any]:
    tensors = synthetic_model(scale)
    codes = [record.codes for record in tensors.values() if isinstance(record, CodedTensor)]
    weights = sum(array.size for array in codes)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.fwz"
        processor = [time.process_time()]
        pack_seconds, report = timed(lambda: write_artifact(path, tensors, {"seed": SEED}))
        processor.append(time.process_time())
        unpack_seconds, artifact = timed(lambda: read_artifact(path))
        processor.append(time.process_time())
    for name, record in tensors.items():
        found = artifact.tensors[name]
        if isinstance(record, CodedTensor):
            assert np.array_equal(record.codes, found.codes)
            assert np.array_equal(record.scales, found.scales)
        else:
            assert record.values.tobytes() == found.values.tobytes()
    ideal = sum(float(entropy_bits(np.bincount(array.view(np.uint8).ravel(), minlength=256))) for array in codes) / weights
    ours = 8 * report.code_bytes / weights
    rows = {"fairway": {"bits": ours, "pack": 1e6 * pack_seconds / weights, "unpack": 1e6 * unpack_seconds / weights}}
    sample = leading_codes(codes, subset)
    others: dict[str, tuple[Callable[[bytes], bytes], Callable[[bytes], bytes]]] = {
        "brotli 11, window 24": (lambda data: brotli.compress(data, quality=11, lgwin=24), brotli.decompress),
        "lzma 9 extreme": (lambda data: lzma.compress(data, preset=9 | lzma.PRESET_EXTREME), lzma.decompress),
    }
    for name, (compress, decompress) in others.items():
        seconds, packed = timed(lambda compress=compress: compress(sample))
        back, data = timed(lambda decompress=decompress, packed=packed: decompress(packed))
        assert data == sample
        rows[name] = {
            "bits": 8 * len(packed) / len(sample),
            "pack": 1e6 * seconds / len(sample),
            "unpack": 1e6 * back / len(sample),
        }
    return {
        "weights": weights,
        "subset": len(sample),
        "artifact_bytes": report.total_bytes,
        "scale_bytes": report.scale_bytes,
        "control_bytes": report.control_bytes,
        "other_bytes": report.total_bytes - report.code_bytes - report.scale_bytes - report.control_bytes,
        "pack_seconds": pack_seconds,
        "unpack_seconds": unpack_seconds,
        "pack_processor_seconds": processor[1] - processor[0],
        "unpack_processor_seconds": processor[2] - processor[1],
        "entropy_bits_per_code": ideal,
        "codes_above_entropy": ours / ideal - 1,
        "coders": rows,
        "code_bytes_against": {name: ours / row["bits"] for name, row in rows.items() if name != "fairway"},
        "pack_speed_against": {name: row["pack"] / rows["fairway"]["pack"] for name, row in rows.items() if name != "fairway"},
    }


def main() -> int:
    parser = argparse.ArgumentParser(description="Pack and unpack 36 million weights.")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the rows of every matrix")
    parser.add_argument("--subset", type=int, default=2_000_000, help="codes that brotli and lzma compress")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    arguments = parser.parse_args()
    result = run(arguments.scale, arguments.subset)
    within = max(result["pack_seconds"], result["unpack_seconds"]) < LIMIT_SECONDS
    if arguments.json:
        print(json.dumps(result, indent=2))
    else:
        print_table(result, within)
    return 0 if within else 1


def print_table(result: dict[str, Any], within: bool) -> None:
    print(
        f"{result['weights']:,} weights: pack {result['pack_seconds']:.2f} s, unpack {result['unpack_seconds']:.2f} s "
        f"wall, {result['pack_processor_seconds']:.2f} and {result['unpack_processor_seconds']:.2f} s of one processor "
        f"(limit {LIMIT_SECONDS:.0f} s each: {'met' if within else 'MISSED'})"
    )
    print(
        f"artifact {result['artifact_bytes']:,} bytes: scales {result['scale_bytes']:,}, controls {result['control_bytes']:,}, "
        f"header, manifest and tables {result['other_bytes']:,}"
    )
    print(f"codes {100 * result['codes_above_entropy']:+.4f} % against the order-0 entropy of each tensor")
    print(f"{'coder':22} {'bits/code':>10} {'pack s/M':>10} {'unpack s/M':>11} {'our bytes':>10} {'our pack speed':>15}")
    for name, row in result["coders"].items():
        ratio = result["code_bytes_against"].get(name, 1.0)
        speed = result["pack_speed_against"].get(name, 1.0)
        print(f"{name:22} {row['bits']:10.4f} {row['pack']:10.3f} {row['unpack']:11.3f} {ratio:10.4f} {speed:14.1f}x")


if __name__ == "__main__":
    sys.exit(main())

"""Do the published systems fit the byte cap with our container and our packed source? Bytes at full size, in one run.

    python benchmarks/bench_budget.py [--recipes pr1413 pr1533 pr1776 pr1557] [--no-reference]

No trained full-size weights are at hand, so every matrix of the recipe's network is drawn: Gaussian, row spreads lognormal
with 0.3, column energies lognormal with 1 as the Hessian's diagonal; the seed is stored below. The codes are those of the
recipe's own clip rule. They are packed twice: by our container, and as those systems did it (a pickled archive of int8 codes
and float16 scales, bytes shuffled with stride 2, brotli 11). The ratio of the two, applied to the model bytes that the
system's own log states for trained weights, is the estimate for a real run; the exit code is 1 if one lands above the cap.
"""

import argparse
import io
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import brotli
import numpy as np
import torch
from torch import Tensor

from fairway.artifact.bundle import bundle
from fairway.artifact.container import write_artifact
from fairway.artifact.records import CodedTensor, RawTensor, TensorRecord
from fairway.config import Recipe
from fairway.model.gpt import GPT
from fairway.quant.clip import sdclip
from fairway.quant.grid import round_to_codes
from fairway.quant.plan import make_plan
from fairway.recipes import recipe

SEED = 1557
LOGGED_BYTES = {"pr1413": 15_975_827, "pr1533": 15_969_070, "pr1776": 15_973_790, "pr1557": 15_965_495}
"""Largest model bytes over the seeds of each system's logs."""


def draw(full: Recipe) -> dict[str, TensorRecord]:
    """Codes and controls of the recipe's network, from the stored seed."""
    generator = torch.Generator().manual_seed(SEED)
    with torch.device("meta"):
        shapes = {name: tuple(parameter.shape) for name, parameter in GPT(full.model).named_parameters()}
    tensors: dict[str, TensorRecord] = {}
    for name, scheme in make_plan(shapes, full.quant).schemes.items():
        shape = shapes[name]
        values = torch.randn(shape, generator=generator)
        if scheme is None:
            tensors[name] = RawTensor((1 + 0.2 * values).to(torch.float16).numpy())
            continue
        weight = 0.02 * torch.exp(0.3 * torch.randn(shape[0], 1, generator=generator)) * values
        scales = sdclip(weight, torch.exp(torch.randn(shape[1], generator=generator)), scheme)
        codes = round_to_codes(weight, scales, scheme.bits)
        tensors[name] = CodedTensor(codes.numpy(), scales.numpy(), scheme.bits)
    return tensors


def reference_bytes(tensors: dict[str, TensorRecord]) -> int:
    """Size of the same tensors as the published systems pack them: pickle, stride-2 shuffle, brotli 11."""
    archive: dict[str, Tensor] = {}
    for name, record in tensors.items():
        if isinstance(record, CodedTensor):
            archive[f"{name}.q"], archive[f"{name}.scale"] = torch.from_numpy(record.codes), torch.from_numpy(record.scales)
        else:
            archive[name] = torch.from_numpy(np.array(record.values))
    stream = io.BytesIO()
    torch.save(archive, stream)
    plain = np.frombuffer(stream.getvalue(), dtype=np.uint8)
    return len(brotli.compress(plain[0::2].tobytes() + plain[1::2].tobytes(), quality=11))


def measure(name: str, code: int, *, reference: bool) -> dict[str, Any]:
    """Bytes of one recipe."""
    full = recipe(name)
    tensors = draw(full)
    with tempfile.TemporaryDirectory() as folder:
        ours = write_artifact(Path(folder) / "model.fwz", tensors, {"seed": SEED}).total_bytes
    row: dict[str, Any] = {"recipe": name, "ours": ours, "slack": full.artifact.byte_cap - ours - code}
    if reference:
        start = time.perf_counter()
        row["theirs"] = reference_bytes(tensors)
        row["seconds"] = time.perf_counter() - start
        row["estimate"] = round(LOGGED_BYTES[name] * ours / row["theirs"]) + code
        row["estimate_slack"] = full.artifact.byte_cap - row["estimate"]
    return row


def main() -> int:
    parser = argparse.ArgumentParser(description="Bytes of the published systems at full size.")
    parser.add_argument("--recipes", nargs="+", default=list(LOGGED_BYTES), choices=list(LOGGED_BYTES))
    parser.add_argument("--no-reference", action="store_true", help="leave out brotli, which takes minutes")
    arguments = parser.parse_args()
    code = len(bundle())
    print(f"code, all that a run imports, packed: {code:,} bytes; cap 16,000,000")
    fits = True
    for name in arguments.recipes:
        row = measure(name, code, reference=not arguments.no_reference)
        line = f"{name}: drawn weights {row['ours']:,} bytes, slack with code {row['slack']:+,}"
        if "theirs" in row:
            line += (
                f"; published pipeline {row['theirs']:,} ({row['ours'] / row['theirs']:.4f} of it, {row['seconds']:.0f} s); "
                f"trained weights would total {row['estimate']:,}, slack {row['estimate_slack']:+,}"
            )
        fits &= row.get("estimate_slack", row["slack"]) >= 0
        print(line, flush=True)
    return 0 if fits else 1


if __name__ == "__main__":
    sys.exit(main())

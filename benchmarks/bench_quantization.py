"""Bits per byte against bytes on trained weights: scalar GPTQ with SDClip and brotli, and trellis with our container.

    python benchmarks/bench_quantization.py RUN... [--data DIR] [--tokens 65536] [--out curves.json] [--plot curves.png]

Each run folder holds trained weights. They are calibrated once and packed at several sizes by either scheme; every size is
that of a whole file. The scalar scheme scales its published steps and goes through the pipeline of PR #1413 (pickled
dictionary, byte shuffle, brotli 11), and for comparison through our container too, so that coder and quantizer are told apart.
Bits per byte are those of the plain pass on the leading validation text. Then, at the published step size: what share of the
loss by quantization goes at equal bytes, and how many bytes at equal bits per byte, interpolated on the scalar curve.
"""

import argparse
import json
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench_container import pr1413
from fairway.artifact.adapter import records_from_state
from fairway.artifact.container import encode
from fairway.base.runs import RunFolder
from fairway.base.values import with_fields
from fairway.config import QuantConfig, Recipe, SchemeConfig
from fairway.data.dataset import Dataset
from fairway.model.gpt import GPT
from fairway.quant.hessian import Hessians, collect_hessians
from fairway.quant.plan import make_plan
from fairway.quant.quantize import Quantizer, dequantize
from fairway.quant.sensitivity import collect_sensitivities
from fairway.quant.types import QuantizedState
from fairway.score.passes import run_pass, select_text
from fairway.stages import load_weights
from fairway.train.batches import calibration_batches
from fairway.train.distributed import ONE_RANK
from fairway.walk import open_recipe

FACTORS = (0.8, 1.0, 1.25, 1.6, 2.0, 2.6)
"""On all steps of a scheme."""
TRELLIS = SchemeConfig(states=8, centroids=True, scale_grid=8, column_steps="conditional")
SENSITIVITY_BATCHES = 16
PUBLISHED, OURS, CODED = "scalar + brotli", "trellis + container", "scalar + container"

State = dict[str, torch.Tensor]


def trellis_config(published: QuantConfig) -> QuantConfig:
    """The calibration of a recipe, a trellis in place of its schemes, and steps by sensitivity; factors set the size."""
    kept = {name: getattr(published, name) for name in ("calibration_batches", "damping", "gates")}
    schemes = dict.fromkeys(("attention", "mlp", "embedding"), TRELLIS)
    return QuantConfig(**kept, **schemes, sensitivity_batches=SENSITIVITY_BATCHES, target_bytes=1)


def brotli_bytes(state: QuantizedState) -> int:
    """Size in the pipeline of PR #1413."""
    return pr1413(records_from_state(state))


def container_bytes(state: QuantizedState) -> int:
    """Size of our file, with an empty header."""
    return len(encode(records_from_state(state), {}))


def calibrate(model: GPT, recipe: Recipe, dataset: Dataset) -> Hessians:
    """Moments of all inputs and gradients by all outputs, from training text."""

    def batches(count: int) -> Iterable[torch.Tensor]:
        return calibration_batches(dataset, recipe.train, count, ONE_RANK, torch.device("cpu"))

    hessians = collect_hessians(model, batches(recipe.quant.calibration_batches), recurrent=True)
    hessians.sensitivities = collect_sensitivities(model, batches(SENSITIVITY_BATCHES), recurrent=True)
    return hessians


def curves(folder: Path, data: Path | None, tokens: int) -> dict[str, Any]:
    """Bytes and bits per byte of one run at all sizes, by scheme, and those of the weights before quantization."""
    run = RunFolder(folder)
    recipe = open_recipe(run)
    dataset = Dataset.open(run.data_folder(data))
    score = replace(recipe.score, max_tokens=tokens, mode="strict")
    text = select_text(dataset.validation(), score)
    weights = {name: tensor.float() for name, tensor in load_weights(run.weights).items()}
    model = GPT(recipe.model)

    def bits_per_byte(state: State) -> float:
        model.load_state_dict(state)
        model.eval()
        ledger = run_pass("plain", model, text, score)
        return ledger.total_nats / math.log(2) / ledger.total_bytes

    floating = bits_per_byte(weights)
    hessians = calibrate(model, recipe, dataset)
    schemes: tuple[tuple[QuantConfig, dict[str, Callable[[QuantizedState], int]]], ...] = (
        (recipe.quant, {PUBLISHED: brotli_bytes, CODED: container_bytes}),
        (trellis_config(recipe.quant), {OURS: container_bytes}),
    )
    points: dict[str, list[tuple[float, int, float]]] = {}
    seconds: dict[str, float] = {}
    for config, sizes in schemes:
        for factor in FACTORS:
            began = time.perf_counter()
            state = _quantized(weights, config, hessians, factor)
            took = time.perf_counter() - began
            bits = bits_per_byte(dequantize(state))
            for name, size in sizes.items():
                points.setdefault(name, []).append((factor, size(state), bits))
                seconds[name] = seconds.get(name, 0.0) + took / len(FACTORS)
            print(
                f"{folder.name} factor {factor}: {bits:.5f} bpb, {', '.join(str(points[name][-1][1]) for name in sizes)} bytes"
            )
    return {"run": folder.name, "float": floating, "points": points, "seconds": seconds}


def _quantized(weights: State, config: QuantConfig, hessians: Hessians, factor: float) -> QuantizedState:
    """The factor is on the steps; a scalar scheme has them by its sigmas, so that its clips stay those of the steps."""
    if config.target_bytes:
        return Quantizer(weights, make_plan(weights, config), hessians).quantize(factor)
    wider = {f"{name}.clip_sigmas": factor * getattr(config, name).clip_sigmas for name in ("attention", "mlp", "embedding")}
    return Quantizer(weights, make_plan(weights, with_fields(config, wider)), hessians).quantize()


def gains(found: dict[str, Any]) -> dict[str, dict[str, float]]:
    """At the published step size: share of the loss removed at equal bytes, and bytes saved at equal bits per byte."""
    published = sorted((size, bits - found["float"]) for _, size, bits in found["points"][PUBLISHED])
    (size, loss) = next((size, bits - found["float"]) for factor, size, bits in found["points"][PUBLISHED] if factor == 1.0)
    result = {}
    for name in (CODED, OURS):
        ours = sorted((size, bits - found["float"]) for _, size, bits in found["points"][name])
        sizes, losses = np.array(ours).T
        at_size = math.exp(np.interp(size, sizes, np.log(np.maximum(losses, 1e-9))))
        at_loss = float(np.interp(-math.log(loss), -np.log(np.maximum(losses, 1e-9)), sizes))
        inside = sizes[0] <= size <= sizes[-1], min(losses) <= loss <= max(losses)
        result[name] = {
            "loss_removed": 1 - at_size / loss if inside[0] else math.nan,
            "bytes_saved": 1 - at_loss / size if inside[1] else math.nan,
        }
    assert published[0][0] < size < published[-1][0], "the published size lies on its own curve"
    return result


def plot(results: list[dict[str, Any]], path: Path) -> None:
    """Loss by quantization against bytes, both on log scales."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, 3.4), dpi=180, layout="constrained")
    axes = figure.add_subplot()
    styles = {PUBLISHED: ("#7f7f7f", "o"), CODED: ("#e69f00", "^"), OURS: ("#0072b2", "s")}
    for number, found in enumerate(results):
        for name, (colour, marker) in styles.items():
            _, sizes, bits = zip(*sorted(found["points"][name], key=lambda point: point[1]), strict=True)
            losses = [value - found["float"] for value in bits]
            axes.plot(sizes, losses, color=colour, marker=marker, ms=3.5, lw=1.1, label=name if number == 0 else None)
    axes.set(xscale="log", yscale="log", xlabel="bytes of the weights", ylabel="bits per byte lost by quantization")
    axes.grid(visible=True, which="both", color="#dddddd", lw=0.5)
    axes.legend(frameon=False)
    figure.savefig(path, metadata={"Software": None})


def main() -> None:
    """Measure, print, and write what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--tokens", type=int, default=65536)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--plot", type=Path)
    given = parser.parse_args()
    results = []
    for folder in given.runs:
        found = curves(folder, given.data, given.tokens)
        found["gains"] = gains(found)
        results.append(found)
        for name, values in found["gains"].items():
            print(
                f"{found['run']}: {name} removes {values['loss_removed']:.1%} of the loss at equal bytes, "
                f"saves {values['bytes_saved']:.1%} of the bytes at equal bpb"
            )
    if given.out:
        given.out.write_text(json.dumps(results, indent=1))
    if given.plot:
        plot(results, given.plot)


if __name__ == "__main__":
    main()

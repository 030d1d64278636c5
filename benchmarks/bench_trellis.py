"""Trellis-coded quantization against rounding: decibels at equal conditional entropy, bits, and seconds, in one run.

On Gaussian samples and on Gaussian matrices inside GPTQ with three Hessian spectra: all directions equal, a power law with
exponent 1, a sixteenth of the directions over noise. Conditional entropy: of codes whose parity the state of the trellis tells.
The error of the scalar quantizer is taken at the same entropy, between two steps on either side. Seconds are those of the paths
alone, on one core, the median of several calls, next to the time of plain rounding in the same run.
Run: ``python benchmarks/bench_trellis.py [--samples 400000] [--rows 2048] [--columns 512] [--states 4 8 16 64]``.
"""

import argparse
import math
import statistics
import time
from dataclasses import replace

import numpy as np
import torch

from fairway.config import SchemeConfig
from fairway.quant.gptq import damped, factorize
from fairway.quant.matrix import Calibrated, quantize_matrix
from fairway.quant.rates import pilot
from fairway.quant.report import code_entropy, hessian_error, path_entropy
from fairway.quant.trellis import PathEncoder

SPECTRA = ("white", "power law", "low rank")
BITS_PER_DECIBEL = 1 / (20 * math.log10(2))
COLUMNS = 50
TRELLIS = SchemeConfig(states=8, centroids=True, scale_grid=8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=400_000)
    parser.add_argument("--rows", type=int, default=2048)
    parser.add_argument("--columns", type=int, default=512)
    parser.add_argument("--states", type=int, nargs="+", default=[4, 8, 16, 64])
    parser.add_argument("--step", type=float, default=0.205, help="of the grid, in standard deviations")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    weight = torch.randn(arguments.rows, arguments.columns, generator=torch.Generator().manual_seed(arguments.seed))
    cases = {name: Case(weight, spectrum(name, arguments.columns, arguments.seed)) for name in SPECTRA}
    print(
        f"{'states':>6}  {'samples':>18}" + "".join(f"  {name:>18}" for name in SPECTRA) + "  seconds per million  x rounding"
    )
    for states in arguments.states:
        decibels, entropy, seconds, rounding = samples_gain(states, arguments)
        cells = [cell(decibels, entropy), *(cell(*case.gain(states)) for case in cases.values())]
        print(f"{states:>6}" + "".join(f"  {text:>18}" for text in cells) + f"  {seconds:>19.3f}  {seconds / rounding:>10.1f}")
    print("each cell: decibels at equal entropy = bits per weight saved, at that entropy in bits per weight")


def cell(decibels: float, entropy: float) -> str:
    return f"{decibels:.3f}={decibels * BITS_PER_DECIBEL:.3f} at {entropy:.2f}"


def spectrum(name: str, columns: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    basis, _ = torch.linalg.qr(torch.randn(columns, columns, generator=generator, dtype=torch.float64))
    values = {
        "white": torch.ones(columns, dtype=torch.float64),
        "power law": torch.arange(1, columns + 1, dtype=torch.float64) ** -1.0,
        "low rank": 0.05 + (torch.arange(columns) < columns // 16).double(),
    }[name]
    hessian = ((basis * values) @ basis.T).float()
    return (hessian + hessian.T) / 2


def samples_gain(states: int, arguments: argparse.Namespace) -> tuple[float, float, float, float]:
    """Decibels, entropy, and seconds per million samples of paths and of rounding."""
    rows = arguments.samples // COLUMNS
    values = np.random.default_rng(arguments.seed).standard_normal((rows, COLUMNS)) / arguments.step
    gain, prices = pilot(values, np.ones(rows), states, centroids=True)
    encoder, columns = PathEncoder(states, rows), np.ascontiguousarray(values.T) / gain
    spent, plain, paths = [], [], []
    for _ in range(arguments.rounds):
        began = time.perf_counter()
        paths = [encoder.encode(column, prices.of_column(index)) for index, column in enumerate(columns)]
        between = time.perf_counter()
        for column in columns:
            np.rint(column).astype(np.int16)
        spent.append(between - began)
        plain.append(time.perf_counter() - between)
    codes = np.stack(paths, axis=1)
    entropy, error = path_entropy(torch.from_numpy(codes)), float(np.square(values - gain * codes).mean())
    decibels = 10 * math.log10(rounding_error(values.ravel(), entropy) / error)
    millions = rows * COLUMNS / 1e6
    return decibels, entropy, statistics.median(spent) / millions, statistics.median(plain) / millions


def rounding_error(values: np.ndarray, entropy: float) -> float:
    """Mean squared error of rounding with the step whose codes have this entropy."""
    low, high, step, codes = 1e-3, 1e3, 1.0, values
    for _ in range(45):
        step = math.sqrt(low * high)
        codes = np.rint(values / step)
        finer = code_entropy(torch.from_numpy(codes.clip(-30000, 30000).astype(np.int16))) > entropy
        low, high = (step, high) if finer else (low, step)
    return float(np.square(values - step * codes).mean())


class Case:
    """One matrix with one Hessian, and the scalar points near the rate of the trellis."""

    def __init__(self, weight: torch.Tensor, hessian: torch.Tensor) -> None:
        self.weight, self.known = weight, Calibrated(hessian, factorize(hessian, 0.01))
        self.matrix, _ = damped(hessian, 0.01)
        self.scalar = sorted(self.point(SchemeConfig(clip_sigmas=sigmas)) for sigmas in (12.3, 12.85, 13.4))

    def point(self, scheme: SchemeConfig) -> tuple[float, float]:
        """Conditional entropy in bits per weight and error of the outputs in decibels."""
        tensor = quantize_matrix(self.weight, scheme, self.known)
        entropy = path_entropy(tensor.codes) if scheme.states else code_entropy(tensor.codes)
        return entropy, 10 * math.log10(hessian_error(self.weight - tensor.dequantize(), self.matrix))

    def gain(self, states: int) -> tuple[float, float]:
        """Decibels below the scalar quantizer, and the entropy at which both are compared."""
        entropy, decibels = self.point(replace(TRELLIS, states=states))
        return float(np.interp(entropy, *zip(*self.scalar, strict=True))) - decibels, entropy


if __name__ == "__main__":
    main()

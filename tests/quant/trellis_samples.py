"""Gaussian matrices, three spectra, and errors at equal entropy, for the tests of trellis quantization."""

import math

import numpy as np
import torch

from fairway.config import SchemeConfig
from fairway.quant.gptq import damped, factorize
from fairway.quant.matrix import Calibrated, quantize_matrix
from fairway.quant.rates import pilot
from fairway.quant.report import code_entropy, hessian_error, path_entropy
from fairway.quant.trellis import PathEncoder

SPECTRA = ("white", "power", "low_rank")
STEP = 0.205
"""Step of the grid in standard deviations for 3.33 bits, as in the published measurement."""


def hessian_of(spectrum: str, columns: int, seed: int = 0) -> torch.Tensor:
    """A Hessian with random directions: all equal, a power law with exponent 1, or a sixteenth of them over noise."""
    generator = torch.Generator().manual_seed(seed)
    basis, _ = torch.linalg.qr(torch.randn(columns, columns, generator=generator, dtype=torch.float64))
    values = {
        "white": torch.ones(columns, dtype=torch.float64),
        "power": torch.arange(1, columns + 1, dtype=torch.float64) ** -1.0,
        "low_rank": 0.05 + (torch.arange(columns) < columns // 16).double(),
    }[spectrum]
    hessian = ((basis * values) @ basis.T).float()
    return (hessian + hessian.T) / 2


def gaussian(rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def scalar_error(samples: np.ndarray, entropy: float) -> float:
    """Mean squared error of plain rounding at the step whose codes have this entropy, found by bisection."""
    low, high = 1e-3, 8.0
    for _ in range(40):
        step = math.sqrt(low * high)
        codes = np.rint(samples / step)
        if code_entropy(torch.from_numpy(codes).to(torch.int16)) > entropy:
            low = step
        else:
            high = step
    return float(np.square(samples - step * codes).mean())


def plain_gain(states: int, samples: int, seed: int = 0, step: float = STEP) -> tuple[float, float]:
    """Decibels that paths over Gaussian samples gain over rounding at equal conditional entropy, and that entropy."""
    values = np.random.default_rng(seed).standard_normal((samples // 50, 50)) / step
    gain, prices = pilot(values, np.ones(len(values)), states, centroids=True)
    encoder = PathEncoder(states, len(values))
    paths = [encoder.encode(np.ascontiguousarray(column) / gain, prices.of_column(i)) for i, column in enumerate(values.T)]
    codes = np.stack(paths, axis=1)
    error = float(np.square(values - gain * codes).mean()) * step**2
    entropy = path_entropy(torch.from_numpy(codes))
    return 10 * math.log10(scalar_error(values.ravel() * step, entropy) / error), entropy


def gptq_gain(states: int, weight: torch.Tensor, hessian: torch.Tensor) -> float:
    """Decibels of ``tr(E H E^T)`` that the trellis gains inside GPTQ over scalar GPTQ at equal conditional entropy."""
    known = Calibrated(hessian, factorize(hessian, 0.01))
    matrix, _ = damped(hessian, 0.01)

    def point(scheme: SchemeConfig) -> tuple[float, float]:
        tensor = quantize_matrix(weight, scheme, known)
        entropy = path_entropy(tensor.codes) if scheme.states else code_entropy(tensor.codes)
        return entropy, 10 * math.log10(hessian_error(weight - tensor.dequantize(), matrix))

    entropy, decibels = point(SchemeConfig(states=states, centroids=True, scale_grid=8))
    line = sorted(point(SchemeConfig(clip_sigmas=sigmas)) for sigmas in (12.5, 13.5))
    return float(np.interp(entropy, *zip(*line, strict=True))) - decibels

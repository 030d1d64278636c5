"""Matrices, networks and Hessians for the tests of quantization."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from hypothesis import strategies as st

SHARED = Path(__file__).parents[3] / "shared" / "golden" / "quant"
FOLDER = Path(__file__).parents[1] / "golden" / "quant"
MATRICES = np.load(FOLDER / "matrices.npz")
PARTS = np.load(FOLDER / "pr2140_parts.npz")
GATES = {"blocks.0.attention.gate": (2, 12)}
"""Name and shape of the gates of ``small_state``."""
DAMPING = 0.01


def golden_matrix(case: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight and Hessian; sixteenths sum exactly in float32 in any order."""
    inputs = torch.from_numpy(MATRICES[f"{case}.inputs_x16"]).float() / 16
    flat = inputs.flatten(0, 1)
    return torch.from_numpy(MATRICES[f"{case}.weight"]).float(), flat.T @ flat / len(inputs)


def correlated(rows: int, columns: int, seed: int, exponent: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    """A Gaussian matrix and a Hessian whose spectrum is a power law."""
    generator = torch.Generator().manual_seed(seed)
    basis, _ = torch.linalg.qr(torch.randn(columns, columns, generator=generator, dtype=torch.float64))
    spectrum = torch.arange(1, columns + 1, dtype=torch.float64) ** -exponent
    hessian = ((basis * spectrum) @ basis.T).float()
    return torch.randn(rows, columns, generator=generator), (hessian + hessian.T) / 2


@st.composite
def calibrated(draw):
    """A matrix and a correlated Hessian of its size."""
    rows, columns = draw(st.integers(1, 8)), draw(st.integers(6, 40))
    return correlated(rows, columns, draw(st.integers(0, 2**31)), draw(st.sampled_from([0.5, 1.0])))


def small_state(seed: int = 0, *, gates: bool = False) -> dict[str, torch.Tensor]:
    """Weights of a one-layer network, as the model room names them."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {
        "embedding.weight": (40, 16),
        "blocks.0.attention.query.weight": (16, 16),
        "blocks.0.attention.key.weight": (8, 16),
        "blocks.0.attention.value.weight": (8, 16),
        "blocks.0.attention.output.weight": (16, 16),
        "blocks.0.attention.query_gain": (2,),
        "blocks.0.mlp.up.weight": (32, 16),
        "blocks.0.mlp.down.weight": (16, 32),
        "blocks.0.attention_scale": (16,),
        "blocks.0.mlp_scale": (16,),
        "blocks.0.residual_mix": (2, 16),
        "skips.weight": (1, 16),
    }
    state = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    return state | {name: torch.randn(shape, generator=generator) for name, shape in GATES.items() if gates}


def small_hessians(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(99)
    hessians = {}
    for name, weight in state.items():
        if name.endswith(".weight") and name != "skips.weight":
            inputs = torch.randn(200, weight.shape[1], generator=generator).cumsum(dim=1)
            hessians[name] = inputs.T @ inputs
    return hessians


def input_hessians(state: dict[str, torch.Tensor], inputs: Mapping[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """Hessians of stored inputs, in sixteenths."""
    sources = {"query": "attn_in", "key": "attn_in", "value": "attn_in", "output": "proj_in", "up": "fc_in", "down": "down_in"}
    hessians = {}
    for name in state:
        part = name.split(".")[-2]
        key = "head_in" if name == "embedding.weight" else f"blocks.{name.split('.')[1]}.{sources.get(part)}"
        if key in inputs:
            x = torch.from_numpy(inputs[key]).float() / 16
            hessians[name] = x.flatten(0, 1).T @ x.flatten(0, 1) / len(x)
    return hessians

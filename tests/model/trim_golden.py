"""How tests/golden/model was made: the reference's states and outputs, trimmed and packed into one file per system.

In ``tests``: ``python -m model.trim_golden SOURCE golden/model``, where SOURCE holds ``state_PR.safetensors``, ``case_PR.npz``
and ``inputs.npz`` as the reference wrote them.
"""

import io
import re
import sys
import zipfile
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from reference_names import BANKS, PER_LAYER

LAYERS = 11
POSITIONS = slice(31, None, 32)
"""Of the logits and the last hidden rows; the loss of every token is kept."""
THINNED = 8
"""Of long gradients every eighth entry is kept; projections and norms of matrices involve all of them."""
ROTARY = ("rope_inv_freq", "rope_cos", "rope_sin")
"""The same in every system: kept with the inputs."""
DROPPED = ("left", "rows", "corner", "trace_attn", "trace_mlp", "cos_last", "sin_last", "ce", "train_loss", *ROTARY)
"""Last parts of names; the float64 losses stand for the float32 ones."""
LONG = ("attn_scale", "mlp_scale", "resid_mix", "skip_weights", "skip_gates")
"""Controls with a value per channel."""
OURS = {ours: key for key, ours in PER_LAYER.items()}


def planes(halves: np.ndarray) -> np.ndarray:
    """High bytes, then low bytes, of float16 values: the high ones alone can be compressed."""
    return np.stack([halves.view(np.uint16) >> 8, halves.view(np.uint16) & 255]).astype(np.uint8)


def state_arrays(state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Reference keys with layers stacked under ``blocks.*.``; float16 tensors as planes."""
    stacks: dict[str, list[np.ndarray]] = {}
    for key in sorted(state, key=lambda key: [int(part) if part.isdigit() else part for part in key.split(".")]):
        stacks.setdefault(re.sub(r"^blocks\.\d+\.", "blocks.*.", key), []).append(state[key])
    arrays = {key: np.stack(values) if "*" in key else values[0] for key, values in stacks.items()}
    return {f"state.{key}": planes(value) if value.dtype == np.float16 else value for key, value in arrays.items()}


def without_banks(case: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Gradients of a bank under the names of its matrices."""
    split = {}
    for name, value in case.items():
        mode, _, key = name.partition(".grad.")
        bank, _, kind = key.partition(".")
        if bank in BANKS:
            for part, ours in enumerate(BANKS[bank]):
                split[f"{mode}.grad.blocks.*.{OURS[ours]}.{kind}"] = value[part * LAYERS : (part + 1) * LAYERS]
        else:
            split[name] = value
    return split


def trimmed(case: dict[str, np.ndarray], left: np.ndarray) -> dict[str, np.ndarray]:
    """What is kept of a case; a matrix gradient G as a part of ``G right``, all of ``left G right``, and its norm."""
    kept = {}
    for name, value in without_banks(case).items():
        kind = name.rpartition(".")[2]
        if kind in DROPPED or name.startswith(("config.", "var_rope_rescaled")):
            continue
        if kind in ("logits", "final_hidden"):
            kept[name] = value[:, POSITIONS]
        elif kind == "logits_tail":
            kept[name] = value[:, -1]
        elif kind == "right":
            kept[name] = value[..., ::THINNED]
            kept[name.replace(".right", ".both")] = value @ left[: value.shape[-1]]
        elif kind in LONG:
            kept[name] = value[..., ::THINNED]
        else:
            kept[name] = value
    return kept


def write(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """An ``.npz`` file whose members are compressed by LZMA; ``numpy.load`` reads it as any other."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        for name, value in arrays.items():
            member = io.BytesIO()
            np.lib.format.write_array(member, np.asarray(value), allow_pickle=False)
            # A fixed date: the same arrays give the same bytes.
            entry = zipfile.ZipInfo(f"{name}.npy")
            entry.compress_type = zipfile.ZIP_LZMA
            archive.writestr(entry, member.getvalue())


def main(source: Path, target: Path) -> None:
    """Trim and pack the five systems."""
    inputs = dict(np.load(source / "inputs.npz"))
    cases = {system: dict(np.load(source / f"case_{system}.npz")) for system in ("1413", "1533", "1557", "1776", "2140")}
    tables = {name: cases["1413"][name] for name in ROTARY}
    kept = ("ids", "targets", "proj_right", "proj_left")
    write(target / "inputs.npz", {name: inputs[name] for name in inputs if name in kept or name.startswith("pack")} | tables)
    for system, case in cases.items():
        assert all(np.array_equal(case[name], table) for name, table in tables.items())
        state = state_arrays(load_file(source / f"state_{system}.safetensors"))
        write(target / f"pr{system}.npz", trimmed(case, inputs["proj_left"]) | state)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))

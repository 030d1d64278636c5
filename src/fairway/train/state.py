"""Resumable training state in one file: tensors as safetensors, numbers as JSON in its header, replaced atomically."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from fairway.base.errors import DataError
from fairway.base.files import atomic_path

NUMBERS_KEY = "numbers"


@dataclass(frozen=True)
class SavedState:
    """Everything that a continued run needs, without any object of the run itself."""

    tensors: dict[str, Tensor]
    numbers: dict[str, Any]


def save_state(path: Path, state: SavedState) -> None:
    """Replace ``path`` by ``state``; a kill at any moment leaves the old file or the new one."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.tensors.items()}
    # safetensors refuses two names for one storage; the copy also detaches the file from tensors that train on.
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    with atomic_path(path) as partial:
        save_file(tensors, partial, metadata={NUMBERS_KEY: json.dumps(state.numbers)})


def load_state(path: Path) -> SavedState:
    """Read a state.

    Raises:
        DataError: the file is missing, damaged, or not a state.
    """
    if not path.exists():
        raise DataError(f"{path} does not exist, so there is nothing to resume; start without --resume")
    try:
        with safe_open(path, framework="pt") as file:
            numbers = json.loads((file.metadata() or {})[NUMBERS_KEY])
            return SavedState({name: file.get_tensor(name) for name in file.keys()}, numbers)  # noqa: SIM118
    except (SafetensorError, KeyError, json.JSONDecodeError) as error:
        raise DataError(f"{path} is not a training state ({error}); delete it and start again") from None


def split_arrays(prefix: str, content: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Divide a loader's state into tensors named ``prefix + key`` and JSON-able numbers."""
    arrays = {key: value for key, value in content.items() if isinstance(value, np.ndarray)}
    numbers = {key: value for key, value in content.items() if key not in arrays}
    return {prefix + key: torch.from_numpy(value.copy()) for key, value in arrays.items()}, numbers


def join_arrays(prefix: str, tensors: dict[str, Tensor], numbers: dict[str, Any]) -> dict[str, Any]:
    """Undo ``split_arrays``."""
    arrays = {key.removeprefix(prefix): value.numpy() for key, value in tensors.items() if key.startswith(prefix)}
    return {**numbers, **arrays}

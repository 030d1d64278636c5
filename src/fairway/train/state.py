"""Resumable training state in one file: tensors as safetensors, numbers as JSON in its header, replaced atomically."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from fairway.base.errors import DataError
from fairway.base.files import write_bytes

NUMBERS_KEY = "numbers"


@dataclass(frozen=True)
class SavedState:
    """Everything that a continued run needs, without any object of the run itself."""

    tensors: dict[str, Tensor]
    numbers: dict[str, Any]


def save_state(path: Path, state: SavedState) -> None:
    """Replace ``path`` by ``state``; a kill at any moment leaves the old file or the new one."""
    save_tensors(path, state.tensors, {NUMBERS_KEY: json.dumps(state.numbers)})


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    """Write named tensors of any device as one safetensors file, atomically.

    Raises:
        MachineError: the disk is full or the folder cannot be written.
    """
    # safetensors' own file writer hides the kind of a disk error; bytes go through the writer that names it.
    content = save({name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}, metadata)
    write_bytes(path, content)


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

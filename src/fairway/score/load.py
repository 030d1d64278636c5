"""From an artifact to a network: the only file that scoring reads besides the text."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fairway.artifact.adapter import state_from_records
from fairway.artifact.container import read_artifact
from fairway.artifact.records import Artifact, RawTensor
from fairway.base.errors import ArtifactError, DataError, FairwayError
from fairway.base.values import from_dict
from fairway.config import ModelConfig, ScoreConfig
from fairway.model.gpt import GPT
from fairway.quant.quantize import dequantize
from fairway.train.machine import Machine

TOKENIZER_RECORD = "tokenizer.model"


@dataclass(frozen=True)
class PackedModel:
    """An artifact that has been read and checked."""

    path: Path
    artifact: Artifact
    model: ModelConfig
    score: ScoreConfig

    @property
    def header(self) -> dict[str, Any]:
        """Recipe name, seed, fingerprints and settings that travel with the weights."""
        return self.artifact.header

    @property
    def tokenizer(self) -> bytes | None:
        """The tokenizer's model file, if the artifact carries it."""
        record = self.artifact.tensors.get(TOKENIZER_RECORD)
        return record.values.tobytes() if isinstance(record, RawTensor) else None

    def require_tokenizer(self, sha256: str, where: str) -> None:
        """Refuse text that was encoded by another tokenizer than the model's.

        Raises:
            DataError: names both.
        """
        wanted = self.header["tokenizer_sha256"]
        if wanted != sha256:
            raise DataError(
                f"{self.path} was trained with tokenizer {wanted[:12]}, but {where} has {sha256[:12]}; "
                "a model and its token shards are a matched pair"
            )

    def build(self, machine: Machine) -> GPT:
        """A fresh network with the packed weights, on the machine's device."""
        model = GPT(self.model)
        weights = {name: record for name, record in self.artifact.tensors.items() if name != TOKENIZER_RECORD}
        shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
        Artifact(self.header, weights).require_shapes(shapes)
        model.load_state_dict(dequantize(state_from_records(weights)))
        return place(model, machine, embedding_bfloat16=bool(self.header["embedding_bfloat16"]))


def place(model: GPT, machine: Machine, *, embedding_bfloat16: bool) -> GPT:
    """Move a float32 network to the device with the types that training used there."""
    model.to(machine.device)
    model.compute_dtype = machine.activations
    model.use_attention(machine.attention)
    if machine.activations == torch.bfloat16 and embedding_bfloat16:
        model.embedding.weight.data = model.embedding.weight.data.bfloat16()
    return model


def load_packed(path: Path) -> PackedModel:
    """Read and check an artifact.

    Raises:
        ArtifactError: the file is damaged, or its settings are not those of a network that this version knows.
    """
    artifact = read_artifact(path)
    try:
        model = from_dict(ModelConfig, artifact.header["model"])
        score = from_dict(ScoreConfig, artifact.header["score"])
    except (KeyError, FairwayError) as error:
        raise ArtifactError(f"{path}: the header does not describe a network ({error}); pack the run again") from None
    return PackedModel(path, artifact, model, score)

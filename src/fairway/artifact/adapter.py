"""Between the quantized state of the network, on torch, and the records of the container, on NumPy."""

from collections.abc import Mapping

import torch

from fairway.artifact.records import CodedTensor, RawTensor, TensorRecord
from fairway.base.errors import ArtifactError
from fairway.quant.types import QuantizedState, QuantizedTensor


def records_from_state(state: QuantizedState) -> dict[str, TensorRecord]:
    """Records of a quantized network: its matrices in their order, then its controls.

    Raises:
        ArtifactError: a name stands for a matrix and for a control.
    """
    records: dict[str, TensorRecord] = {}
    for name, tensor in state.tensors.items():
        records[name] = CodedTensor(tensor.codes.cpu().numpy(), tensor.scales.cpu().numpy(), tensor.bits)
    for name, control in state.controls.items():
        if name in records:
            raise ArtifactError(f"tensor {name} is both quantized and a control; give it one scheme in quant.plan")
        records[name] = RawTensor(control.detach().cpu().numpy())
    return records


def state_from_records(records: Mapping[str, TensorRecord]) -> QuantizedState:
    """The quantized network of an artifact, in memory of its own; it carries no reports.

    Raises:
        ArtifactError: a plain array is not float16, so it is no control of a network.
    """
    tensors, controls = {}, {}
    for name, record in records.items():
        if isinstance(record, CodedTensor):
            codes, scales = torch.from_numpy(record.codes.copy()), torch.from_numpy(record.scales.copy())
            tensors[name] = QuantizedTensor(codes, scales, record.bits)
        elif record.values.dtype == "float16":
            controls[name] = torch.from_numpy(record.values.copy())
        else:
            raise ArtifactError(f"tensor {name} is {record.values.dtype}, not the float16 of a control; pack the run again")
    return QuantizedState(tensors=tensors, controls=controls)

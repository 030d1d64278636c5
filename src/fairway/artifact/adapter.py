"""Between the quantized state of the network, on torch, and the records of the container, on NumPy."""

from collections.abc import Mapping

import numpy as np
import torch

from fairway.artifact.records import CodedTensor, Protected, RawTensor, Repair, TensorRecord
from fairway.base.errors import ArtifactError
from fairway.quant.types import LowRank, ProtectedColumns, QuantizedState, QuantizedTensor, ScaledCodes


def records_from_state(state: QuantizedState) -> dict[str, TensorRecord]:
    """Records of a quantized network: its matrices in their order, then its controls.

    Raises:
        ArtifactError: a name stands for a matrix and for a control.
    """
    records: dict[str, TensorRecord] = {}
    for name, tensor in state.tensors.items():
        records[name] = _record(tensor)
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
            tensors[name] = _tensor(record)
        elif record.values.dtype == "float16":
            controls[name] = _own(record.values)
        else:
            raise ArtifactError(f"tensor {name} is {record.values.dtype}, not the float16 of a control; pack the run again")
    return QuantizedState(tensors=tensors, controls=controls)


def _record(tensor: QuantizedTensor) -> CodedTensor:
    protected, repair = None, None
    if tensor.protected is not None:
        finer = tensor.protected
        protected = Protected(finer.starts, finer.size, finer.bits, finer.scales.cpu().numpy())
    if tensor.repair is not None:
        factors = (tensor.repair.left, tensor.repair.right)
        repair = Repair(*(array.cpu().numpy() for factor in factors for array in (factor.codes, factor.scales)))
    codes, scales = tensor.codes.cpu().numpy(), tensor.scales.cpu().numpy()
    columns = None if tensor.column_scales is None else tensor.column_scales.cpu().numpy()
    return CodedTensor(codes, scales, tensor.bits, protected, repair, tensor.trellis, tensor.gain, tensor.scale_grid, columns)


def _tensor(record: CodedTensor) -> QuantizedTensor:
    protected, repair = None, None
    if record.protected is not None:
        finer = record.protected
        protected = ProtectedColumns(finer.starts, finer.size, finer.bits, _own(finer.scales))
    if record.repair is not None:
        left = ScaledCodes(_own(record.repair.left_codes), _own(record.repair.left_scales))
        repair = LowRank(left, ScaledCodes(_own(record.repair.right_codes), _own(record.repair.right_scales)))
    codes, scales = _own(record.codes), _own(record.scales)
    columns = None if record.column_scales is None else _own(record.column_scales)
    return QuantizedTensor(
        codes, scales, record.bits, protected, repair, record.trellis, record.gain, record.scale_grid, columns
    )


def _own(array: np.ndarray) -> torch.Tensor:
    """A tensor in memory of its own."""
    return torch.from_numpy(array.copy())

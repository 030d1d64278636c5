"""From the quantized network to the file and back, bit for bit."""

import pytest
import torch
from artifact_samples import binomial_codes, on_grid, path_codes

from fairway.artifact.adapter import records_from_state, state_from_records
from fairway.artifact.container import decode, encode
from fairway.artifact.records import CodedTensor, RawTensor
from fairway.base.errors import ArtifactError
from fairway.quant.types import LowRank, ProtectedColumns, QuantizedState, QuantizedTensor, ScaledCodes


def quantized(rows, columns, bits, seed):
    generator = torch.Generator().manual_seed(seed)
    limit = 2 ** (bits - 1) - 1
    codes = torch.randint(-limit, limit + 1, (rows, columns), generator=generator, dtype=torch.int8)
    return QuantizedTensor(codes, torch.rand(rows, generator=generator).add(0.01).half(), bits)


def test_a_network_comes_back_through_the_file():
    state = QuantizedState(
        tensors={"embedding.weight": quantized(20, 8, 8, 1), "blocks.0.mlp.up.weight": quantized(16, 8, 6, 2)},
        controls={"blocks.0.mlp_scale": torch.randn(8).half(), "skips.weight": torch.zeros(0, 8).half()},
    )
    found = state_from_records(decode(encode(records_from_state(state), {})).tensors)
    assert list(found.tensors) == list(state.tensors)
    assert list(found.controls) == list(state.controls)
    for name, tensor in state.tensors.items():
        assert torch.equal(found.tensors[name].codes, tensor.codes)
        assert torch.equal(found.tensors[name].scales.view(torch.int16), tensor.scales.view(torch.int16))
        assert torch.equal(found.tensors[name].dequantize(), tensor.dequantize())
    for name, control in state.controls.items():
        assert torch.equal(found.controls[name].view(torch.int16), control.view(torch.int16))


def runs(rows, columns, scales, seed):
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(-8, 8, (rows, columns), generator=generator, dtype=torch.int8)
    return ScaledCodes(codes, torch.rand(scales, generator=generator).add(0.01).half())


def test_protected_columns_repairs_and_gates_come_back_bit_for_bit():
    plain = quantized(20, 32, 6, 1)
    codes = plain.codes.clone()
    codes[:, 8:16] = quantized(20, 8, 8, 2).codes
    codes[:, 24:] = quantized(20, 8, 8, 3).codes
    protected = ProtectedColumns((8, 24), 8, 8, (plain.scales.float() * 31 / 127).half())
    repair = LowRank(runs(20, 4, 1, 4), runs(4, 32, 2, 5))
    state = QuantizedState(
        tensors={
            "embedding.weight": QuantizedTensor(codes, plain.scales, 6, protected, repair),
            "blocks.0.mlp.up.weight": QuantizedTensor(codes, plain.scales, 6, protected),
            "blocks.0.mlp.down.weight": QuantizedTensor(plain.codes, plain.scales, 6, repair=repair),
            "blocks.0.attention.gate": quantized(2, 12, 8, 6),
        },
        controls={},
    )
    found = state_from_records(decode(encode(records_from_state(state), {})).tensors)
    assert list(found.tensors) == list(state.tensors)
    for name, tensor in state.tensors.items():
        other = found.tensors[name]
        assert torch.equal(other.dequantize(), tensor.dequantize())
        assert torch.equal(other.codes, tensor.codes)
        assert (other.protected is None, other.repair is None) == (tensor.protected is None, tensor.repair is None)
        if tensor.protected is not None:
            assert torch.equal(other.protected.scales.view(torch.int16), tensor.protected.scales.view(torch.int16))


def test_transposed_tensors_keep_their_values():
    codes = quantized(6, 4, 6, 3).codes.T
    records = records_from_state(
        QuantizedState({"w": QuantizedTensor(codes, torch.ones(4).half(), 6)}, {"c": torch.randn(3, 5).half().T})
    )
    found = state_from_records(decode(encode(records, {})).tensors)
    assert torch.equal(found.tensors["w"].codes, codes)
    assert found.controls["c"].shape == (5, 3)


def test_names_are_unique_and_controls_are_float16():
    tensor = quantized(2, 2, 6, 1)
    with pytest.raises(ArtifactError, match="both quantized and a control"):
        records_from_state(QuantizedState({"w": tensor}, {"w": torch.zeros(1).half()}))
    with pytest.raises(ArtifactError, match="tensor w is float32, not the float16"):
        state_from_records({"w": RawTensor(torch.zeros(2).numpy())})
    assert isinstance(records_from_state(QuantizedState({"w": tensor}, {}))["w"], CodedTensor)


def test_trellises_gains_and_grids_come_back_bit_for_bit():
    rows, columns = 24, 16
    grid = torch.from_numpy(on_grid(rows, 8, 3)), 6, None, None
    state = QuantizedState(
        tensors={
            "blocks.0.mlp.up.weight": QuantizedTensor(torch.from_numpy(path_codes(rows, columns, 8, 1)), *grid, 8, 1.25, 8),
            "blocks.1.mlp.up.weight": QuantizedTensor(
                torch.from_numpy(binomial_codes(rows, columns, 6, 2)),
                *grid,
                0,
                0.984375,
                8,
                torch.from_numpy(on_grid(columns, 8, 5)),
            ),
        },
        controls={},
    )
    found = state_from_records(decode(encode(records_from_state(state), {})).tensors)
    for name, tensor in state.tensors.items():
        other = found.tensors[name]
        assert (other.trellis, other.gain, other.scale_grid) == (tensor.trellis, tensor.gain, tensor.scale_grid)
        assert torch.equal(other.codes, tensor.codes)
        assert other.codes.dtype == tensor.codes.dtype
        assert torch.equal(other.dequantize(), tensor.dequantize())

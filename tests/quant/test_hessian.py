from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from fairway.base.errors import DataError
from fairway.model.gpt import GPT
from fairway.quant.hessian import collect_hessians
from reference_networks import stored_network

FOLDER = Path(__file__).parents[1] / "golden" / "quant"
INPUTS = {
    "attn_in": ("attention.query", "attention.key", "attention.value"),
    "proj_in": ("attention.output",),
    "fc_in": ("mlp.up",),
    "down_in": ("mlp.down",),
}


def golden_model(pr: str = "1413") -> tuple[GPT, torch.Tensor]:
    arrays = np.load(FOLDER / "hessians_calibration.npz")
    settings = dict(zip(arrays[f"{pr}.settings_names"].tolist(), arrays[f"{pr}.settings_values"].tolist(), strict=True))
    weights = {
        key.removeprefix("weights."): tensor
        for key, tensor in load_file(FOLDER / f"hessians_{pr}.safetensors").items()
        if key.startswith("weights.")
    }
    return stored_network(pr, settings, weights), torch.from_numpy(arrays["batches"]).long()


@pytest.mark.parametrize("pr", ["1413", "1557"])
def test_hessians_match_the_reference(pr):
    model, batches = golden_model(pr)
    found = collect_hessians(model, batches)
    golden = {key: tensor for key, tensor in load_file(FOLDER / f"hessians_{pr}.safetensors").items() if "hessian" in key}
    compared = {"embedding.weight"}
    assert close(found["embedding.weight"], golden.pop("hessian.head_in"))
    for key, expected in golden.items():
        _, _, layer, source = key.split(".")
        for name in INPUTS[source]:
            compared.add(f"blocks.{layer}.{name}.weight")
            assert close(found[f"blocks.{layer}.{name}.weight"], expected), (layer, name)
    assert found.keys() == compared


def close(found: torch.Tensor, expected: torch.Tensor) -> bool:
    return float((found - expected).abs().max() / expected.abs().max()) <= 1e-5


def test_query_key_and_value_share_one_tensor_because_they_share_one_input():
    model, batches = golden_model()
    seen = {}
    for name in ("query", "key", "value"):
        module = model.get_submodule(f"blocks.2.attention.{name}")
        module.register_forward_pre_hook(lambda _, inputs, name=name: seen.update({name: inputs[0].clone()}))
    found = collect_hessians(model, batches)
    assert found["blocks.2.attention.key.weight"] is found["blocks.2.attention.query.weight"]
    assert torch.equal(seen["query"], seen["key"])
    assert torch.equal(seen["query"], seen["value"])


def test_hessians_are_symmetric_and_positive_and_the_final_norm_has_mean_square_one():
    model, batches = golden_model()
    found = collect_hessians(model, batches)
    for hessian in found.values():
        torch.testing.assert_close(hessian, hessian.T)
        assert float(torch.linalg.eigvalsh(hessian.double()).min()) > -1e-4 * float(hessian.diagonal().mean())
    positions = batches[0].numel()
    assert float(found["embedding.weight"].trace()) / 32 / positions == pytest.approx(1.0, rel=1e-4)


def test_a_looped_layer_counts_every_pass():
    model, batches = golden_model()
    with torch.no_grad():
        for block in model.blocks:
            block.attention_scale.zero_()
            block.mlp_scale.zero_()
            block.residual_mix.copy_(torch.tensor([1.0, 0.0])[:, None].expand(2, 32))
        # Blocks that change nothing store what they are given, so a skip blends equal streams.
        model.skips.weight.fill_(1.0)
    on, off = (collect_hessians(model, batches, recurrent=recurrent) for recurrent in (True, False))
    name = "blocks.{}.mlp.up.weight"
    for layer, passes in ((0, 1), (1, 2), (2, 2), (3, 1)):
        torch.testing.assert_close(on[name.format(layer)], passes * off[name.format(layer)], rtol=1e-4, atol=1e-4)


@settings(deadline=None, max_examples=5)
@given(cut=st.integers(1, 2))
def test_ranks_that_share_the_batches_reduce_to_the_joint_result(cut):
    model, batches = golden_model()
    joint = collect_hessians(model, batches)
    parts = []
    for share in (batches[:cut], batches[cut:]):
        kept = []
        collect_hessians(model, share, reduce=kept.append)
        parts.append([tensor.clone() for tensor in kept])
    sums = iter([first + second for first, second in zip(*parts, strict=True)])
    reduced = collect_hessians(model, batches[:cut], reduce=lambda tensor: tensor.copy_(next(sums)))
    assert reduced.keys() == joint.keys()
    for name, hessian in joint.items():
        torch.testing.assert_close(reduced[name], hessian, rtol=1e-5, atol=1e-4)


def test_the_model_is_left_as_it_was_and_no_batch_is_an_error():
    model, batches = golden_model()
    model.train()
    collect_hessians(model, batches[:1])
    assert model.training
    assert all(not module._forward_pre_hooks for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())
    with pytest.raises(DataError, match="no batch"):
        collect_hessians(model, [])
    assert all(not module._forward_pre_hooks for module in model.modules())

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from fairway.base.errors import RecipeError
from fairway.config import QuantConfig, SchemeConfig
from fairway.quant.plan import make_plan
from fairway.quant.quantize import code_entropy, dequantize, quantize_state
from reference_names import fairway_name

SHARED = Path(__file__).parents[3] / "shared" / "golden" / "quant"
ROUND = QuantConfig(matrices=SchemeConfig(method="round"), embedding=SchemeConfig(method="round", bits=8, clip_sigmas=20.0))


def small_state(seed: int = 0) -> dict[str, torch.Tensor]:
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
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def small_hessians(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(99)
    hessians = {}
    for name, weight in state.items():
        if name.endswith(".weight") and name != "skips.weight":
            inputs = torch.randn(200, weight.shape[1], generator=generator).cumsum(dim=1)
            hessians[name] = inputs.T @ inputs
    return hessians


def test_every_tensor_has_one_scheme_by_role_not_by_size():
    plan = make_plan(small_state(), QuantConfig())
    assert list(plan.roles) == list(small_state())
    roles = list(plan.roles.values())
    assert [roles.count(role) for role in ("matrices", "embedding", "controls")] == [6, 1, 5]
    assert plan.schemes["blocks.0.attention.key.weight"] == QuantConfig().matrices
    assert plan.schemes["embedding.weight"] == QuantConfig().embedding
    assert plan.schemes["skips.weight"] is None
    with pytest.raises(RecipeError, match="smear_gate has 0 rules"):
        make_plan([*small_state(), "smear_gate"], QuantConfig())
    with pytest.raises(RecipeError, match="match no parameter"):
        make_plan(["embedding.weight"], QuantConfig())


def test_the_way_there_and_back():
    state = small_state()
    plan = make_plan(state, QuantConfig())
    quantized = quantize_state(state, plan, small_hessians(state))
    back = dequantize(quantized)
    assert back.keys() == state.keys()
    assert set(quantized.tensors) == {name for name, scheme in plan.schemes.items() if scheme}
    for report in quantized.reports:
        name, weight = report.name, state[report.name]
        assert back[name].dtype == torch.float32
        rms = float((weight - back[name]).square().mean().sqrt())
        assert report.rms_error == pytest.approx(rms, rel=1e-5, abs=1e-12)
        assert report.relative_error == pytest.approx(rms / float(weight.square().mean().sqrt()), rel=1e-5, abs=1e-12)
        assert report.shape == tuple(weight.shape)
        if name in quantized.controls:
            assert (report.method, report.bits, report.entropy_bits) == ("float16", 16, None)
            torch.testing.assert_close(back[name], weight, rtol=2**-11, atol=2**-25)
        else:
            tensor = quantized.tensors[name]
            assert (report.method, report.bits, report.damping) == ("gptq", tensor.bits, 0.01)
            assert report.entropy_bits == pytest.approx(code_entropy(tensor.codes))
    assert [report.name for report in quantized.reports] == list(state)


def test_gptq_beats_rounding_where_it_counts():
    state = small_state()
    hessians = small_hessians(state)
    smart = quantize_state(state, make_plan(state, QuantConfig()), hessians)
    plain = quantize_state(state, make_plan(state, ROUND), hessians)
    for ours, theirs in zip(smart.reports, plain.reports, strict=True):
        if ours.hessian_error is not None:
            assert ours.hessian_error < 0.7 * theirs.hessian_error
            assert theirs.method == "round"
            assert theirs.damping is None


def test_rounding_needs_no_hessians_and_gptq_does():
    state = small_state()
    quantized = quantize_state(state, make_plan(state, ROUND))
    assert all(report.hessian_error is None for report in quantized.reports)
    hessians = small_hessians(state)
    lacking = {name: hessian for name, hessian in hessians.items() if "key" not in name}
    with pytest.raises(RecipeError, match=r"attention\.key\.weight has no Hessian"):
        quantize_state(state, make_plan(state, QuantConfig()), lacking)
    with pytest.raises(RecipeError, match="not square of 32 inputs"):
        quantize_state(state, make_plan(state, QuantConfig()), hessians | {"blocks.0.mlp.down.weight": torch.eye(16)})


def test_bfloat16_weights_and_the_bfloat16_embedding():
    state = small_state()
    state["embedding.weight"] = state["embedding.weight"].bfloat16()
    quantized = quantize_state(state, make_plan(state, ROUND))
    exact, rounded = dequantize(quantized), dequantize(quantized, embedding_bfloat16=True)
    assert torch.equal(rounded["embedding.weight"], exact["embedding.weight"].bfloat16().float())
    assert not torch.equal(rounded["embedding.weight"], exact["embedding.weight"])
    assert all(torch.equal(rounded[name], exact[name]) for name in exact if name != "embedding.weight")


def test_a_tensor_of_zeros_comes_back_as_zeros():
    state = small_state()
    state["blocks.0.mlp.down.weight"].zero_()
    quantized = quantize_state(state, make_plan(state, QuantConfig()), small_hessians(state))
    assert not dequantize(quantized)["blocks.0.mlp.down.weight"].any()
    (report,) = [report for report in quantized.reports if report.name == "blocks.0.mlp.down.weight"]
    assert (report.rms_error, report.relative_error, report.entropy_bits) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("blocks.0.mlp.up.weight", float("nan"), "training diverged"),
        ("blocks.0.mlp_scale", float("inf"), "training diverged"),
        ("blocks.0.mlp_scale", 7e4, "beyond the 65504 of float16"),
    ],
)
def test_weights_that_cannot_be_stored_are_refused(name, value, message):
    state = small_state()
    state[name].view(-1)[0] = value
    with pytest.raises(RecipeError, match=message):
        quantize_state(state, make_plan(state, ROUND))


def test_weights_of_another_network_are_refused():
    state = small_state()
    plan = make_plan(state, ROUND)
    with pytest.raises(RecipeError, match=r"skips\.gate"):
        quantize_state(state | {"skips.gate": torch.zeros(1, 16)}, plan)


@pytest.mark.skipif(not SHARED.exists(), reason="needs the golden data of ../shared")
def test_a_whole_model_matches_the_reference():
    golden = np.load(SHARED / "model_1413.npz")
    inputs = np.load(SHARED / "model_inputs_x16.npz")
    weights = load_file(SHARED / "model_weights_f16.safetensors")
    state = {fairway_name(str(key)): weights[str(key)].float() for key in golden["scheme_names"]}
    sources = {"query": "attn_in", "key": "attn_in", "value": "attn_in", "output": "proj_in", "up": "fc_in", "down": "down_in"}
    hessians = {}
    for name in state:
        part = name.split(".")[-2]
        key = "head_in" if name == "embedding.weight" else f"blocks.{name.split('.')[1]}.{sources.get(part)}"
        if key in inputs.files:
            x = torch.from_numpy(inputs[key]).float() / 16
            hessians[name] = x.flatten(0, 1).T @ x.flatten(0, 1) / len(x)
    quantized = quantize_state(state, make_plan(state, QuantConfig()), hessians)
    rows, scales = [], []
    for key, (loss, norm) in zip(golden["names"], golden["proxy_loss_and_frobenius_error"], strict=True):
        name = fairway_name(str(key))
        ours = quantized.tensors[name]
        rows.append((ours.codes == torch.from_numpy(golden[f"{key}.q"])).all(dim=1))
        scales.append(ours.scales.view(torch.int16) - torch.from_numpy(golden[f"{key}.scale"]).view(torch.int16))
        (report,) = [report for report in quantized.reports if report.name == name]
        assert report.hessian_error == pytest.approx(float(loss), rel=0.005)
        assert report.rms_error * ours.codes.numel() ** 0.5 == pytest.approx(float(norm), rel=0.005)
    assert float(torch.cat(rows).float().mean()) >= 0.99
    assert int(torch.cat(scales).abs().max()) <= 1
    assert float((torch.cat(scales) != 0).float().mean()) <= 0.002
    assert set(quantized.controls) == {
        fairway_name(str(key))
        for key, tag in zip(golden["scheme_names"], golden["scheme"], strict=True)
        if "passthrough" in tag
    }
    assert all(torch.equal(quantized.controls[fairway_name(key)], weights[key]) for key in weights if "scale" in key)


def test_the_number_of_threads_changes_nothing_and_is_restored():
    state = small_state()
    plan, hessians, threads = make_plan(state, QuantConfig()), small_hessians(state), torch.get_num_threads()
    results = []
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            results.append(quantize_state(state, plan, hessians))
            with pytest.raises(RecipeError, match="no Hessian"):
                quantize_state(state, plan)
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(threads)
    for name, tensor in results[0].tensors.items():
        assert torch.equal(tensor.codes, results[1].tensors[name].codes)
    assert results[0].reports == results[1].reports
    assert list(results[0].tensors) == list(results[1].tensors)


def test_a_clip_rule_sees_the_weight_the_diagonal_and_the_scheme():
    state, seen = small_state(), {}
    plan, hessians = make_plan(state, QuantConfig()), small_hessians(state)

    def rule(weight, diagonal, scheme):
        (name,) = [name for name in plan.schemes if torch.equal(state[name], weight)]
        seen[name] = (diagonal.clone(), scheme)
        return torch.full((len(weight),), 0.25, dtype=torch.float16)

    quantized = quantize_state(state, plan, hessians, clip=rule)
    assert seen.keys() == quantized.tensors.keys() == hessians.keys()
    for name, (diagonal, scheme) in seen.items():
        assert torch.equal(diagonal, hessians[name].diagonal())
        assert scheme is plan.schemes[name]
        assert bool((quantized.tensors[name].scales == 0.25).all())


def test_the_report_counts_codes_at_the_ends_of_the_grid():
    state = small_state()
    state["blocks.0.mlp.down.weight"] = torch.full((16, 32), 0.01)
    state["blocks.0.mlp.down.weight"][:, :2] = torch.tensor([40.0, -40.0])
    scheme = SchemeConfig(method="round", clip_sigmas=1.0)
    quantized = quantize_state(state, make_plan(state, QuantConfig(matrices=scheme, embedding=scheme)))
    (report,) = [report for report in quantized.reports if report.name == "blocks.0.mlp.down.weight"]
    assert report.clipped == pytest.approx(2 / 32)

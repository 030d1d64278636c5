from dataclasses import replace

import numpy as np
import pytest
import torch
from quant_samples import SHARED, input_hessians, small_hessians, small_state
from safetensors.torch import load_file

from fairway.artifact.adapter import records_from_state, state_from_records
from fairway.artifact.container import read_artifact, write_artifact
from fairway.base.errors import RecipeError
from fairway.config import QuantConfig, RecurrenceConfig, ResidualConfig, SchemeConfig
from fairway.model.linear import Linear
from fairway.model.residual import TOPOLOGIES
from fairway.quant.clip import sdclip
from fairway.quant.gptq import damped
from fairway.quant.hessian import collect_hessians
from fairway.quant.plan import make_plan
from fairway.quant.quantize import dequantize, quantize_state
from fairway.quant.report import code_entropy
from reference_names import fairway_name
from toy_network import toy_network

ROUND = QuantConfig(
    attention=SchemeConfig(method="round"),
    mlp=SchemeConfig(method="round"),
    embedding=SchemeConfig(method="round", bits=8, clip_sigmas=20.0),
)


def aware(importance: float) -> QuantConfig:
    """The published schemes, with Hessian-aware steps for all matrices."""
    plain = QuantConfig()
    schemes = {name: replace(getattr(plain, name), importance=importance) for name in ("attention", "mlp", "embedding")}
    return QuantConfig(**schemes)


def test_every_tensor_has_one_scheme_by_role_not_by_size():
    config = QuantConfig(attention=SchemeConfig(clip_sigmas=13.0), mlp=SchemeConfig(clip_sigmas=11.5))
    plan = make_plan(small_state(), config)
    assert list(plan.roles) == list(small_state())
    roles = list(plan.roles.values())
    assert [roles.count(role) for role in ("matrices", "embedding", "controls")] == [6, 1, 5]
    for part, scheme in (("attention", config.attention), ("mlp", config.mlp)):
        found = [name for name, chosen in plan.schemes.items() if chosen == scheme]
        assert found == [name for name in small_state() if f".{part}." in name and name.endswith(".weight")]
    assert plan.schemes["embedding.weight"] == config.embedding
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
@pytest.mark.parametrize(("pr", "importance"), [("1413", 0.0), ("1557", 0.175)])
def test_a_whole_model_matches_the_reference(pr, importance):
    golden = np.load(SHARED / f"model_{pr}.npz")
    inputs = np.load(SHARED / "model_inputs_x16.npz")
    weights = load_file(SHARED / "model_weights_f16.safetensors")
    state = {fairway_name(str(key)): weights[str(key)].float() for key in golden["scheme_names"]}
    quantized = quantize_state(state, make_plan(state, aware(importance)), input_hessians(state, inputs))
    reports = {report.name: report for report in quantized.reports}
    rows, scales = [], []
    for key, (loss, norm) in zip(golden["names"], golden["proxy_loss_and_frobenius_error"], strict=True):
        name = fairway_name(str(key))
        ours, report = quantized.tensors[name], reports[name]
        rows.append((ours.codes == torch.from_numpy(golden[f"{key}.q"])).all(dim=1))
        scales.append(ours.scales.view(torch.int16) - torch.from_numpy(golden[f"{key}.scale"]).view(torch.int16))
        assert report.hessian_error == pytest.approx(float(loss), rel=0.005)
        assert report.rms_error * ours.codes.numel() ** 0.5 == pytest.approx(float(norm), rel=0.005)
    assert float(torch.cat(rows).float().mean()) >= 0.99
    assert int(torch.cat(scales).abs().max()) <= 1
    assert float((torch.cat(scales) != 0).float().mean()) <= 0.002
    controls = [str(key) for key, tag in zip(golden["scheme_names"], golden["scheme"], strict=True) if "passthrough" in tag]
    assert set(quantized.controls) == {fairway_name(key) for key in controls}
    assert all(torch.equal(quantized.controls[fairway_name(key)], weights[key]) for key in controls)


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


def test_the_scheme_of_a_tensor_says_how_its_rows_are_scaled():
    state = small_state()
    hessians = small_hessians(state)
    config = QuantConfig(mlp=SchemeConfig(importance=0.3), attention=SchemeConfig(clip_sigmas=13.0))
    quantized = quantize_state(state, make_plan(state, config), hessians)
    plain = quantize_state(state, make_plan(state, QuantConfig()), hessians)
    for name, tensor in quantized.tensors.items():
        scheme = getattr(config, "embedding" if name == "embedding.weight" else name.split(".")[2])
        assert torch.equal(tensor.scales, sdclip(state[name], hessians[name].diagonal(), scheme))
        assert torch.equal(tensor.scales, plain.tensors[name].scales) == (scheme is config.embedding)


def test_importance_reads_the_hessian_before_dead_inputs_and_damping_change_it():
    state, name = small_state(), "blocks.0.mlp.down.weight"
    hessians = small_hessians(state)
    hessians[name][3:20], hessians[name][:, 3:20] = 0.0, 0.0
    quantized = quantize_state(state, make_plan(state, aware(0.5)), hessians)
    assert torch.equal(
        quantized.tensors[name].scales, sdclip(state[name], hessians[name].diagonal(), SchemeConfig(importance=0.5))
    )
    fixed, _ = damped(hessians[name], QuantConfig().damping)
    assert not torch.equal(quantized.tensors[name].scales, sdclip(state[name], fixed.diagonal(), SchemeConfig(importance=0.5)))


def test_a_hessian_that_is_not_finite_is_refused_with_importance_too():
    state = small_state()
    hessians = small_hessians(state)
    hessians["blocks.0.mlp.up.weight"][2, 2] = float("inf")
    with pytest.raises(RecipeError, match="Hessian is not finite"):
        quantize_state(state, make_plan(state, aware(0.175)), hessians)


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_every_topology_is_packed_and_comes_back_with_its_controls(topology, tmp_path):
    loop = RecurrenceConfig(first=1, last=1, extra_passes=1)
    model = toy_network(40, layers=4, recurrence=loop, residual=ResidualConfig(topology=topology, parallel_from=2))
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    ids = torch.randint(40, (3, 2, 24), generator=torch.Generator().manual_seed(1))
    plan = make_plan(state, aware(0.175))
    quantized = quantize_state(state, plan, collect_hessians(model, ids))
    lanes = {name for name in state if name.startswith("residual.")}
    assert {name.removeprefix("residual.") for name in lanes} == TOPOLOGIES[topology].initial.keys()
    assert lanes <= set(quantized.controls)
    assert set(quantized.tensors) == {"embedding.weight"} | {
        f"{n}.weight" for n, m in model.named_modules() if isinstance(m, Linear)
    }
    write_artifact(tmp_path / "model.fwz", records_from_state(quantized), {})
    back = dequantize(state_from_records(read_artifact(tmp_path / "model.fwz").tensors))
    model.load_state_dict(back)
    for name, weight in state.items():
        if plan.schemes[name] is None:
            assert torch.equal(back[name], weight.half().float()), name
        else:
            assert torch.equal(back[name], quantized.tensors[name].dequantize()), name


def test_the_report_counts_codes_at_the_ends_of_the_grid():
    state = small_state()
    state["blocks.0.mlp.down.weight"] = torch.full((16, 32), 0.01)
    state["blocks.0.mlp.down.weight"][:, :2] = torch.tensor([40.0, -40.0])
    scheme = SchemeConfig(method="round", clip_sigmas=1.0)
    quantized = quantize_state(state, make_plan(state, QuantConfig(attention=scheme, mlp=scheme, embedding=scheme)))
    (report,) = [report for report in quantized.reports if report.name == "blocks.0.mlp.down.weight"]
    assert report.clipped == pytest.approx(2 / 32)

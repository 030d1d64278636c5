"""The tiny model that PR #2140 quantized: selections, codes, scales, gates, repairs and final weights."""

import numpy as np
import pytest
import torch
from quant_samples import PARTS, SHARED, input_hessians, small_hessians, small_state
from safetensors.torch import load_file

from fairway.base.errors import RecipeError
from fairway.config import ProtectionConfig, QuantConfig, RepairConfig, SchemeConfig
from fairway.quant.clip import SMALLEST_SCALE, row_maximum
from fairway.quant.grid import round_to_codes
from fairway.quant.hessian import Hessians
from fairway.quant.plan import make_plan
from fairway.quant.protect import choose_protected, group_scores
from fairway.quant.quantize import quantize_state
from fairway.quant.repair import pack_published, svd_factors
from fairway.quant.types import LowRank, ProtectedColumns, QuantizedState, QuantizedTensor, ScaledCodes
from reference_names import fairway_name

PR2140 = QuantConfig(
    attention=SchemeConfig(clip_sigmas=13.0),
    mlp=SchemeConfig(clip_sigmas=11.5),
    embedding=SchemeConfig(bits=7, clip_sigmas=14.0),
    gates="int8",
    protection=ProtectionConfig(groups=1),
    repair=RepairConfig(tensors=3, weighting="published"),
)
LATER = ("smear_gate.weight", "smear_lambda", "softcap_pos", "softcap_neg")
"""Controls of the reference's state that quantization stores as float16 like any other."""

needs_shared = pytest.mark.skipif(not SHARED.exists(), reason="needs the golden data of ../shared")


def our_name(key: str) -> str:
    return f"blocks.{key.split('.')[1]}.attention.gate" if key.endswith("attn_gate_w") else fairway_name(key)


class Tiny:
    """The stored model, under our names."""

    def __init__(self) -> None:
        self.golden = np.load(SHARED / "model_2140.npz")
        weights = load_file(SHARED / "model_weights_f16.safetensors")
        keys = [str(key) for key in self.golden["scheme_names"] if key not in LATER]
        self.state = {our_name(key): weights[key].float() for key in keys}
        inputs = np.load(SHARED / "model_inputs_x16.npz")
        hessians = input_hessians(self.state, inputs)
        tokens = {len(inputs[key][0]) for key in inputs.files}
        self.hessians = Hessians(hessians, dict.fromkeys(hessians, float(tokens.pop())))
        self.keys = {our_name(key): key for key in keys}
        self.tags = dict(zip(map(str, self.golden["scheme_names"]), map(str, self.golden["scheme"]), strict=True))

    def part(self, key: str, part: str) -> torch.Tensor:
        return torch.from_numpy(self.golden[f"{key}.{part}"])

    def stored(self, key: str, *, repaired: bool = True) -> QuantizedTensor:
        """The tensor as the reference stored it."""
        protected, repair = None, None
        if "awqgrp" in self.tags[key]:
            starts = tuple(self.part(key, "awqg_start").tolist())
            protected = ProtectedColumns(starts, int(self.golden[f"{key}.awqg_size"]), 8, self.part(key, "awqg_s_hi"))
        if repaired and "lqer" in self.tags[key]:
            left = ScaledCodes(self.part(key, "lqA_a"), self.part(key, "lqAs_a").reshape(-1))
            repair = LowRank(left, ScaledCodes(self.part(key, "lqB_a"), self.part(key, "lqBs_a")))
        bits = 7 if "int7" in self.tags[key] else 6
        return QuantizedTensor(self.part(key, "q"), self.part(key, "scale"), bits, protected, repair)


@pytest.fixture(scope="module")
def tiny() -> Tiny:
    return Tiny()


@pytest.fixture(scope="module")
def quantized(tiny: Tiny) -> QuantizedState:
    return quantize_state(tiny.state, make_plan(tiny.state, PR2140), tiny.hessians)


@needs_shared
def test_codes_scales_and_selections_equal_the_reference(tiny: Tiny, quantized: QuantizedState):
    rows, scales = [], []
    for name, ours in quantized.tensors.items():
        key = tiny.keys[name]
        if key.endswith("attn_gate_w"):
            continue
        theirs = tiny.stored(key)
        rows.append((ours.codes == theirs.codes).all(dim=1))
        scales.append(ours.scales.view(torch.int16) - theirs.scales.view(torch.int16))
        assert (ours.protected is None) == (theirs.protected is None), name
        assert (ours.repair is None) == (theirs.repair is None), name
        if ours.protected is not None:
            assert (ours.protected.starts, ours.protected.size) == (theirs.protected.starts, theirs.protected.size)
            assert torch.equal(ours.protected.scales, theirs.protected.scales)
    # A few of 10^6 roundings are within the noise of float32: README of the golden data, section 3.
    assert float(torch.cat(rows).float().mean()) >= 0.99
    assert int(torch.cat(scales).abs().max()) <= 1
    assert float((torch.cat(scales) != 0).float().mean()) <= 0.002


@needs_shared
def test_errors_equal_the_reference(tiny: Tiny, quantized: QuantizedState):
    reports = {report.name: report for report in quantized.reports}
    for key, (loss, norm) in zip(tiny.golden["names"], tiny.golden["proxy_loss_and_frobenius_error"], strict=True):
        report = reports[fairway_name(str(key))]
        # A repair follows the signs of singular vectors, which differ between linear-algebra libraries.
        slack = 0.03 if report.repair_rank else 0.005
        assert report.hessian_error == pytest.approx(float(loss), rel=slack)
        assert report.rms_error * (report.shape[0] * report.shape[1]) ** 0.5 == pytest.approx(float(norm), rel=slack)
    assert {report.name for report in quantized.reports if report.protected} == {"embedding.weight"}


@needs_shared
def test_the_best_groups_are_those_of_the_reference(tiny: Tiny):
    config = QuantConfig(embedding=PR2140.embedding, protection=ProtectionConfig(groups=5))
    chosen = choose_protected(tiny.state, make_plan(tiny.state, config), tiny.hessians)
    golden = [tiny.golden[f"awq_top5_{part}"].tolist() for part in ("names", "starts", "scores")]
    assert {(name, start) for name, starts in chosen.items() for start in starts} == {
        (fairway_name(key), start) for key, start, _ in zip(*golden, strict=True)
    }
    for key, start, score in zip(*golden, strict=True):
        name = fairway_name(key)
        assert float(group_scores(tiny.state[name], tiny.hessians.activation_rms(name), 64)[start // 64]) == pytest.approx(
            score, rel=1e-5
        )


@needs_shared
def test_stored_codes_restore_the_stored_weights(tiny: Tiny):
    for key in [key for key, tag in tiny.tags.items() if "lqer" in tag]:
        expected = tiny.part(key, "reconstruction")
        found = tiny.stored(key).dequantize()[: len(expected)]
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


@needs_shared
def test_repairs_of_the_stored_codes_equal_the_reference_with_its_signs(tiny: Tiny):
    for key in [key for key, tag in tiny.tags.items() if "lqer" in tag]:
        theirs = tiny.stored(key)
        error = tiny.state[our_name(key)] - tiny.stored(key, repaired=False).dequantize()
        assert float(error.norm()) == pytest.approx(float(tiny.golden[f"{key}.lqer_error_before"]), rel=1e-5)
        singular = torch.linalg.svdvals(error)[:6].tolist()
        assert singular == pytest.approx(tiny.golden[f"{key}.error_singular_values"].tolist(), rel=1e-5)
        left, right = svd_factors(error, 4)
        signs = (right * theirs.repair.right.dequantize()).sum(dim=1).sign()
        ours = pack_published(left * signs, right * signs[:, None])
        for mine, stored in ((ours.left, theirs.repair.left), (ours.right, theirs.repair.right)):
            assert torch.equal(mine.codes, stored.codes), key
            assert torch.equal(mine.scales, stored.scales), key


@needs_shared
def test_gates_equal_the_reference(tiny: Tiny, quantized: QuantizedState):
    gates = {name: key for name, key in tiny.keys.items() if key.endswith("attn_gate_w")}
    assert len(gates) == 2
    for name, key in gates.items():
        assert torch.equal(quantized.tensors[name].codes, tiny.part(key, "gq"))
        assert torch.equal(quantized.tensors[name].scales, tiny.part(key, "gs"))


@pytest.mark.parametrize(("case", "rows"), [("gate0", range(8)), ("gate1", [0, 1, 4, 5, 6, 7]), ("gate2", range(4))])
def test_gate_codes_equal_the_reference_where_it_defines_them(case, rows):
    weight = torch.from_numpy(PARTS[f"{case}.weight"])
    scales = row_maximum(weight, 8)
    codes, rows = round_to_codes(weight, scales, 8), list(rows)
    assert torch.equal(codes[rows], torch.from_numpy(PARTS[f"{case}.codes"])[rows])
    assert torch.equal(scales[rows], torch.from_numpy(PARTS[f"{case}.scale"])[rows])
    back = QuantizedTensor(codes, scales, 8).dequantize()
    undefined = [row for row in range(len(weight)) if row not in rows]
    # The published rule divides by 0 there; ours restores zeros, or a value within half of the smallest step.
    assert bool(((back - weight)[undefined].abs() <= SMALLEST_SCALE / 2).all())


def test_gates_are_codes_only_where_the_recipe_says_so_and_a_network_without_gates_is_refused():
    state = small_state(gates=True)
    state["blocks.0.attention.gate"][1] = 0.0
    for form in ("float16", "int8"):
        plan = make_plan(state, QuantConfig(gates=form))
        found = quantize_state(state, plan, small_hessians(small_state()))
        assert ("blocks.0.attention.gate" in found.tensors) == (form == "int8")
        (report,) = [report for report in found.reports if report.name == "blocks.0.attention.gate"]
        assert (report.method, report.bits) == (("maximum", 8) if form == "int8" else ("float16", 16))
    gate = found.tensors["blocks.0.attention.gate"].dequantize()
    assert not gate[1].any()
    assert (
        float((gate - state["blocks.0.attention.gate"]).abs().max())
        <= float(state["blocks.0.attention.gate"].abs().max()) / 250
    )
    assert plan.roles["blocks.0.attention.gate"] == "controls"
    with pytest.raises(RecipeError, match="has no attention gates"):
        make_plan(small_state(), QuantConfig(gates="int8"))

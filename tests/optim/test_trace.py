"""Ten whole training steps of each published system against the reference's own loop, in both layouts of the matrices.

The traces of PR #1413, PR #1557 and PR #2140 are stored with the tests; the other two need the golden data beside the
checkout. PR #2140 trains on packed rows, the others on dense ones.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from fairway.config import AdamConfig, GateConfig, ModelConfig, MuonConfig, OptimConfig, RecurrenceConfig, ResidualConfig
from fairway.data.tokenizer import BOS
from fairway.kernels.attention import Segments
from fairway.model.gpt import GPT
from fairway.optim.averaging import WeightAverage
from fairway.optim.optimizer import build
from fairway.optim.schedules import ContextStage, rewarm_multiplier, schedule_at
from reference_names import BANKS, fairway_name, to_fairway
from reference_networks import TOPOLOGIES

OWN = Path(__file__).parents[1] / "golden" / "optim"
SHARED = Path(__file__).parents[3] / "shared" / "golden" / "optim"
LAYOUTS = {"1413": "per_matrix", "1533": "banked", "1557": "banked", "1776": "per_matrix", "2140": "banked"}
"""How each system stored its matrices."""

Arrays = dict[str, np.ndarray]
State = dict[str, torch.Tensor]


@cache
def trace(pr: str) -> tuple[Arrays, State]:
    """Recorded values and first weights of one system."""
    folder = OWN if (OWN / f"trace_{pr}.npz").exists() else SHARED
    if not folder.exists():
        pytest.skip(f"the trace of PR #{pr} is in the golden data beside the checkout, which is not here")
    with np.load(folder / f"trace_{pr}.npz") as stored:
        golden = dict(stored)
    if folder is SHARED:
        from safetensors.torch import load_file

        return golden, load_file(SHARED / f"trace_{pr}_init.safetensors")
    with np.load(OWN / f"trace_{pr}_init.npz") as stored:
        return golden, {name: torch.from_numpy(from_planes(stored[name])) for name in stored.files}


def from_planes(value: np.ndarray) -> np.ndarray:
    """Float16 values of which the high and the low bytes are stored apart; anything else as it is."""
    if value.dtype != np.uint8:
        return value
    high, low = value.astype(np.uint16)
    return (high << 8 | low).view(np.float16)


def configs(golden: Arrays, pr: str, layout: str) -> tuple[ModelConfig, OptimConfig]:
    def setting(name: str) -> float:
        return float(golden[f"config.{name}"])

    def whole(name: str) -> int:
        return int(golden[f"config.{name}"])

    loop = RecurrenceConfig(
        first=whole("loop_start"), last=whole("loop_end"), extra_passes=whole("num_extra_loops"), begins_at=setting("loop_at")
    )
    residual = ResidualConfig()
    if TOPOLOGIES[pr] != "sequential":
        residual = ResidualConfig(topology=TOPOLOGIES[pr], parallel_from=whole("parallel_start"))
    parts = {}
    if pr == "2140":
        residual = replace(residual, opening_skip="attention_lane")
        gates = GateConfig(
            attention=True, attention_scale=setting("sparse_gate_scale"), smear=True, window=whole("gate_window")
        )
        parts = {"gates": gates, "asymmetric_softcap": "fixed"}
    model = ModelConfig(
        vocab_size=whole("vocab_size"),
        layers=whole("num_layers"),
        width=whole("model_dim"),
        query_heads=whole("num_heads"),
        kv_heads=whole("num_kv_heads"),
        mlp_hidden=whole("mlp_hidden"),
        activation_slope=setting("leaky_slope"),
        rotary_channels=whole("rope_dims"),
        rotary_base=setting("rope_base"),
        exclusive_attention_layers=whole("xsa_last_n"),
        softcap=setting("logit_softcap"),
        recurrence=loop,
        residual=residual,
        **parts,
    )
    adam = {"beta1": setting("beta1"), "beta2": setting("beta2"), "epsilon": setting("adam_eps")}
    optim = OptimConfig(
        matrices=MuonConfig(
            learning_rate=setting("matrix_lr"),
            momentum=setting("momentum_final"),
            momentum_start=setting("momentum_start"),
            momentum_ramp_steps=whole("momentum_warmup_steps"),
            weight_decay=setting("matrix_wd"),
            newton_schulz_steps=whole("ns_steps"),
            coefficients="polar_express" if pr == "2140" else "quintic",
            layout=layout,
        ),
        embedding=AdamConfig(learning_rate=setting("embed_lr"), weight_decay=setting("embed_wd"), **adam),
        scalars=AdamConfig(learning_rate=setting("scalar_lr"), weight_decay=setting("scalar_wd"), **adam),
        gradient_clip=setting("grad_clip"),
        warmdown=setting("warmdown_frac"),
        learning_rate_floor=setting("min_lr"),
        ema_decay=setting("ema_decay"),
    )
    return model, optim


def by_reference(state: State, key: str, layers: int) -> torch.Tensor:
    """The tensor that the reference calls ``key``; the matrices of a bank in the reference's order."""
    if key not in BANKS:
        return state[fairway_name(key)].detach()
    return torch.stack([state[f"blocks.{layer}.{part}"] for part in BANKS[key] for layer in range(layers)]).detach()


def norms(golden: Arrays, state: State, layers: int) -> list[float]:
    return [by_reference(state, str(name), layers).norm().item() for name in golden["param_names"]]


def compare_weights(golden: Arrays, state: State, prefix: str, layers: int) -> int:
    """Compare stored tensors and corners; returns how many."""
    count = 0
    for key, wanted in golden.items():
        if key.startswith(f"{prefix}."):
            found = by_reference(state, key.removeprefix(f"{prefix}.").removesuffix(".corner"), layers)
            found = found[..., :4, :6] if key.endswith(".corner") else found
            torch.testing.assert_close(
                found.float(), torch.from_numpy(wanted), rtol=0, atol=5e-4, msg=lambda text, key=key: f"{key}: {text}"
            )
            count += 1
    return count


def batches(golden: Arrays, step: int) -> Iterator[tuple[torch.Tensor, torch.Tensor, Segments | None]]:
    """Inputs, targets and segments of the micro-batches of a step; segments where rows are packed."""
    stream = torch.from_numpy(golden["stream"].astype(np.int64))
    micro, rows, time = (int(golden[f"config.{name}"]) for name in ("micro_batches", "rows", "row_tokens"))
    tokens = rows * time
    for index in range(step * micro, (step + 1) * micro):
        chunk = stream[index * tokens : index * tokens + tokens + 1]
        segments = None
        if "max_piece" in golden:
            segments = Segments.cut((chunk[:-1] == BOS).nonzero().flatten().tolist(), tokens, int(golden["max_piece"][step]))
        yield chunk[:-1].view(rows, time), chunk[1:].view(rows, time), segments


def rewarms(golden: Arrays) -> list[float]:
    """Factor of the learning rate at every step: below 1 where pieces have just grown."""
    if "max_piece" not in golden:
        return [1.0] * len(golden["elapsed_ms"])
    stage, factors = ContextStage(context=int(golden["max_piece"][0])), []
    for step, piece in enumerate(golden["max_piece"].tolist()):
        stage = stage if piece == stage.context else ContextStage(context=piece, since=step)
        factors.append(rewarm_multiplier(step, stage, int(golden["config.rewarm_steps"])))
    return factors


def follow(pr: str, layout: str, dtype: torch.dtype) -> None:
    """Train as recorded; float64 is held to 1e-9, float32 to what its rounding explains."""
    golden, first = trace(pr)
    model_config, config = configs(golden, pr, layout)
    layers, exact = model_config.layers, dtype == torch.float64
    model = GPT(model_config)
    model.load_state_dict(to_fairway(first, layers))
    model.to(dtype)
    model.compute_dtype = dtype
    optimizers, average = build(model, config), WeightAverage(model, config.ema_decay)
    micro, factors = int(golden["config.micro_batches"]), rewarms(golden)
    for step, elapsed in enumerate(golden["elapsed_ms"]):
        values = schedule_at(config, model_config.recurrence, float(elapsed) / float(golden["cap_ms"]), step)
        values = replace(values, learning_rate=values.learning_rate * factors[step])
        assert values.learning_rate == pytest.approx(golden["lr_multiplier"][step], abs=1e-12)
        assert values.momentum == pytest.approx(golden["muon_momentum"][step], abs=1e-12)
        assert values.recurrent == golden["looping"][step]
        losses = []
        for ids, targets, segments in batches(golden, step):
            loss = model(ids, targets, recurrent=values.recurrent, segments=segments)
            (loss / micro).backward()
            losses.append(loss.item())
        norm = optimizers.reduce_clip_and_step(values)
        optimizers.zero_grad()
        average.update()
        assert losses == pytest.approx(golden["micro_loss_f64"][step], abs=1e-9 if exact else 2e-5)
        assert norm.item() == pytest.approx(float(golden["grad_norm_f64"][step]), rel=1e-9 if exact else 1e-5)
        rates = [optimizers.optimizers[group].param_groups[0]["lr"] for group in ("embedding", "matrices", "scalars")]
        assert rates == pytest.approx(golden["lr_embed_muon_scalar"][step], abs=1e-15)
        found = norms(golden, model.state_dict(), layers)
        assert found == pytest.approx(golden["param_norms_f64"][step], rel=1e-9 if exact else 1e-5)
    averaged = average.averaged_state()
    assert norms(golden, averaged, layers) == pytest.approx(golden["ema_norms_f64"], rel=1e-5)
    assert compare_weights(golden, model.state_dict(), "final", layers) >= 12
    assert compare_weights(golden, averaged, "ema", layers) >= 2


@pytest.mark.parametrize("pr", TOPOLOGIES)
def test_ten_steps_follow_the_reference(pr: str) -> None:
    follow(pr, LAYOUTS[pr], torch.float32)


@pytest.mark.slow
# One system of either layout; `make long` takes the others.
@pytest.mark.parametrize(
    "pr", [pr if pr in ("1413", "1533") else pytest.param(pr, marks=pytest.mark.long) for pr in TOPOLOGIES]
)
def test_ten_float64_steps_in_the_other_layout_follow_to_nine_digits(pr: str) -> None:
    follow(pr, "per_matrix" if LAYOUTS[pr] == "banked" else "banked", torch.float64)

"""Ten whole training steps of PR #1413 against the reference's own loop."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from fairway.config import AdamConfig, ModelConfig, MuonConfig, OptimConfig, RecurrenceConfig
from fairway.model.gpt import GPT
from fairway.optim.averaging import WeightAverage
from fairway.optim.optimizer import build
from fairway.optim.schedules import schedule_at
from reference_names import fairway_name, to_fairway

FOLDER = Path(__file__).parents[1] / "golden" / "optim"
GOLDEN = np.load(FOLDER / "trace_1413.npz")


def setting(name: str) -> float:
    return float(GOLDEN[f"config.{name}"])


def whole(name: str) -> int:
    return int(GOLDEN[f"config.{name}"])


def configs() -> tuple[ModelConfig, OptimConfig]:
    loop = RecurrenceConfig(
        first=whole("loop_start"), last=whole("loop_end"), extra_passes=whole("num_extra_loops"), begins_at=setting("loop_at")
    )
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
        ),
        embedding=AdamConfig(learning_rate=setting("embed_lr"), weight_decay=setting("embed_wd"), **adam),
        scalars=AdamConfig(learning_rate=setting("scalar_lr"), weight_decay=setting("scalar_wd"), **adam),
        gradient_clip=setting("grad_clip"),
        warmdown=setting("warmdown_frac"),
        learning_rate_floor=setting("min_lr"),
        ema_decay=setting("ema_decay"),
    )
    return model, optim


def compare_weights(state: dict[str, torch.Tensor], prefix: str) -> int:
    """Compare stored tensors and corners; returns how many."""
    count = 0
    for key in GOLDEN.files:
        if key.startswith(f"{prefix}."):
            name = key.removeprefix(f"{prefix}.").removesuffix(".corner")
            tensor = state[fairway_name(name)].detach()
            found = tensor[..., :4, :6] if key.endswith(".corner") else tensor
            torch.testing.assert_close(
                found, torch.from_numpy(GOLDEN[key]), rtol=0, atol=5e-4, msg=lambda t, key=key: f"{key}: {t}"
            )
            count += 1
    return count


def test_ten_steps_follow_the_reference():
    model_config, config = configs()
    model = GPT(model_config)
    model.load_state_dict(to_fairway(load_file(FOLDER / "trace_1413_init.safetensors"), model_config.layers))
    optimizers, average = build(model, config), WeightAverage(model, config.ema_decay)
    stream = torch.from_numpy(GOLDEN["stream"].astype(np.int64))
    micro, rows, time = whole("micro_batches"), whole("rows"), whole("row_tokens")
    tokens = rows * time
    for step, elapsed in enumerate(GOLDEN["elapsed_ms"]):
        values = schedule_at(config, model_config.recurrence, float(elapsed) / float(GOLDEN["cap_ms"]), step)
        assert values.learning_rate == pytest.approx(GOLDEN["lr_multiplier"][step], abs=1e-12)
        assert values.momentum == pytest.approx(GOLDEN["muon_momentum"][step], abs=1e-12)
        assert values.recurrent == GOLDEN["looping"][step]
        losses = []
        for index in range(step * micro, (step + 1) * micro):
            chunk = stream[index * tokens : index * tokens + tokens + 1]
            loss = model(chunk[:-1].view(rows, time), chunk[1:].view(rows, time), recurrent=values.recurrent)
            (loss / micro).backward()
            losses.append(loss.item())
        norm = optimizers.clip_and_step(values)
        optimizers.zero_grad()
        average.update()
        assert losses == pytest.approx(GOLDEN["micro_loss"][step], abs=2e-5)
        assert np.mean(losses) == pytest.approx(GOLDEN["train_loss"][step], abs=2e-5)
        assert norm.item() == pytest.approx(float(GOLDEN["grad_norm"][step]), rel=1e-5)
        rates = [optimizers.optimizers[group].param_groups[0]["lr"] for group in ("embedding", "matrices", "scalars")]
        assert rates == pytest.approx(GOLDEN["lr_embed_muon_scalar"][step], abs=1e-15)
        state = model.state_dict()
        norms = [state[fairway_name(str(name))].norm().item() for name in GOLDEN["param_names"]]
        assert norms == pytest.approx(GOLDEN["param_norms"][step], rel=1e-5)
    averaged = average.averaged_state()
    norms = [averaged[fairway_name(str(name))].norm().item() for name in GOLDEN["param_names"]]
    assert norms == pytest.approx(GOLDEN["ema_norms"], rel=1e-5)
    assert compare_weights(model.state_dict(), "final") == len(GOLDEN["param_names"])
    assert compare_weights(averaged, "ema") == 2

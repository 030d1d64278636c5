import torch

from fairway.config import ModelConfig
from fairway.model.skips import Skips

X, SKIP = torch.randn(2, 3, 8), torch.randn(2, 3, 8)


def skips(gated: bool, gate: float = 0.0) -> Skips:
    part = Skips(ModelConfig(width=8, query_heads=2, kv_heads=2, rotary_channels=2, skip_gates=gated))
    with torch.no_grad():
        part.weight.fill_(1.0)
        part.weight[2] = 0.5
        if part.gate is not None:
            part.gate.fill_(gate)
    return part


def test_closed_form_of_the_gate():
    torch.testing.assert_close(skips(True)(X, SKIP, 0), (X + SKIP) / 2)
    torch.testing.assert_close(skips(True, 100.0)(X, SKIP, 2), X)
    torch.testing.assert_close(skips(True, -100.0)(X, SKIP, 2), 0.5 * SKIP)


def test_without_gates_the_weighted_skip_is_added():
    part = skips(False)
    assert "gate" not in dict(part.named_parameters())
    torch.testing.assert_close(part(X, SKIP, 2), X + 0.5 * SKIP)


def test_slots_are_those_of_the_looped_schedule():
    assert skips(True).weight.shape == (7, 8)

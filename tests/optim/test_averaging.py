import contextlib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from fairway.base.errors import DataError
from fairway.optim.averaging import WeightAverage

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "optim" / "ema.npz")


class Pair(nn.Module):
    def __init__(self, value: torch.Tensor) -> None:
        super().__init__()
        self.full = nn.Parameter(value.clone())
        self.low = nn.Parameter(value.to(torch.bfloat16))


@pytest.mark.parametrize("pr", ["1413", "1533", "1557", "1776", "2140"])
def test_matches_the_reference(pr):
    theta = torch.from_numpy(GOLDEN["theta"])
    model = Pair(theta[0])
    average = WeightAverage(model, float(GOLDEN[f"{pr}.decay"]))
    for step in range(1, 9):
        with torch.no_grad():
            model.full.copy_(theta[step])
        average.update()
        if step in (1, 2, 5, 8):
            expected = torch.from_numpy(GOLDEN[f"{pr}.after{step}"])
            torch.testing.assert_close(average.averaged_state()["full"], expected, rtol=0, atol=2e-6)


def test_constant_weights_stay_as_they_are():
    model = Pair(torch.randn(4, 3, generator=torch.Generator().manual_seed(0)))
    average = WeightAverage(model, 0.997)
    for _ in range(10):
        average.update()
    state = average.averaged_state()
    assert torch.equal(state["full"], model.full)
    assert torch.equal(state["low"], model.low)


def test_the_start_fades_geometrically():
    model = Pair(torch.ones(3))
    average = WeightAverage(model, 0.9)
    with torch.no_grad():
        model.full.fill_(2.0)
    for _ in range(7):
        average.update()
    torch.testing.assert_close(average.averaged_state()["full"], torch.full((3,), 0.9**7 + (1 - 0.9**7) * 2.0))


def test_a_decay_of_zero_keeps_the_last_weights():
    model = Pair(torch.randn(5, generator=torch.Generator().manual_seed(1)))
    average = WeightAverage(model, 0.0)
    with torch.no_grad():
        model.full.mul_(-1.7)
    average.update()
    assert torch.equal(average.averaged_state()["full"], model.full)


def test_averages_of_bfloat16_weights_are_float32_until_they_are_used():
    model = Pair(torch.ones(2))
    average = WeightAverage(model, 0.999)
    with torch.no_grad():
        model.low.fill_(2.0)
    average.update()
    # 1.001 does not exist in bfloat16: an average in that type would never move.
    torch.testing.assert_close(average.state_dict()["low"], torch.full((2,), 1.001))
    assert average.averaged_state()["low"].dtype == torch.bfloat16


def test_swap_puts_the_averages_in_and_the_weights_back():
    model = Pair(torch.ones(3))
    average = WeightAverage(model, 0.5)
    with torch.no_grad():
        model.full.copy_(torch.tensor([3.0, 5.0, 0.1]))
    average.update()
    raw = model.full.detach().clone()
    inside = []
    with contextlib.suppress(KeyboardInterrupt), average.swap():
        inside.append(model.full.detach().clone())
        raise KeyboardInterrupt
    torch.testing.assert_close(inside[0], torch.tensor([2.0, 3.0, 0.55]))
    assert torch.equal(model.full, raw)
    average.averaged_state()["full"].fill_(9.0)
    assert average.state_dict()["full"].max() < 9


def test_state_goes_round_bit_by_bit_and_foreign_state_is_refused():
    model = Pair(torch.randn(4, generator=torch.Generator().manual_seed(2)))
    average = WeightAverage(model, 0.9)
    with torch.no_grad():
        model.full.add_(1.0)
    average.update()
    saved = {name: tensor.clone() for name, tensor in average.state_dict().items()}
    other = WeightAverage(Pair(torch.zeros(4)), 0.9)
    other.load_state_dict(saved)
    assert all(torch.equal(other.state_dict()[name], tensor) for name, tensor in saved.items())
    with pytest.raises(DataError, match="full"):
        other.load_state_dict({"low": saved["low"]})

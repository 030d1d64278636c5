import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fairway.config import ModelConfig
from fairway.model.attention import Attention, exclude_own_value
from fairway.model.rotary import RotaryTables


def written_out(attended: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Consecutive query heads share a value head: repeat it, normalise it, remove the projection."""
    repeated = values.repeat_interleave(attended.shape[2] // values.shape[2], dim=2)
    unit = torch.nn.functional.normalize(repeated, dim=-1, eps=1e-12)
    return attended - (attended * unit).sum(-1, keepdim=True) * unit


def test_published_example():
    values, attended = torch.tensor([3.0, 4.0]).view(1, 1, 1, 2), torch.tensor([1.0, 2.0]).view(1, 1, 1, 2)
    torch.testing.assert_close(exclude_own_value(attended, values).flatten(), torch.tensor([-0.32, 0.24]))


@given(seed=st.integers(0, 2**31), kv_heads=st.integers(1, 3), group=st.integers(1, 3), factor=st.floats(0.01, 100))
@settings(deadline=None, max_examples=30)
def test_exclusive_output_is_orthogonal_and_ignores_the_length_of_the_value(seed, kv_heads, group, factor):
    generator = torch.Generator().manual_seed(seed)
    attended = torch.randn(2, 3, kv_heads * group, 8, generator=generator)
    values = torch.randn(2, 3, kv_heads, 8, generator=generator)
    exclusive = exclude_own_value(attended, values)
    torch.testing.assert_close(exclusive, written_out(attended, values), atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(exclude_own_value(attended, factor * values), exclusive, atol=2e-5, rtol=1e-4)
    along = (exclusive * values.repeat_interleave(group, dim=2)).sum(-1)
    torch.testing.assert_close(along, torch.zeros_like(along), atol=1e-4, rtol=0)


def test_a_zero_value_removes_nothing():
    attended = torch.randn(1, 2, 2, 4)
    torch.testing.assert_close(exclude_own_value(attended, torch.zeros(1, 2, 1, 4)), attended)


def test_gradient_of_exclusion_in_float64():
    attended = torch.randn(1, 2, 4, 3, dtype=torch.float64, requires_grad=True)
    values = torch.randn(1, 2, 2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(exclude_own_value, (attended, values))


def test_a_token_that_sees_only_itself_gets_zero():
    config = ModelConfig(width=32, query_heads=4, kv_heads=2, rotary_channels=4)
    rotation = RotaryTables(4, 10000.0, bfloat16=True).rows(6, torch.device("cpu"), torch.float32)
    for exclusive_layers, zero in ((11, True), (10, False)):
        attention = Attention(ModelConfig(**{**vars(config), "exclusive_attention_layers": exclusive_layers}), layer=0)
        for parameter in attention.parameters():
            torch.nn.init.normal_(parameter)
        out = attention(torch.randn(2, 6, 32), rotation)
        assert (out[:, 0].abs().max().item() < 1e-5) is zero
        assert out[:, 1:].abs().max().item() > 1e-3

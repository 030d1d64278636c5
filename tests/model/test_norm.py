import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from fairway.model.norm import EPSILON, rms_norm


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("autocast", [False, True])
def test_output_has_the_dtype_of_the_input(dtype, autocast):
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        assert rms_norm(torch.randn(3, 8).to(dtype)).dtype == dtype


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_epsilon_is_that_of_float32_in_every_dtype(dtype):
    normed = rms_norm(torch.full((2, 64), 1e-4, dtype=dtype)).float()
    torch.testing.assert_close(normed, torch.full((2, 64), 0.279), atol=2e-3, rtol=0)


@given(seed=st.integers(0, 2**31), width=st.integers(1, 70), scale=st.sampled_from([1.0, 0.5, 3**-0.5]))
@settings(deadline=None, max_examples=30)
def test_equals_torch_with_explicit_epsilon(seed, width, scale):
    x = torch.randn(5, width, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(
        rms_norm(x, scale), scale * nn.functional.rms_norm(x, (width,), eps=EPSILON), atol=2e-6, rtol=2e-6
    )


def test_gradient_in_float64():
    x = torch.randn(4, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda rows: rms_norm(rows, 0.7), x)

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fairway.kernels.activation import leaky_relu_squared, plain_leaky_relu_squared


@pytest.mark.parametrize(("slope", "value", "derivative"), [(0.5, 1.0, -1.0), (0.3, 0.36, -0.36), (0.0, 0.0, 0.0)])
def test_published_examples(slope, value, derivative):
    x = torch.tensor([-2.0, 3.0, 0.0], requires_grad=True)
    y = leaky_relu_squared(x, slope)
    y.sum().backward()
    torch.testing.assert_close(y.detach(), torch.tensor([value, 9.0, 0.0]))
    assert x.grad is not None
    torch.testing.assert_close(x.grad, torch.tensor([derivative, 6.0, 0.0]))


@given(seed=st.integers(0, 2**31), slope=st.floats(0, 1))
@settings(deadline=None, max_examples=30)
def test_equals_the_square_of_leaky_relu(seed, slope):
    x = torch.randn(40, generator=torch.Generator().manual_seed(seed), dtype=torch.float64, requires_grad=True)
    twin = plain_leaky_relu_squared(x, slope)
    torch.testing.assert_close(leaky_relu_squared(x, slope), twin)
    grad = torch.randn(40, dtype=torch.float64)
    torch.testing.assert_close(torch.autograd.grad(leaky_relu_squared(x, slope), x, grad), torch.autograd.grad(twin, x, grad))


def test_gradient_in_float64():
    x = torch.randn(30, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda values: leaky_relu_squared(values, 0.3), x)

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fairway.kernels.normalize import normalize_rows, plain_normalize_rows


@given(seed=st.integers(0, 2**31), width=st.integers(1, 40), scale=st.floats(0.1, 3), size=st.sampled_from([1e-4, 1.0, 1e3]))
@settings(deadline=None, max_examples=40)
def test_equals_its_twin(seed, width, scale, size):
    generator = torch.Generator().manual_seed(seed)
    x = (size * torch.randn(2, 3, width, generator=generator, dtype=torch.float64)).requires_grad_()
    grad = torch.randn(2, 3, width, generator=generator, dtype=torch.float64)
    results = [function(x, scale, 2.0**-23) for function in (normalize_rows, plain_normalize_rows)]
    torch.testing.assert_close(results[0], results[1])
    grads = [torch.autograd.grad(result, x, grad)[0] for result in results]
    # At width 1 the gradient is almost all cancellation.
    torch.testing.assert_close(grads[0], grads[1], atol=1e-9 / size, rtol=1e-7)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_narrow_dtypes(dtype):
    x = torch.randn(5, 16).to(dtype).requires_grad_()
    results = [function(x, 0.5, 2.0**-23) for function in (normalize_rows, plain_normalize_rows)]
    assert results[0].dtype == dtype
    torch.testing.assert_close(results[0], results[1])
    grads = [torch.autograd.grad(result.float().square().sum(), x)[0] for result in results]
    assert grads[0].dtype == dtype
    torch.testing.assert_close(grads[0], grads[1], atol=3e-2, rtol=3e-2)


def test_gradient_in_float64():
    x = torch.randn(4, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda rows: normalize_rows(rows, 0.7, 2.0**-23), x)

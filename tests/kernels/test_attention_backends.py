import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fairway.kernels.attention import causal_attention, choose_backend, grouped_sdpa, plain_causal_attention, repeated_sdpa


@pytest.mark.parametrize("backend", [causal_attention, grouped_sdpa, repeated_sdpa])
@given(
    seed=st.integers(0, 2**31),
    time=st.integers(1, 40),
    kv_heads=st.integers(1, 3),
    group=st.integers(1, 3),
    channels=st.sampled_from([4, 8]),
)
@settings(deadline=None, max_examples=15)
def test_back_ends_compute_what_is_written_out(backend, seed, time, kv_heads, group, channels):
    generator = torch.Generator().manual_seed(seed)
    shapes = [(2, time, heads, channels) for heads in (kv_heads * group, kv_heads, kv_heads)]
    inputs = [(3 * torch.randn(shape, generator=generator)).requires_grad_() for shape in shapes]
    weights = torch.randn(shapes[0], generator=generator)
    outputs = [function(*inputs) for function in (backend, plain_causal_attention)]
    torch.testing.assert_close(outputs[0], outputs[1], atol=2e-5, rtol=1e-4)
    grads = [torch.autograd.grad(out, inputs, weights) for out in outputs]
    torch.testing.assert_close(grads[0], grads[1], atol=1e-4, rtol=1e-3)


def test_the_plain_twin_by_hand():
    query, key = torch.tensor([0.0, 2.0]).view(1, 2, 1, 1), torch.tensor([1.0, 3.0]).view(1, 2, 1, 1)
    value = torch.tensor([5.0, 7.0]).view(1, 2, 1, 1)
    share = torch.sigmoid(torch.tensor(2.0 * (3.0 - 1.0)))
    expected = torch.stack([torch.tensor(5.0), 5 * (1 - share) + 7 * share])
    torch.testing.assert_close(plain_causal_attention(query, key, value).flatten(), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_the_choice_says_what_and_why(dtype):
    choice = choose_backend(torch.device("cpu"), dtype)
    assert choice.name == "sdpa-cpu"
    assert len(choice.reason) > 20
    inputs = [torch.randn(1, 8, heads, 8, dtype=dtype) for heads in (4, 2, 2)]
    assert choice.function(*inputs).dtype == dtype


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gpu_back_end_computes_what_is_written_out(dtype):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    inputs = [torch.randn(2, 128, heads, 64, dtype=dtype, device="cuda") for heads in (8, 4, 4)]
    bound = 1e-4 if dtype == torch.float32 else 2e-2
    torch.testing.assert_close(causal_attention(*inputs), plain_causal_attention(*inputs), atol=bound, rtol=bound)

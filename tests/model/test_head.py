import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fairway.model.head import capped_logits, cross_entropy, plain_cross_entropy, softcap


def test_published_softcap_examples():
    capped = softcap(torch.tensor([60.0, 10.0, 0.0, -10.0]), 30.0)
    torch.testing.assert_close(capped, torch.tensor([28.9208, 9.64538, 0.0, -9.64538]), atol=1e-4, rtol=0)


def example(seed, rows, vocab, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(rows, 5, generator=generator).to(dtype).requires_grad_()
    embedding = (3 * torch.randn(vocab, 5, generator=generator)).requires_grad_()
    return hidden, embedding, torch.randint(vocab, (rows,), generator=generator)


@given(
    seed=st.integers(0, 2**31), rows=st.integers(1, 9), vocab=st.integers(2, 12), chunk=st.integers(1, 10), cap=st.floats(2, 40)
)
@settings(deadline=None, max_examples=40)
def test_chunks_change_neither_loss_nor_gradients(seed, rows, vocab, chunk, cap):
    hidden, embedding, targets = example(seed, rows, vocab)
    plain = plain_cross_entropy(hidden, embedding, targets, cap)
    chunked = cross_entropy(hidden, embedding, targets, cap, chunk_rows=chunk)
    torch.testing.assert_close(chunked, plain)
    expected = torch.autograd.grad(2 * plain, (hidden, embedding))
    torch.testing.assert_close(torch.autograd.grad(2 * chunked, (hidden, embedding)), expected)
    with torch.no_grad():
        torch.testing.assert_close(cross_entropy(hidden, embedding, targets, cap, chunk_rows=chunk), plain)


@pytest.mark.parametrize("learned", ["hidden", "embedding"])
def test_either_side_may_be_frozen(learned):
    hidden, embedding, targets = example(0, 6, 7)
    sides = {"hidden": hidden, "embedding": embedding}
    frozen = {name: side.detach().requires_grad_(name == learned) for name, side in sides.items()}
    cross_entropy(frozen["hidden"], frozen["embedding"], targets, 30.0, chunk_rows=4).backward()
    expected = torch.autograd.grad(plain_cross_entropy(hidden, embedding, targets, 30.0), sides[learned])[0]
    torch.testing.assert_close(frozen[learned].grad, expected)
    assert [side.grad is None for name, side in frozen.items() if name != learned] == [True]


def test_bfloat16_rows_give_a_float32_loss_and_logits():
    hidden, embedding, targets = example(1, 64, 50, torch.bfloat16)
    loss = cross_entropy(hidden, embedding, targets, 30.0, chunk_rows=16)
    assert loss.dtype == torch.float32
    assert capped_logits(hidden, embedding, 30.0).dtype == torch.float32
    plain = plain_cross_entropy(hidden, embedding, targets, 30.0)
    torch.testing.assert_close(loss, plain, atol=1e-4, rtol=1e-4)
    found = torch.autograd.grad(loss, (hidden, embedding))
    expected = torch.autograd.grad(plain, (hidden, embedding))
    assert [grad.dtype for grad in found] == [torch.bfloat16, torch.float32]
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=2e-2)

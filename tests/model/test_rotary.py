import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fairway.model.rotary import RotaryTables, Rotation, rotary_frequencies, rotate

CPU = torch.device("cpu")
USED = [
    1.0,
    0.31640625,
    0.10009765625,
    0.03173828125,
    0.010009765625,
    0.0031585693359375,
    0.00099945068359375,
    0.000316619873046875,
]


def tables(length: int = 2048, dtype: torch.dtype = torch.float32) -> Rotation:
    return RotaryTables(16, 10000.0, bfloat16=True).rows(length, CPU, dtype)


def test_frequencies_exact_and_rounded():
    assert rotary_frequencies(16, 10000.0, bfloat16=True).tolist() == USED
    exact = rotary_frequencies(16, 10000.0, bfloat16=False)
    torch.testing.assert_close(exact, torch.tensor([10000 ** (-2 * j / 16) for j in range(8)]), rtol=1e-6, atol=0)


def test_cosines_at_the_last_position():
    published = [0.2497, 0.8700, -0.7672, -0.5359, -0.0696, 0.9834, -0.4574, 0.7972]
    torch.testing.assert_close(tables().cos[2047], torch.tensor(published), atol=1e-4, rtol=0)


def test_positions_above_256_are_not_rounded():
    cos = tables().cos
    assert not torch.equal(cos[257], cos[256])
    assert cos[257, 0].item() == pytest.approx(math.cos(257), abs=1e-5)


def test_pairs_are_half_a_rotation_apart():
    x = torch.zeros(1, 2, 1, 64)
    x[..., 0] = 1
    turned = rotate(x, Rotation(tables().cos[:2], tables().sin[:2]))[0, 1, 0]
    assert turned[0].item() == pytest.approx(0.5403, abs=1e-4)
    assert turned[8].item() == pytest.approx(-0.8415, abs=1e-4)
    assert turned.count_nonzero() == 2


@given(seed=st.integers(0, 2**31), first=st.integers(0, 900), second=st.integers(0, 900), shift=st.integers(0, 1100))
@settings(deadline=None, max_examples=40)
def test_product_depends_on_the_difference_of_positions(seed, first, second, shift):
    generator = torch.Generator().manual_seed(seed)
    query, key = torch.randn(2, 1, 1, 1, 24, generator=generator)
    cos, sin = tables()

    def at(x: torch.Tensor, position: int) -> torch.Tensor:
        row = slice(position, position + 1)
        return rotate(x, Rotation(cos[row], sin[row]))

    near = (at(query, first) * at(key, second)).sum()
    far = (at(query, first + shift) * at(key, second + shift)).sum()
    torch.testing.assert_close(near, far, atol=1e-4 * 8, rtol=0)
    torch.testing.assert_close(at(query, first).norm(), query.norm())
    assert torch.equal(at(query, first)[..., 16:], query[..., 16:])


def test_no_rotated_channels_and_all_rotated_channels():
    x = torch.randn(1, 5, 2, 8)
    none = RotaryTables(0, 10000.0, bfloat16=False).rows(5, CPU, torch.float32)
    assert torch.equal(rotate(x, none), x)
    every = RotaryTables(8, 10000.0, bfloat16=False).rows(5, CPU, torch.float32)
    torch.testing.assert_close(rotate(x, every).norm(dim=-1), x.norm(dim=-1))


def test_tables_grow_without_changing_and_serve_training_after_inference_mode():
    rotary = RotaryTables(16, 10000.0, bfloat16=True)
    with torch.inference_mode():
        short = rotary.rows(10, CPU, torch.float32)
        long = rotary.rows(3000, CPU, torch.float32)
    assert torch.equal(short.cos, long.cos[:10])
    assert len(long.cos) == 3000
    x = torch.randn(1, 10, 2, 32, requires_grad=True)
    rotate(x, rotary.rows(10, CPU, torch.float32)).sum().backward()
    assert x.grad is not None


@pytest.mark.parametrize(("dtype", "table"), [(torch.bfloat16, torch.float32), (torch.float64, torch.float64)])
def test_precision_of_the_tables(dtype, table):
    assert tables(4, dtype).cos.dtype == table

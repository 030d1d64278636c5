from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fairway.optim.newton_schulz import COEFFICIENTS, orthogonalize, orthogonalize_plain

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "optim" / "newton_schulz.npz")
CASES = sorted({name.split(".")[0] for name in GOLDEN.files})
QUINTIC = COEFFICIENTS["quintic"]
POLAR_EXPRESS = (
    (8.156554524902461, -22.48329292557795, 15.878769915207462),
    (4.042929935166739, -2.808917465908714, 0.5000178451051316),
    (3.8916678022926607, -2.772484153217685, 0.5060648178503393),
    (3.285753657755655, -2.3681294933425376, 0.46449024233003106),
    (2.3465413258596377, -1.7097828382687081, 0.42323551169305323),
)
SIGMAS = (1, 0.9, 0.7, 0.5, 0.3, 0.1, 0.05, 0.01, 0.005, 0.002, 0.001, 1e-4)
FIXED_MAP = (
    0.696436,
    0.682011,
    1.120323,
    0.765439,
    1.079592,
    0.712120,
    0.758120,
    0.698917,
    1.154366,
    0.860039,
    0.470544,
    0.048473,
)
POLAR_MAP = (
    0.859129,
    0.874922,
    0.935634,
    0.910611,
    0.983142,
    1.059161,
    0.908558,
    1.027110,
    1.001336,
    1.140407,
    0.858873,
    0.098806,
)


def tensor(name: str) -> torch.Tensor:
    return torch.from_numpy(GOLDEN[name])


@pytest.mark.parametrize("case", CASES)
def test_float32_and_float64_match_the_reference(case):
    x = tensor(f"{case}.x")
    torch.testing.assert_close(orthogonalize(x, 5), tensor(f"{case}.fixed"), rtol=0, atol=3e-5)
    exact = orthogonalize(x.double(), 5, QUINTIC, torch.float64)
    torch.testing.assert_close(exact, tensor(f"{case}.fixed_f64"), rtol=0, atol=1e-12)


@pytest.mark.parametrize("case", [case for case in CASES if f"{case}.fixed_bf16" in GOLDEN.files])
def test_bfloat16_stays_near_the_float64_result(case):
    low = orthogonalize(tensor(f"{case}.x"), 5, QUINTIC, torch.bfloat16)
    exact = tensor(f"{case}.fixed_f64")
    assert low.dtype == torch.bfloat16
    assert (low.double() - exact).norm() / exact.norm() < 0.06


@pytest.mark.parametrize("case", ["tall", "wide"])
def test_fewer_steps(case):
    torch.testing.assert_close(orthogonalize(tensor(f"{case}.x"), 3), tensor(f"{case}.fixed_steps3"), rtol=0, atol=3e-5)


@pytest.mark.parametrize("case", ["tall", "bank_wide"])
def test_one_triple_per_step_serves_other_coefficients(case):
    x = tensor(f"{case}.x").double()
    exact = orthogonalize(x, 5, POLAR_EXPRESS, torch.float64)
    torch.testing.assert_close(exact, tensor(f"{case}.polar_f64"), rtol=0, atol=1e-12)
    assert torch.equal(orthogonalize(x, 7, POLAR_EXPRESS, torch.float64), exact)


@pytest.mark.parametrize(("triples", "expected"), [(QUINTIC, FIXED_MAP), (POLAR_EXPRESS, POLAR_MAP)])
def test_every_singular_value_follows_the_published_map(triples, expected):
    # A second entry fills the diagonal up to Frobenius norm 1, so that the first is the normalised singular value.
    for sigma, target in zip(SIGMAS, expected, strict=True):
        x = torch.diag(torch.tensor([sigma, (1 - sigma**2) ** 0.5], dtype=torch.float64)) * 3.0
        assert orthogonalize(x, 5, triples, torch.float64)[0, 0].item() == pytest.approx(target, abs=1e-5)


def test_a_zero_matrix_stays_zero():
    assert torch.equal(orthogonalize(torch.zeros(2, 3, 4), 5), torch.zeros(2, 3, 4))


@settings(deadline=None, max_examples=25)
@given(batch=st.integers(1, 4), rows=st.integers(1, 20), columns=st.integers(1, 20), seed=st.integers(0, 2**31))
def test_the_batched_path_equals_one_plain_matrix_at_a_time(batch, rows, columns, seed):
    x = torch.randn(batch, rows, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    fast = orthogonalize(x, 5, QUINTIC, torch.float64)
    plain = torch.stack([orthogonalize_plain(matrix, QUINTIC * 5) for matrix in x])
    torch.testing.assert_close(fast, plain, rtol=0, atol=1e-11)


@settings(deadline=None, max_examples=25)
@given(scale=st.floats(1e-3, 1e3), seed=st.integers(0, 2**31))
def test_the_scale_of_the_update_has_no_say(scale, seed):
    x = torch.randn(6, 9, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    # The floor of the norm is the only thing that knows the scale.
    torch.testing.assert_close(
        orthogonalize(x * scale, 5, QUINTIC, torch.float64), orthogonalize(x, 5, QUINTIC, torch.float64), rtol=0, atol=1e-3
    )


@pytest.mark.parametrize("shape", [(256, 512), (512, 128)])
def test_singular_values_of_a_gaussian_land_in_the_band(shape):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    values = torch.linalg.svdvals(orthogonalize(x, 5, QUINTIC, torch.float64))
    assert values.min() > 0.6818 - 1e-3
    assert values.max() < 1.2024 + 1e-3

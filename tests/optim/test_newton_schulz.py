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
POLAR_EXPRESS = COEFFICIENTS["polar_express"]
WHOLE = Path(__file__).parents[3] / "shared" / "golden" / "optim" / "newton_schulz.npz"
"""All stored results; the tests' own copy holds those of Polar Express for two matrices."""
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
def test_polar_express_matches_the_reference(case):
    x = tensor(f"{case}.x").double()
    exact = orthogonalize(x, 5, POLAR_EXPRESS, torch.float64)
    torch.testing.assert_close(exact, tensor(f"{case}.polar_f64"), rtol=0, atol=1e-12)
    assert torch.equal(orthogonalize(x, 7, POLAR_EXPRESS, torch.float64), exact)


def test_fewer_steps_of_polar_express_are_its_first():
    x = tensor("tall.x")
    torch.testing.assert_close(orthogonalize(x, 3, POLAR_EXPRESS), tensor("tall.polar_steps3"), rtol=0, atol=3e-5)
    torch.testing.assert_close(orthogonalize(x, 7, POLAR_EXPRESS), tensor("tall.polar_steps7"), rtol=0, atol=3e-5)


@pytest.mark.skipif(not WHOLE.exists(), reason="the golden data beside the checkout is not here")
@pytest.mark.parametrize("case", CASES)
def test_polar_express_matches_all_stored_results(case):
    golden = np.load(WHOLE)
    x, exact = (torch.from_numpy(golden[f"{case}.{key}"]) for key in ("x", "polar_f64"))
    torch.testing.assert_close(orthogonalize(x, 5, POLAR_EXPRESS), torch.from_numpy(golden[f"{case}.polar"]), rtol=0, atol=3e-5)
    found = orthogonalize(x.double(), 5, POLAR_EXPRESS, torch.float64)
    torch.testing.assert_close(found, exact, rtol=0, atol=1e-12)
    if f"{case}.polar_bf16" in golden.files:
        low = orthogonalize(x, 5, POLAR_EXPRESS, torch.bfloat16)
        assert (low.double() - exact).norm() / exact.norm() < 0.12


def worst_errors(triples):
    """Largest distance to 1 of any normalised singular value from a thousandth on, before and after every step."""
    values = torch.logspace(-3, 0, 400, dtype=torch.float64)
    errors = [(values - 1).abs().max().item()]
    for steps in range(1, 6):
        # Each value is a matrix of its own, filled up to Frobenius norm 1 by a second entry.
        pairs = torch.diag_embed(torch.stack([values, (1 - values.square()).clamp_min(0).sqrt()], dim=1))
        errors.append((orthogonalize(pairs, steps, triples, torch.float64)[:, 0, 0] - 1).abs().max().item())
    return errors


def test_every_step_of_polar_express_brings_the_worst_singular_value_nearer_to_one():
    errors = worst_errors(POLAR_EXPRESS)
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] == pytest.approx(0.1411, abs=1e-3)
    assert worst_errors(QUINTIC)[-1] > 0.3


@settings(deadline=None, max_examples=25)
@given(rows=st.integers(1, 12), columns=st.integers(1, 12), smallest=st.floats(2e-3, 1), seed=st.integers(0, 2**31))
def test_polar_express_keeps_the_directions_and_brings_every_value_near_one(rows, columns, smallest, seed):
    x = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    left, values, right = torch.linalg.svd(x, full_matrices=False)
    x = left @ torch.diag(values.clamp_min(smallest * values.norm())) @ right
    found = orthogonalize(x, 5, POLAR_EXPRESS, torch.float64)
    inner = left.T @ found @ right.T
    assert (inner.diagonal() - 1).abs().max() < 0.142
    torch.testing.assert_close(inner, torch.diag(inner.diagonal()), rtol=0, atol=1e-9)


@settings(deadline=None, max_examples=25)
@given(batch=st.integers(1, 4), rows=st.integers(1, 20), columns=st.integers(1, 20), seed=st.integers(0, 2**31))
def test_polar_express_batched_equals_one_plain_matrix_at_a_time(batch, rows, columns, seed):
    x = torch.randn(batch, rows, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    plain = torch.stack([orthogonalize_plain(matrix, POLAR_EXPRESS) for matrix in x])
    torch.testing.assert_close(orthogonalize(x, 5, POLAR_EXPRESS, torch.float64), plain, rtol=0, atol=1e-10)


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
@pytest.mark.parametrize(("triples", "least", "most"), [(QUINTIC, 0.6818, 1.2024), (POLAR_EXPRESS, 0.8589, 1.1411)])
def test_singular_values_of_a_gaussian_land_in_the_band(shape, triples, least, most):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    values = torch.linalg.svdvals(orthogonalize(x, 5, triples, torch.float64))
    assert values.min() > least - 1e-3
    assert values.max() < most + 1e-3

"""Paths of the trellis: the twin, the cheapest of all, and what they gain over rounding."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trellis_samples import plain_gain

from fairway.base.errors import MachineError
from fairway.kernels import native
from fairway.quant import trellis as trellis_module
from fairway.quant.grid import LARGEST_CODE
from fairway.quant.rates import Spreads, centroid_gain, pilot, price_list
from fairway.quant.trellis import PathEncoder, Prices, encode_plain
from fairway.quant.trellis_states import GENERATORS, path_parities, trellis

STATES = tuple(GENERATORS)


@st.composite
def vectors(draw):
    """Values of very different spread, with ties, and prices by two classes of rows."""
    rows, seed = draw(st.integers(1, 40)), draw(st.integers(0, 2**31))
    generator = np.random.default_rng(seed)
    values = generator.standard_normal(rows) * 10.0 ** draw(st.floats(-2, 2))
    if draw(st.booleans()):
        values = np.rint(values * 2) / 2
    limit = draw(st.sampled_from([4, 9, 64, LARGEST_CODE]))
    table = generator.exponential(size=(2, 2 * limit + 1)) * draw(st.sampled_from([0.0, 0.36, 5.0]))
    return values, Prices(table, generator.integers(0, 2, rows).astype(np.uint8))


@settings(deadline=None, max_examples=60)
@given(case=vectors(), states=st.sampled_from(STATES))
def test_native_and_plain_paths_are_the_same_and_valid(case, states):
    values, prices = case
    codes = PathEncoder(states, len(values)).encode(values, prices)
    assert np.array_equal(codes, encode_plain(values, trellis(states), prices))
    assert path_parities(codes[:, None], states) is not None
    assert np.abs(codes).max() <= prices.limit


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**31), states=st.sampled_from(STATES))
def test_no_path_is_cheaper(seed, states):
    generator = np.random.default_rng(seed)
    values, limit = generator.uniform(-3, 3, 4), 4
    # Prices that differ little cannot make a code far from the value the best of its residue.
    prices = Prices(generator.uniform(0, 0.3, (1, 2 * limit + 1)), np.zeros(4, np.uint8))
    every = np.array(list(itertools.product(range(-limit, limit + 1), repeat=4)), np.int16).T
    machine, state, valid = trellis(states), np.zeros(every.shape[1], np.int64), np.ones(every.shape[1], bool)
    for taken in every:
        valid &= machine.parity[state] == taken & 1
        state = machine.step(state, taken)
    assert 9**4 / 2**4 < valid.sum() < 9**4 / 2**3
    costs = np.square(values[:, None] - every) + prices.table[0][every + limit]
    codes = PathEncoder(states, 4).encode(values, prices)
    found = np.square(values - codes) + prices.table[0][codes + limit]
    assert found.sum() == pytest.approx(costs[:, valid].sum(axis=0).min(), rel=1e-12)


def test_values_beyond_all_codes_take_the_outermost_ones():
    values, prices = np.array([1e9, -1e9, 8300.0, 1e30]), Prices(np.zeros((1, 2 * LARGEST_CODE + 1)), np.zeros(4, np.uint8))
    for states in STATES:
        codes = PathEncoder(states, 4).encode(values, prices)
        assert np.array_equal(codes, encode_plain(values, trellis(states), prices))
        assert np.abs(codes).min() >= LARGEST_CODE - 4
        assert np.array_equal(np.sign(codes), np.sign(values))


def test_without_a_compiler_the_twin_runs_and_says_so(monkeypatch, caplog):
    values, prices = np.random.default_rng(0).standard_normal(30) * 5, Prices(np.zeros((1, 129)), np.zeros(30, np.uint8))
    expected = PathEncoder(8, 30).encode(values, prices)

    def none_there(*_arguments, **_options):
        raise MachineError("no C compiler is installed")

    monkeypatch.setattr(native, "load_native", none_there)
    native.native_or_none.cache_clear()
    trellis_module._library.cache_clear()
    try:
        with caplog.at_level("WARNING", logger="fairway"):
            for _ in range(2):
                assert np.array_equal(PathEncoder(8, 30).encode(values, prices), expected)
        assert [record.message.count("plain Python finds the trellis codes") for record in caplog.records] == [1]
    finally:
        native.native_or_none.cache_clear()
        trellis_module._library.cache_clear()


@pytest.mark.parametrize(("states", "least", "most"), [(4, 0.95, 1.15), (8, 1.0, 1.25), (64, 1.2, 1.45)])
def test_decibels_over_rounding_at_equal_entropy(states, least, most):
    decibels, entropy = plain_gain(states, 100_000)
    assert entropy == pytest.approx(3.33, abs=0.03)
    assert least <= decibels <= most


@pytest.mark.long
@pytest.mark.parametrize(("states", "least"), [(4, 1.0), (8, 1.08), (16, 1.15), (64, 1.28), (256, 1.33)])
def test_decibels_on_400_000_samples(states, least):
    assert plain_gain(states, 400_000, seed=1)[0] >= least


@settings(deadline=None, max_examples=20)
@given(
    rows=st.integers(1, 20),
    columns=st.integers(1, 20),
    seed=st.integers(0, 2**31),
    spread=st.floats(0, 3),
    every=st.integers(1, 4),
)
def test_prices_are_code_lengths_of_each_parity(rows, columns, seed, spread, every):
    generator = np.random.default_rng(seed)
    values = generator.standard_normal((rows, columns)) * np.exp(spread * generator.standard_normal((rows, 1)))
    spreads, limit = Spreads.of(values), 2000
    codes = np.rint(values).clip(-limit, limit).astype(np.int16)[:, ::every]
    for known in (None, codes):
        prices = price_list(spreads, limit, known, every)
        assert prices.table.shape == (spreads.count, 2 * limit + 1)
        assert np.array_equal(prices.table, prices.table[:, ::-1])
        assert np.isfinite(prices.table).all()
        shares = np.exp2(-prices.table / 0.36)
        np.testing.assert_allclose(shares[:, limit % 2 :: 2].sum(axis=1), 1.0, rtol=1e-9)
        np.testing.assert_allclose(shares[:, 1 - limit % 2 :: 2].sum(axis=1), 1.0, rtol=1e-9)
    for column in range(columns):
        assert prices.of_column(column).table.shape[0] > int(prices.of_column(column).rows.max())


def test_a_pilot_finds_the_centroids():
    values = np.random.default_rng(0).standard_normal((400, 300)) / 0.6
    gain, prices = pilot(values, np.ones(400), 8, centroids=True)
    fixed, _ = pilot(values, np.ones(400), 8, centroids=False)
    encoder = PathEncoder(8, 400)
    codes = np.stack([encoder.encode(np.ascontiguousarray(x) / gain, prices.of_column(i)) for i, x in enumerate(values.T)], 1)
    assert fixed == 1.0
    assert gain == pytest.approx(centroid_gain(values, codes, np.ones(400)), rel=0.01)
    assert gain < 0.99
    assert float(np.float16(gain)) == gain
    assert pilot(np.zeros((3, 4)), np.ones(3), 8, centroids=True)[0] == 1.0

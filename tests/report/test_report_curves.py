import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairway.report import curves
from fairway.report.records import Ledger


@st.composite
def ledgers(draw):
    targets = draw(st.integers(1, 300))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    starts = np.unique(np.concatenate([[0], random.integers(0, targets, draw(st.integers(0, 12)))])).astype(np.int64)
    nats = {name: random.exponential(2.0, targets).astype(np.float32) for name in ("plain", "sliding")}
    return Ledger(nats, random.integers(0, 4, targets).astype(np.uint16), starts, draw(st.integers(1, 400)))


def slow_bins(positions, nats):
    """Mean and standard error per bin, target by target."""
    edges = curves.log_edges(int(positions.max()))
    rows = []
    for first, stop in itertools.pairwise(edges):
        inside = nats[(positions >= first) & (positions < stop)].astype(np.float64)
        if len(inside) >= 2:
            rows.append((first, stop - 1, len(inside), inside.mean(), inside.std(ddof=1) / math.sqrt(len(inside))))
    return rows


def assert_curve(curve, positions, ledger):
    for name, nats in ledger.nats.items():
        rows = slow_bins(positions, nats)
        assert curve.first.tolist() == [row[0] for row in rows]
        assert curve.last.tolist() == [row[1] for row in rows]
        assert curve.count.tolist() == [row[2] for row in rows]
        np.testing.assert_allclose(curve.mean[name], [row[3] for row in rows], rtol=1e-9)
        np.testing.assert_allclose(curve.error[name], [row[4] for row in rows], rtol=1e-5, atol=1e-7)


@settings(deadline=None, max_examples=60)
@given(ledgers(), st.sampled_from([7, 64, 1 << 20]))
def test_positions_match_the_plain_computation(ledger, piece):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(curves, "PIECE", piece)
        by_window, by_document = curves.by_window_position(ledger), curves.by_document_position(ledger)
    place = np.arange(len(ledger))
    assert_curve(by_window, place % ledger.context + 1, ledger)
    inside = np.array([target - max(start for start in ledger.documents if start <= target) + 1 for target in place])
    assert_curve(by_document, inside, ledger)


@settings(deadline=None, max_examples=60)
@given(ledgers(), st.integers(1, 50))
def test_running_ends_at_the_score_and_matches_prefixes(ledger, points):
    curve = curves.running(ledger, points)
    text = ledger.bytes.astype(np.int64).cumsum()
    if text[-1] == 0:
        assert len(curve.bytes) == 0
        return
    for name, nats in ledger.nats.items():
        total = nats.astype(np.float64).sum() / math.log(2.0) / text[-1]
        assert curve.bits_per_byte[name][-1] == pytest.approx(total, rel=1e-9)
        prefix = nats.astype(np.float64).cumsum() / math.log(2.0)
        for size, bits in zip(curve.bytes, curve.bits_per_byte[name], strict=True):
            assert np.isclose(prefix[text == size] / size, bits, rtol=1e-9).any()


@settings(deadline=None, max_examples=60)
@given(ledgers())
def test_documents_match_slices_and_weigh_back_to_the_score(ledger):
    found = curves.by_document(ledger)
    borders = [*ledger.documents.tolist(), len(ledger)]
    parts = [slice(first, stop) for first, stop in itertools.pairwise(borders)]
    sized = [part for part in parts if ledger.bytes[part].sum()]
    assert found.bytes.tolist() == [int(ledger.bytes[part].sum()) for part in sized]
    for name, nats in ledger.nats.items():
        expected = [nats[part].astype(np.float64).sum() / math.log(2.0) / ledger.bytes[part].sum() for part in sized]
        np.testing.assert_allclose(found.bits_per_byte[name], expected, rtol=1e-9)


@given(st.integers(1, 5000), st.integers(1, 5))
def test_log_edges_cover_every_position_once(longest, per_octave):
    edges = curves.log_edges(longest, per_octave)
    assert edges[0] == 1
    assert edges[-1] == longest + 1
    assert (np.diff(edges) > 0).all()


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=200))
def test_smoothing_keeps_lines_and_stays_inside(values):
    array = np.array(values)
    result = curves.smoothed(array)
    assert (result >= array.min() - 1e-9).all()
    assert (result <= array.max() + 1e-9).all()
    line = np.linspace(0.0, 3.0, len(values))
    np.testing.assert_allclose(curves.smoothed(line), line, atol=1e-9)

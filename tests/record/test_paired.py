"""The paired difference over documents: its definition, its standard error against a jackknife, and damaged ledgers."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fairway.base.errors import DataError
from fairway.record.paired import DocumentCosts, paired_difference, read_costs, text_digest
from record.record_cases import make_scored_run


def costs_of(nats: np.ndarray, lengths: np.ndarray) -> DocumentCosts:
    """Documents of one target each."""
    sizes, starts = lengths.astype(np.int64), np.arange(len(lengths))
    return DocumentCosts(nats, sizes, starts, tokens=len(lengths), text=text_digest(lengths.astype(np.uint16), starts))


@st.composite
def sides(draw: st.DrawFn) -> tuple[DocumentCosts, DocumentCosts]:
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    lengths = random.integers(50, 4000, draw(st.integers(2, 60)))
    base = lengths * random.lognormal(0.0, 0.4, len(lengths))
    return tuple(costs_of(base * random.normal(1.0, 0.02, len(lengths)), lengths) for _ in range(2))


@settings(deadline=None)
@given(pair=sides())
def test_the_difference_is_that_of_the_bits_per_byte(pair: tuple[DocumentCosts, DocumentCosts]) -> None:
    new, reference = pair
    found = paired_difference([new], [reference])
    bpb = [side.nats.sum() / math.log(2) / side.bytes.sum() for side in (new, reference)]
    assert found.difference == pytest.approx(bpb[1] - bpb[0], abs=1e-12)
    assert found.better == sum(theirs > ours for ours, theirs in zip(new.nats, reference.nats, strict=True))
    back = paired_difference([reference], [new])
    assert (back.difference, back.standard_error) == pytest.approx((-found.difference, found.standard_error), abs=1e-12)
    assert found.p + back.p == pytest.approx(1.0)


def test_the_standard_error_is_the_jackknife_s() -> None:
    """Leaving out one document at a time is the slow way to the same figure; they differ by the square of 1 / documents."""
    random = np.random.default_rng(3)
    lengths = random.integers(500, 3000, 300)
    new, reference = (costs_of(lengths * random.normal(1.5, 0.05, 300), lengths) for _ in range(2))
    bits = (reference.nats - new.nats) / math.log(2)
    left = np.array([np.delete(bits, j).sum() / np.delete(lengths, j).sum() for j in range(300)])
    jackknife = math.sqrt(299 / 300 * ((left - left.mean()) ** 2).sum())
    assert paired_difference([new], [reference]).standard_error == pytest.approx(jackknife, rel=0.02)


def test_documents_of_equal_length_give_the_paired_t_test() -> None:
    random = np.random.default_rng(7)
    lengths = np.full(6, 512)
    new, reference = (costs_of(lengths * random.normal(1.0, 0.1, 6), lengths) for _ in range(2))
    found, expected = paired_difference([new], [reference]), stats.ttest_rel(reference.nats, new.nats, alternative="greater")
    assert (found.t, found.p) == pytest.approx((expected.statistic, expected.pvalue))


def test_no_difference_is_rejected_as_often_as_the_p_value_says() -> None:
    random = np.random.default_rng(11)
    rejected, trials = 0, 1000
    for _ in range(trials):
        lengths = random.integers(100, 2000, 30)
        new, reference = (costs_of(lengths * random.normal(1.0, 0.1, 30), lengths) for _ in range(2))
        rejected += paired_difference([new], [reference]).p < 0.1
    assert 0.07 < rejected / trials < 0.13


def test_runs_of_a_side_are_averaged() -> None:
    lengths = np.array([100, 300, 200])
    first, second = (costs_of(lengths * np.array(factor), lengths) for factor in ([1.0, 1.1, 1.2], [1.2, 1.0, 1.3]))
    middle = costs_of((first.nats + second.nats) / 2, lengths)
    reference = costs_of(lengths * 1.5, lengths)
    assert paired_difference([first, second], [reference]) == paired_difference([middle], [reference])


def test_pairing_sees_what_documents_hide() -> None:
    """A shift of a thousandth of a bit per byte among documents that differ by tenths."""
    random = np.random.default_rng(5)
    lengths = random.integers(500, 3000, 200)
    hard = lengths * random.normal(1.0, 0.3, 200) * math.log(2)
    noise = lengths * random.normal(0.0, 0.002, 200) * math.log(2)
    found = paired_difference([costs_of(hard + noise, lengths)], [costs_of(hard + lengths * 0.001 * math.log(2), lengths)])
    assert found.difference == pytest.approx(0.001, abs=4 * found.standard_error)
    assert found.t > 4
    assert np.std(hard / lengths) / math.sqrt(200) > 50 * found.standard_error


def test_equal_costs_are_no_difference_and_equal_shifts_a_certain_one() -> None:
    lengths = np.array([128, 256, 512])
    one = costs_of(lengths * 1.0, lengths)
    same = paired_difference([one], [one])
    assert (same.difference, same.t, same.p, same.better) == (0.0, 0.0, 0.5, 0)
    sure = paired_difference([one], [costs_of(lengths * 1.5, lengths)])
    assert sure.p < 1e-9
    assert sure.better == 3


def test_other_texts_and_single_documents_are_refused() -> None:
    lengths = np.array([100, 200])
    one = costs_of(lengths * 1.0, lengths)
    with pytest.raises(DataError, match="different texts"):
        paired_difference([one], [costs_of(lengths * 1.0, lengths[::-1])])
    with pytest.raises(DataError, match="two documents"):
        paired_difference([costs_of(np.ones(1), lengths[:1])], [costs_of(np.ones(1), lengths[:1])])


def test_a_ledger_is_cut_where_its_documents_begin(tmp_path: Path) -> None:
    arrays = {"plain_nll": np.arange(6, dtype=np.float32), "bytes": np.array([3, 1, 0, 2, 2, 2], np.uint16)}
    np.savez(tmp_path / "ledger.npz", documents=np.array([0, 3, 6]), **arrays)
    costs = read_costs(tmp_path / "ledger.npz", "plain")
    assert costs.nats.tolist() == [0 + 1 + 2, 3 + 4 + 5]
    assert costs.bytes.tolist() == [4, 6]


def test_a_damaged_ledger_is_a_data_error(tmp_path: Path) -> None:
    ledger = make_scored_run(tmp_path / "run") / "ledger.npz"
    read_costs(ledger, "sliding")
    with pytest.raises(DataError, match="lacks the array"):
        read_costs(ledger, "adapted")
    whole = ledger.read_bytes()
    ledger.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="score the run again"):
        read_costs(ledger, "sliding")
    np.savez(ledger, plain_nll=np.full(3, np.nan, np.float32), bytes=np.ones(3, np.uint16), documents=np.array([0]))
    with pytest.raises(DataError, match="do not fit together"):
        read_costs(ledger, "plain")
    ledger.unlink()
    with pytest.raises(DataError, match="does not exist"):
        read_costs(ledger, "plain")

"""Figures of an ablation: recomputed with scipy, by the definitions, from what the run folders state."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from fairway.base.errors import DataError
from fairway.record.ablation import RESULT, read_ablation
from fairway.record.ablation_document import ablation_document
from fairway.record.ablation_plan import read_plan
from fairway.record.pooled import Interval, difference_interval, pooled_spread
from record.ablation_cases import PASSES, bits, make_ablation, make_member, make_plan

SHIFTS = {
    "tiny": (0.1, 0.104, 0.097),
    "tiny+gain": (0.05, 0.048, 0.059),
    "tiny+clip": (0.049, 0.047, 0.058),
    "tiny+decay": (0.048, 0.054, 0.056),
}


@pytest.fixture
def ablation(tmp_path: Path) -> Path:
    return make_ablation(tmp_path / "ablation", SHIFTS)


def values(root: Path, group: str, name: str, seeds: tuple[int, ...] = (1, 2, 3)) -> np.ndarray:
    return np.array([bits(root / f"{group}-{seed}", name) for seed in seeds])


def residual_deviation(rows: list[np.ndarray]) -> tuple[float, int]:
    """The error term of a two-way layout without repetition, by least squares on group and seed indicators."""
    table = np.array(rows)
    groups, seeds = table.shape
    design = [np.eye(groups)[group].tolist() + np.eye(seeds)[seed].tolist() for group in range(groups) for seed in range(seeds)]
    fitted = np.array(design) @ np.linalg.lstsq(np.array(design), table.ravel(), rcond=None)[0]
    degrees = (groups - 1) * (seeds - 1)
    return math.sqrt(float(np.square(table.ravel() - fitted).sum()) / degrees), degrees


@pytest.mark.parametrize("name", PASSES)
def test_intervals_over_seeds_are_those_of_a_two_way_analysis_of_variance(ablation: Path, name: str) -> None:
    found = read_ablation(ablation)
    old, new, clip, last = (values(ablation, group, name) for group in SHIFTS)
    # Three families: gain and clip score the same weights, so they count as one group, with their mean.
    deviation, degrees = residual_deviation([old, (new + clip) / 2, last])
    spread = found.spreads[name]
    assert spread is not None
    assert (spread.degrees, spread.deviation) == (degrees, pytest.approx(deviation, rel=1e-6))
    for difference, before, after in (
        (found.ladder[0], old, new),
        (found.ladder[2], clip, last),
        (found.systems[0], old, last),
    ):
        gain = difference.gains[name]
        low, high = stats.t.interval(0.95, degrees, before.mean() - after.mean(), deviation * math.sqrt(2 / 3))
        assert gain.noise == "seeds"
        assert gain.interval is not None
        assert (gain.interval.low, gain.interval.high) == (pytest.approx(low, abs=1e-9), pytest.approx(high, abs=1e-9))
        assert gain.error == pytest.approx(deviation * math.sqrt(2 / 3), rel=1e-9)
        assert gain.paired is not None
        paired = stats.t.interval(0.95, 2, np.mean(before - after), stats.sem(before - after))
        assert (gain.paired.low, gain.paired.high) == pytest.approx(paired, abs=1e-12)
        assert dict(gain.by_seed) == pytest.approx(dict(enumerate(before - after, start=1)), abs=1e-12)
    assert found.ladder[0].gains[name].verdict == "better"
    assert found.ladder[2].gains[name].verdict == "within noise"


def table_of(rows: list[list[float]]) -> list[list[dict[int, float]]]:
    return [[dict(enumerate(row))] for row in rows]


@given(
    st.integers(2, 5).flatmap(
        lambda seeds: st.lists(st.lists(st.floats(1.0, 2.0), min_size=seeds, max_size=seeds), min_size=2, max_size=5)
    )
)
def test_pooling_is_the_error_term_of_a_two_way_layout(rows: list[list[float]]) -> None:
    deviation, degrees = residual_deviation([np.asarray(row) for row in rows])
    spread = pooled_spread(table_of(rows))
    if spread is None:
        assert deviation < 1e-9
    else:
        assert spread.degrees == degrees
        assert spread.deviation == pytest.approx(deviation, rel=1e-6, abs=1e-9)


@given(st.lists(st.floats(-1.0, 1.0), min_size=3, max_size=3), st.lists(st.floats(-1.0, 1.0), min_size=3, max_size=3))
def test_what_a_seed_or_a_group_does_to_all_is_no_noise(of_groups: list[float], of_seeds: list[float]) -> None:
    rest = np.array([[0.1, -0.2, 0.1], [0.0, 0.1, -0.1], [-0.1, 0.1, 0.0]])
    plain = pooled_spread(table_of(rest.tolist()))
    moved = pooled_spread(table_of((rest + np.array(of_groups)[:, None] + np.array(of_seeds)).tolist()))
    assert plain is not None
    assert moved is not None
    assert moved.deviation == pytest.approx(plain.deviation, rel=1e-6)


def test_a_family_of_copies_counts_as_one_group() -> None:
    first, second = {1: 1.0, 2: 1.1, 3: 1.4}, {1: 2.0, 2: 2.2, 3: 2.1}
    alone = pooled_spread([[first], [second]])
    family = pooled_spread([[first, first, first], [second]])
    assert alone is not None
    assert family is not None
    assert (family.degrees, family.deviation) == (2, pytest.approx(alone.deviation, rel=1e-9))
    assert pooled_spread([[first], [first], [first], [second]]) != alone


def test_seeds_that_a_group_lacks_do_not_count() -> None:
    first, second = {1: 1.0, 2: 1.1, 3: 1.4}, {1: 2.0, 2: 2.2}
    assert pooled_spread([[first], [second]]) == pooled_spread([[{1: 1.0, 2: 1.1}], [second]])
    assert pooled_spread([[first], [second], [{1: 7.0}]]) == pooled_spread([[first], [second]])


def test_one_value_one_group_or_no_spread_tells_nothing() -> None:
    assert pooled_spread(table_of([[1.0], [2.0]])) is None
    assert pooled_spread(table_of([[1.0, 1.5, 1.25]])) is None
    assert pooled_spread(table_of([[1.0, 1.5], [2.0, 2.5]])) is None
    assert pooled_spread([]) is None


def test_the_intervals_hold_the_truth_as_often_as_they_say() -> None:
    """Nine groups of three seeds that move all groups alike, no group better than another: 95 % of intervals hold zero."""
    random = np.random.default_rng(1)
    hits, rounds = 0, 1500
    for _ in range(rounds):
        groups = random.normal(1.8, 0.003, (9, 3)) + random.normal(0.0, 0.01, 3)
        spread = pooled_spread(table_of(groups.tolist()))
        assert spread is not None
        interval = difference_interval(float(groups[0].mean() - groups[1].mean()), spread, 3)
        hits += interval.low <= 0 <= interval.high
    assert abs(hits / rounds - 0.95) < 4 * math.sqrt(0.95 * 0.05 / rounds)


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.1, 0.2, "better"),
        (-0.2, -0.1, "worse"),
        (-0.1, 0.2, "within noise"),
        (0.0, 0.2, "within noise"),
        (0.0, 0.0, "unchanged"),
    ],
)
def test_verdicts(low: float, high: float, verdict: str) -> None:
    assert Interval(float(low), float(high)).verdict == verdict


def test_groups_of_the_same_weights_are_compared_over_documents(ablation: Path) -> None:
    found = read_ablation(ablation)
    gain = found.ladder[1].gains["plain"]
    sums = []
    for group in ("tiny+gain", "tiny+clip"):
        costs = []
        for seed in (1, 2, 3):
            with np.load(ablation / f"{group}-{seed}" / "ledger.npz") as ledger:
                starts, sizes = ledger["documents"], ledger["bytes"].astype(np.int64)
                costs.append(np.add.reduceat(ledger["plain_nll"].astype(np.float64), starts) / math.log(2))
        sums.append(np.mean(costs, axis=0))
    lengths = np.add.reduceat(sizes, starts)
    saved = sums[0] - sums[1]
    ratio = saved.sum() / lengths.sum()
    error = math.sqrt(len(saved) * np.sum((saved - ratio * lengths) ** 2) / (len(saved) - 1)) / lengths.sum()
    low, high = stats.t.interval(0.95, len(saved) - 1, ratio, error)
    assert gain.noise == "documents"
    assert gain.interval is not None
    assert (gain.value, gain.error) == (pytest.approx(ratio, rel=1e-9), pytest.approx(error, rel=1e-9))
    assert (gain.interval.low, gain.interval.high) == (pytest.approx(low, rel=1e-9), pytest.approx(high, rel=1e-9))


def test_one_seed_has_no_interval_over_seeds_but_one_over_documents(tmp_path: Path) -> None:
    found = read_ablation(make_ablation(tmp_path / "one", {name: shifts[:1] for name, shifts in SHIFTS.items()}, seeds=(1,)))
    apart, shared = found.ladder[0].gains[RESULT], found.ladder[1].gains[RESULT]
    assert (apart.interval, apart.error, apart.verdict) == (None, None, "")
    assert shared.interval is not None
    assert found.groups["tiny"].deviation("plain") is None


def test_without_ledgers_or_with_one_document_shared_weights_give_no_interval(ablation: Path, tmp_path: Path) -> None:
    (ablation / "tiny+clip-2" / "ledger.npz").unlink()
    found = read_ablation(ablation)
    assert found.ladder[1].gains["plain"].interval is None
    expected = values(ablation, "tiny+gain", "plain").mean() - values(ablation, "tiny+clip", "plain").mean()
    assert found.ladder[1].gains["plain"].value == pytest.approx(expected, abs=1e-12)
    single = read_ablation(make_ablation(tmp_path / "single", SHIFTS, documents=1))
    assert single.ladder[1].gains["plain"].interval is None


def test_a_part_of_the_runs_is_a_smaller_ablation(tmp_path: Path) -> None:
    shifts = {**SHIFTS, "tiny+clip": SHIFTS["tiny+clip"][:2], "tiny+decay": ()}
    root = make_ablation(tmp_path / "part", shifts)
    found = read_ablation(root)
    assert found.missing == ("tiny+clip-3", "tiny+decay-1", "tiny+decay-2", "tiny+decay-3")
    assert [item.verdict for item in found.ladder][2] == "not run yet"
    assert found.systems[0].gains == {}
    assert set(found.ladder[1].gains["plain"].by_seed) == {1, 2}
    # Seeds that one side lacks would move the gain by what they do to both.
    only = read_ablation(make_ablation(tmp_path / "only", {**SHIFTS, "tiny": SHIFTS["tiny"][:1]})).ladder[0].gains["plain"]
    assert only.value == pytest.approx(float(np.diff([values(root, name, "plain")[0] for name in ("tiny+gain", "tiny")])[0]))
    assert only.paired is None
    spread = found.spreads["plain"]
    assert spread is not None
    # Of the family of gain and clip, which share weights, the one with more seeds stands for both.
    deviation, degrees = residual_deviation([values(root, group, "plain") for group in ("tiny", "tiny+gain")])
    assert (spread.degrees, spread.deviation) == (degrees, pytest.approx(deviation, rel=1e-6))


def test_the_document_holds_every_figure_and_is_json(ablation: Path) -> None:
    found = read_ablation(ablation)
    document = json.loads(json.dumps(ablation_document(found), allow_nan=False))
    assert [item["name"] for item in document["groups"]] == list(SHIFTS)
    assert document["groups"][0]["steps"] == 102.0
    assert document["groups"][0]["total_bytes"] == pytest.approx(np.mean(
        [sum((ablation / f"tiny-{seed}" / name).stat().st_size for name in ("model.fwz", "code.bundle")) for seed in (1, 2, 3)]
    ))  # fmt: skip
    assert document["ladder"][0]["technique"]["changes"] == {"model.query_gain": 2.0}
    gain = document["whole_ladder"]["gains"][RESULT]
    assert gain["gain"] == document["systems"][0]["gains"]["adapted"]["gain"]
    assert gain["low"] < gain["gain"] < gain["high"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda plan: plan.pop("seeds"), "field 'seeds' is None; it must be a list of whole numbers"),
        (lambda plan: plan.update(seeds=["1"]), "must be a list of whole numbers"),
        (lambda plan: plan.update(systems=["other"]), "must name groups of the same file"),
        (lambda plan: plan["groups"][1]["recipe"]["model"].update(width=64), "not those of their hash"),
        (lambda plan: plan["groups"][1]["recipe"]["model"].update(widht=64), "did you mean 'width'"),
        (lambda plan: plan["groups"].append("x"), "must be an object with named fields"),
        (lambda plan: plan["ladder"][1]["technique"].pop("why"), "field 'why' is missing"),
    ],
)
def test_a_damaged_plan_is_refused(ablation: Path, change, message: str) -> None:
    content = json.loads((ablation / "ablation.json").read_text())
    change(content)
    (ablation / "ablation.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=message):
        read_plan(ablation)


def test_a_plan_comes_back_from_its_file(ablation: Path) -> None:
    assert read_plan(ablation) == make_plan()


def test_runs_that_do_not_belong_are_refused(ablation: Path) -> None:
    plan = read_plan(ablation)
    folder = ablation / "tiny-2"
    content = json.loads((folder / "recipe.json").read_text())
    (folder / "recipe.json").write_text(json.dumps({**content, "seed": 9}))
    with pytest.raises(DataError, match=r"tiny-2 is not a run of tiny with seed 2: seed=9"):
        read_ablation(ablation)
    changed = {**content, "model": {**content["model"], "query_gain": 9.0}}
    (folder / "recipe.json").write_text(json.dumps(changed))
    with pytest.raises(DataError, match=r"model\.query_gain=9\.0 \(was 5\.0\)"):
        read_ablation(ablation)
    (folder / "recipe.json").write_text(json.dumps(content))
    other = make_member(ablation, plan.groups[0], 4, 0.0, documents=30)
    other.rename(ablation / "moved")
    for name in ("score.json", "ledger.npz"):
        (folder / name).write_bytes((ablation / "moved" / name).read_bytes())
    with pytest.raises(DataError, match="score both on the same tokens and bytes"):
        read_ablation(ablation)

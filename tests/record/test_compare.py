"""Comparison of run folders and published records: figures, refusals, and what is said about single runs."""

import contextlib
import io
import json
import math
import re
import shutil
import statistics
from dataclasses import replace
from pathlib import Path

import pytest
from scipy import stats

from fairway.base.errors import DataError
from fairway.cli import main
from fairway.record.compare import Comparison
from fairway.record.compare import compare as compare_results
from fairway.record.results import Result, read_results, read_run
from fairway.record.units import Margin, Unit
from record.record_cases import make_scored_run


def command(*words: object) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of ``fairway compare``."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(["compare", *map(str, words)])
    return code, out.getvalue(), err.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three seeds of one recipe, three of another whose text costs 0.02 bits per byte more; do not write into it."""
    root = tmp_path_factory.mktemp("runs")
    for seed in (1, 2, 3):
        make_scored_run(root / f"new-{seed}", seed=seed, changes={"optim.ema_decay": 0.9})
        make_scored_run(root / f"old-{seed}", seed=seed, shift=0.02)
    return root


def runs(folder: Path, name: str, *seeds: int) -> list[Path]:
    return [folder / f"{name}-{seed}" for seed in seeds or (1, 2, 3)]


def results(paths: list[Path], pass_name: str | None = None) -> list[Result]:
    return [result for path in paths for result in read_results(path, pass_name)]


@pytest.fixture(scope="module")
def compared(folder: Path) -> Comparison:
    return compare_results(results(runs(folder, "new")), results(runs(folder, "old")))


def test_means_deviations_and_gap_come_from_the_files(folder: Path, compared: Comparison) -> None:
    for side, name in ((compared.new, "new"), (compared.reference, "old")):
        documents = [json.loads((path / "score.json").read_text()) for path in runs(folder, name)]
        for unit, field in ((Unit.BPB, "bits_per_byte"), (Unit.NATS_PER_TOKEN, "nats_per_token")):
            values = [document[field] for document in documents]
            summary = side.summary(unit)
            assert summary.mean == pytest.approx(statistics.fmean(values), rel=1e-12)
            assert summary.deviation == pytest.approx(statistics.stdev(values), rel=1e-9)
            assert summary.count == 3
    assert compared.gap(Unit.BPB) == pytest.approx(0.02, abs=0.006)
    assert compared.gap(Unit.NATS_PER_TOKEN) == pytest.approx(
        compared.gap(Unit.BPB) * math.log(2) * compared.text.bytes / compared.text.tokens
    )
    assert compared.discrepancies == ()


def test_each_rule_has_its_test(folder: Path, compared: Comparison) -> None:
    values = [[read_run(path).nats_per_token for path in runs(folder, name)] for name in ("new", "old")]
    leaderboard, readme = compared.answers
    for answer, margin in ((leaderboard, 0.0), (readme, 0.005)):
        shifted = [value - margin for value in values[1]]
        expected = stats.ttest_ind(shifted, values[0], equal_var=False, alternative="greater")
        found = answer.significance
        assert (found.t, found.degrees, found.p) == pytest.approx((expected.statistic, expected.df, expected.pvalue), rel=1e-9)
        assert answer.accepted == (expected.pvalue < answer.level)
    assert (leaderboard.level, readme.level) == (0.25, 0.01)
    assert "leaderboard" in leaderboard.rule
    assert "README" in readme.rule


def test_the_paired_difference_is_the_gap_with_a_far_smaller_error(compared: Comparison) -> None:
    assert compared.paired is not None
    assert compared.paired.difference == pytest.approx(compared.gap(Unit.BPB), rel=1e-6)
    assert compared.paired.documents == 40
    assert compared.paired.t > 10
    assert any("does not show what other seeds would give" in sentence for sentence in compared.conclusions)
    assert "Settings that differ, new and reference: optim.ema_decay 0.9 and 0.95." in compared.conclusions


def test_what_would_be_needed(compared: Comparison) -> None:
    spread = [side.summary(Unit.BPB).deviation or 0.0 for side in (compared.new, compared.reference)]
    pooled = math.sqrt((spread[0] ** 2 + spread[1] ** 2) / 2)
    assert compared.needed["deviation_bpb"] == pytest.approx(pooled)
    margin = 0.005 / math.log(2) * compared.text.tokens / compared.text.bytes
    assert compared.needed["gap_bpb"] == pytest.approx(margin + 3.746947 * pooled * math.sqrt(2 / 3), rel=1e-6)


def test_the_command_prints_tables_or_one_document(folder: Path) -> None:
    words = [*runs(folder, "new"), "--against", *runs(folder, "old")]
    code, text, error = command(*words)
    assert code == 0, error
    for part in (
        "nats per token",
        "deviation (ddof 1)",
        "Welch",
        "leaderboard rule",
        "README rule",
        "Paired over 40 documents",
        "gap",
    ):
        assert part in text
    code, text, _ = command(*words, "--json", "--margin", "0.01", "--unit", "bpb", "--pass", "plain")
    assert code == 0
    document = json.loads(text)
    assert document["margin"]["in_bpb"] == 0.01
    assert {run["pass"] for run in document["sides"]["new"]["runs"]} == {"plain"}
    assert document["tests"][1]["rule"] == "is it better by the margin?"
    assert document["gap"]["bpb"] == pytest.approx(0.02, abs=0.006)


def test_the_document_is_strict_json_whatever_the_figures(compared: Comparison) -> None:
    assert compared.paired is not None
    certain = replace(compared, paired=replace(compared.paired, standard_error=0.0, t=math.inf))
    document = json.loads(json.dumps(certain.to_dict(), allow_nan=False))
    assert document["paired"]["t"] is None
    assert document["paired"]["documents"] == 40


def test_no_better_is_a_result_and_not_an_error(folder: Path) -> None:
    code, text, _ = command(*runs(folder, "old"), "--against", *runs(folder, "new"))
    assert code == 0
    assert "no: p >= 0.25" in text
    assert "no number of seeds would do" in text


def test_without_a_margin_there_is_one_question(folder: Path) -> None:
    found = compare_results(results(runs(folder, "new")), results(runs(folder, "old")), Margin(0.0, Unit.BPB))
    assert [answer.level for answer in found.answers] == [0.25]


def test_a_single_run_says_what_cannot_be_concluded(folder: Path) -> None:
    both = compare_results(results(runs(folder, "new", 1)), results(runs(folder, "old", 1)))
    assert not both.answers
    assert not both.needed
    assert both.paired is not None
    assert any(
        "Each side is a single run" in sentence and "nothing can be concluded" in sentence for sentence in both.conclusions
    )
    ours = compare_results(results(runs(folder, "new", 1)), results(runs(folder, "old")))
    assert not ours.answers
    assert any("The new side is a single run" in sentence for sentence in ours.conclusions)
    theirs = compare_results(results(runs(folder, "new")), results(runs(folder, "old", 1)))
    assert [answer.test for answer in theirs.answers] == ["one-sample", "one-sample"]
    assert any("not whether the new method is better" in sentence for sentence in theirs.conclusions)
    values = [read_run(path).bits_per_byte for path in runs(folder, "new")]
    expected = stats.ttest_1samp(values, read_run(folder / "old-1").bits_per_byte, alternative="less")
    assert theirs.answers[0].significance.p == pytest.approx(expected.pvalue)
    code, text, _ = command(folder / "new-1", "--against", folder / "old-1")
    assert code == 0
    assert "unknown" in text


def test_other_text_and_other_runs_are_refused(folder: Path, tmp_path: Path) -> None:
    other_data = make_scored_run(tmp_path / "data", text_seed=1)
    whole = make_scored_run(tmp_path / "whole", partial=False)
    rule = make_scored_run(tmp_path / "rule", byte_rule="piece table")
    longer = make_scored_run(tmp_path / "longer", documents=41)
    moved = shutil.copytree(folder / "new-1", tmp_path / "moved")
    for runs_given, words in (
        ([folder / "new-1", "--against", other_data], "was scored on data 0000000000000000, .* on data 0000000000000001"),
        ([folder / "new-1", "--against", whole], "scored a leading part of the text, .* all of it"),
        ([folder / "new-1", "--against", rule], "counts bytes by the rule"),
        ([folder / "new-1", "--against", longer], "score both on the same tokens and bytes"),
        ([folder / "new-1", folder / "new-1", "--against", folder / "old-1"], "are the same run"),
        ([folder / "new-1", "--against", folder / "new-1"], "are the same run"),
        ([folder / "new-1", "--against", folder / "x" / ".." / "new-1"], "are the same run|does not exist"),
        ([folder / "new-1", moved, "--against", folder / "old-1"], "the same artifact with the same score"),
        (
            [folder / "new-1", folder / "old-1", "--against", folder / "old-2"],
            "optim.ema_decay 0.9 and 0.95; put them",
        ),
        ([folder / "new-1", "--against", tmp_path / "nothing"], "does not exist"),
        (
            [folder / "new-1", "--against", folder / "old-1", "--pass", "adapted"],
            "no pass 'adapted'; it has plain, sliding",
        ),
        ([folder / "new-1"], "needs runs on both sides"),
        ([folder / "new-1", "--against", folder / "old-1", "--margin", "-1"], "not a number of at least 0"),
    ):
        code, out, error = command(*runs_given)
        assert code == 2, (runs_given, out)
        assert error.count("\n") == 1
        assert re.search(words, error), error


def test_passes_of_one_side_must_be_one_pass(folder: Path, tmp_path: Path) -> None:
    plain = make_scored_run(tmp_path / "plain", seed=4, passes=("plain",), changes={"optim.ema_decay": 0.9})
    with pytest.raises(DataError, match="name one pass for all with --pass"):
        compare_results(results([folder / "new-1", plain]), results(runs(folder, "old")))
    together = compare_results(results([folder / "new-1", plain], "plain"), results(runs(folder, "old"), "plain"))
    assert together.new.results[1].pass_name == "plain"
    across = compare_results(results([plain]), results([folder / "old-1"]))
    assert any("the gap includes the way of scoring" in sentence for sentence in across.conclusions)


def test_seed_and_machine_may_differ(folder: Path, tmp_path: Path) -> None:
    elsewhere = make_scored_run(tmp_path / "gpu", seed=4, shift=0.02, changes={"machine.threads": 1})
    found = compare_results(results(runs(folder, "new")), results([*runs(folder, "old"), elsewhere]))
    assert found.reference.summary(Unit.BPB).count == 4


def test_a_repeated_seed_and_other_code_are_remarked_on(folder: Path, tmp_path: Path) -> None:
    again = make_scored_run(tmp_path / "again", seed=1, shift=0.0200001)
    (again / "code.bundle").write_bytes(b"new code")
    found = compare_results(results([*runs(folder, "old"), again]), results(runs(folder, "new")))
    assert any("seed occurs twice on the new side" in sentence for sentence in found.conclusions)
    assert any("different versions of the code" in sentence for sentence in found.conclusions)
    assert found.discrepancies == ()


def test_a_score_that_its_ledger_does_not_show_is_a_discrepancy(folder: Path, tmp_path: Path) -> None:
    forged = make_scored_run(tmp_path / "forged", seed=9)
    document = json.loads((forged / "score.json").read_text())
    better = document["passes"]["sliding"]
    for name in ("nats", "bits_per_byte", "nats_per_token"):
        better[name] *= 0.99
    (forged / "score.json").write_text(json.dumps({**document, **better, "total_bytes": 5, "byte_cap": 20}))
    found = compare_results(results([forged]), results(runs(folder, "old")))
    text = " ".join(found.discrepancies)
    assert "bits_per_byte is stated as" in text
    assert "total_bytes is stated as 5" in text
    assert "over the cap of 20" in text


def test_without_ledgers_there_is_no_pairing(folder: Path, tmp_path: Path) -> None:
    bare = shutil.copytree(folder / "new-1", tmp_path / "bare")
    (bare / "ledger.npz").unlink()
    found = compare_results(results([bare]), results([folder / "old-1"]))
    assert found.paired is None
    assert any("not every run has a ledger.npz" in sentence for sentence in found.conclusions)
    one = [make_scored_run(tmp_path / name, seed=seed, documents=1) for name, seed in (("a", 1), ("b", 2))]
    single = compare_results(results(one[:1]), results(one[1:]))
    assert any("the text is a single document" in sentence for sentence in single.conclusions)


def test_runs_of_equal_score_have_no_spread(tmp_path: Path) -> None:
    same = [make_scored_run(tmp_path / f"same-{i}", artifact=bytes([i])) for i in range(4)]
    found = compare_results(results(same[:2]), results(same[2:]))
    assert not found.answers
    assert any("no spread can be estimated" in sentence for sentence in found.conclusions)
    assert any("the same bits_per_byte" in sentence for sentence in found.discrepancies)


def published(folder: Path, path: Path, **changes: object) -> Path:
    """The old runs as a record's JSON."""
    documents = [json.loads((run / "score.json").read_text()) for run in runs(folder, "old")]
    seeds = {str(item["seed"]): {"val_bpb": item["bits_per_byte"], "val_loss": item["nats_per_token"]} for item in documents}
    content = {"name": "a record", "seeds": seeds, "tokens": documents[0]["tokens"], "bytes": documents[0]["bytes"], **changes}
    path.write_text(json.dumps({name: value for name, value in content.items() if value is not None}))
    return path


def test_a_published_record_is_a_side(folder: Path, tmp_path: Path, compared: Comparison) -> None:
    record = published(folder, tmp_path / "record.json")
    found = compare_results(results(runs(folder, "new")), read_results(record))
    for ours, theirs in zip(found.answers, compared.answers, strict=True):
        assert ours.significance.p == pytest.approx(theirs.significance.p, rel=1e-9)
    assert any("does not name its data" in sentence for sentence in found.conclusions)
    code, text, _ = command(*runs(folder, "new"), "--against", record)
    assert code == 0
    assert "a record seed 2" in text


def test_a_record_s_own_deviation_is_checked_and_not_used(folder: Path, tmp_path: Path) -> None:
    values = [read_run(run).bits_per_byte for run in runs(folder, "old")]
    record = published(
        folder, tmp_path / "record.json", val_bpb=statistics.fmean(values), val_bpb_std=statistics.pstdev(values)
    )
    found = compare_results(results(runs(folder, "new")), read_results(record))
    assert found.reference.summary(Unit.BPB).deviation == pytest.approx(statistics.stdev(values))
    assert any("divides by n" in sentence for sentence in found.discrepancies)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seeds": None, "val_bpb": 1.1, "val_bpb_std": 0.01}, "a mean and a deviation cannot be checked"),
        ({"seeds": [1, 2, 3]}, "a mean and a deviation cannot be checked"),
        ({"tokens": None}, "field 'tokens' is missing"),
        ({"tokens": "many"}, "must be int"),
        ({"tokens": 0}, "holds nothing"),
        ({"tokens": 1}, "the same tokens and bytes"),
        ({"seeds": {"1": {"val_loss": 2.0}}}, "val_bpb is None"),
        ({"seeds": {"1": {"val_bpb": 0.0}}}, "above 0"),
        ({"data_fingerprint": 7}, "must be str"),
        ({"seeds": {"1": {"val_bpb": "low"}}}, "must be float"),
        ({"seeds": {"1": 1.1}}, "must be an object"),
        ({"data_fingerprint": "another"}, "cannot be compared"),
    ],
)
def test_an_unusable_record_is_refused(folder: Path, tmp_path: Path, changes: dict, words: str) -> None:
    record = published(folder, tmp_path / "record.json", **changes)
    code, _, error = command(*runs(folder, "new"), "--against", record)
    assert code == 2
    assert words in error


def test_a_record_is_a_side_of_its_own(folder: Path, tmp_path: Path) -> None:
    record = published(folder, tmp_path / "record.json")
    with pytest.raises(DataError, match="a side of its own"):
        compare_results(results(runs(folder, "new")), [*read_results(record), *results([folder / "old-1"])])
    with pytest.raises(DataError, match="are the same run"):
        compare_results(read_results(record), read_results(record))


@pytest.mark.parametrize(
    "field", ["passes", "pass", "data_fingerprint", "seed", "partial", "byte_rule", "clock", "mode", "byte_cap"]
)
def test_a_damaged_score_is_a_data_error(tmp_path: Path, field: str) -> None:
    run = make_scored_run(tmp_path / "run")
    document = json.loads((run / "score.json").read_text())
    for damaged in ({key: value for key, value in document.items() if key != field}, {**document, field: None}, [document]):
        (run / "score.json").write_text(json.dumps(damaged))
        with pytest.raises(DataError, match="score"):
            read_run(run)
    (run / "score.json").unlink()
    with pytest.raises(DataError, match="score the run first"):
        read_run(run)


def test_a_recipe_of_another_version_is_a_data_error(tmp_path: Path) -> None:
    run = make_scored_run(tmp_path / "run")
    recipe = json.loads((run / "recipe.json").read_text())
    (run / "recipe.json").write_text(json.dumps({**recipe, "wings": 2}))
    with pytest.raises(DataError, match="wings"):
        read_run(run)

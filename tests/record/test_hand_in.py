"""A record that holds: every figure from the files, statistics as scipy has them, nothing of the machine or the data in it."""

import contextlib
import io
import json
import math
import re
import shutil
import statistics
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fairway.base.errors import DataError
from fairway.cli import main
from fairway.record import hand_in as module
from fairway.record.checks import Limits
from fairway.record.claim import claim_audit
from fairway.record.compare import compare
from fairway.record.figures import read_claim
from fairway.record.hand_in import HandedIn, hand_in, without_folders
from fairway.record.logs import requirements
from fairway.record.paired import read_costs, read_document_costs, write_document_costs
from fairway.record.results import read_results, read_run
from fairway.record.statistics import Summary, welch_test
from fairway.record.submission import About
from fairway.record.units import Margin, Unit
from record.finished_runs import DATA_FOLDER, PASSES, SEEDS, edit, make_finished_run

ME = About(name="a | better\nway".replace("\n", " "), blurb="It averages faster.", author="A. Author", github_id="author")


def command(*words: object) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of ``fairway record``."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(["record", *map(str, words)])
    return code, out.getvalue(), err.getvalue()


@pytest.fixture(scope="module")
def root(finished: Path) -> Path:
    return finished


def runs(root: Path, name: str) -> list[Path]:
    return [root / f"{name}-{seed}" for seed in SEEDS]


@pytest.fixture(scope="module")
def done(root: Path, tmp_path_factory: pytest.TempPathFactory) -> HandedIn:
    """A record, its runs named in another order than that of their seeds."""
    return hand_in(runs(root, "new")[::-1], runs(root, "old"), tmp_path_factory.mktemp("handed-in") / "record", about=ME)


def read(done: HandedIn, name: str) -> dict:
    return json.loads((done.folder / name).read_text())


def ledger_sums(run: Path, name: str = "adapted") -> tuple[float, int, int]:
    """Nats, tokens and bytes, from the ledger alone."""
    with np.load(run / "ledger.npz") as archive:
        nats, sizes = archive[f"{name}_nll"].astype(np.float64), archive["bytes"].astype(np.int64)
    return float(nats.sum()), len(nats), int(sizes.sum())


def test_the_folder_is_complete_and_passes_its_own_audit(done: HandedIn) -> None:
    names = {path.name for path in done.folder.iterdir()}
    expected = {"README.md", "submission.json", "record.json", "requirements.txt", "code.bundle", "proof_seed1.json"}
    for seed in SEEDS:
        expected |= {f"train_seed{seed}.log", f"audit_seed{seed}.json", f"costs_seed{seed}.npz"}
    assert names == expected
    assert not done.reasons
    document = read(done, "submission.json")
    assert document == json.loads(json.dumps(done.document))
    assert "draft" not in document
    finding = claim_audit(read_claim(done.folder / "submission.json"), files=names, limits=Limits(files=tuple(names)))
    assert finding.verdict == "pass", finding.reason
    page = (done.folder / "README.md").read_text()
    for name in names:
        assert f"`{name}`" in page


def test_every_figure_is_that_of_the_files(root: Path, done: HandedIn) -> None:
    document, page = read(done, "submission.json"), (done.folder / "README.md").read_text()
    assert document["seeds"] == ["1", "2", "3"]
    for seed, run in zip(SEEDS, runs(root, "new"), strict=True):
        score, found = json.loads((run / "score.json").read_text()), document["seed_results"][str(seed)]
        assert (found["val_bpb"], found["val_loss"]) == (score["bits_per_byte"], score["nats_per_token"])
        for ours, theirs in (("float", "prequant"), ("plain", "quantized"), ("sliding", "sliding")):
            assert found[f"{theirs}_bpb"] == score["passes"][ours]["bits_per_byte"]
            assert found[f"{theirs}_loss"] == score["passes"][ours]["nats_per_token"]
        assert found["model_bytes"] == (run / "model.fwz").stat().st_size
        assert found["code_bytes"] == (run / "code.bundle").stat().st_size
        assert found["total_bytes"] == found["model_bytes"] + found["code_bytes"] == 1_000_000 - found["headroom_bytes"]
        assert found["train_seconds"] == 580.0 + seed / 8 + 1.25
        assert (found["eval_seconds"], found["eval_wallclock_ms"]) == (40.25 + seed, 40_250 + 1000 * seed)
        assert found["steps"] == 2000 + seed
        row = next(line for line in page.splitlines() if line.startswith(f"| {seed} | "))
        for value in (f"{score['passes'][name]['bits_per_byte']:.8f}" for name in PASSES):
            assert value in row
        for value in (f"{2000 + seed:,}", f"{found['total_bytes']:,}", f"{found['headroom_bytes']:,}", f"{40.25 + seed:.1f}"):
            assert f" {value} " in row
        log = (done.folder / f"train_seed{seed}.log").read_text()
        assert log.startswith(f"2026-11-2{seed}T04:27:56+00:00 run recipe=tiny seed={seed}")
        assert f"val_loss={score['nats_per_token']} val_bpb={score['bits_per_byte']}\n" in log
        assert f"s stop reason=budget step={2000 + seed}\n" in log
    assert document["bytes_total"] == max(item["total_bytes"] for item in document["seed_results"].values())
    assert (document["author"], document["github_id"], document["date"]) == ("A. Author", "author", "2026-11-23")
    assert document["track"] is None
    assert "timed on 1 x cpu" in document["off_track_because"][0]
    assert document["compliance"]["score_first_ttt"]
    assert not document["compliance"]["proved_by_decoding"]
    assert not document["compliance"]["full_validation_targets"]


def test_the_statistics_are_scipy_s_from_the_ledgers(root: Path, done: HandedIn) -> None:
    """Means, deviations, Welch's test with margin, both intervals and the paired difference, from nothing but ledgers."""
    sums = {name: [ledger_sums(run) for run in runs(root, name)] for name in ("new", "old")}
    bpb = {name: [nats / math.log(2) / size for nats, _, size in side] for name, side in sums.items()}
    loss = {name: [nats / tokens for nats, tokens, _ in side] for name, side in sums.items()}
    document = read(done, "submission.json")
    assert document["val_bpb"] == pytest.approx(np.mean(bpb["new"]), rel=1e-12)
    assert document["val_bpb_std"] == pytest.approx(np.std(bpb["new"], ddof=1), rel=1e-9)
    assert document["val_loss"] == pytest.approx(np.mean(loss["new"]), rel=1e-12)
    assert document["val_loss_std"] == pytest.approx(np.std(loss["new"], ddof=1), rel=1e-9)
    compared, page = document["comparison"], (done.folder / "README.md").read_text()
    for item, margin, level in zip(compared["tests"], (0.0, 0.005), (0.25, 0.01), strict=True):
        shifted = [value - margin for value in loss["old"]]
        test = stats.ttest_ind(shifted, loss["new"], equal_var=False, alternative="greater")
        assert (item["t"], item["df"], item["p"]) == pytest.approx((test.statistic, test.df, test.pvalue), rel=1e-9)
        assert (item["accepted"], item["level"]) == (test.pvalue < level, level)
        for unit, values in (("bpb", bpb), ("nats_per_token", loss)):
            sides = values["old"], values["new"]
            low, high = stats.ttest_ind(*sides, equal_var=False).confidence_interval(0.95)
            least = stats.ttest_ind(*sides, equal_var=False, alternative="greater").confidence_interval(1 - level).low
            found = item[unit]
            assert found["gap"] == pytest.approx(np.mean(sides[0]) - np.mean(sides[1]), rel=1e-9)
            assert (found["interval_95_low"], found["interval_95_high"]) == pytest.approx((low, high), rel=1e-9)
            assert found["least_gap"] == pytest.approx(least, rel=1e-9)
            assert (found["least_gap"] > found["margin"]) == item["accepted"]
        assert f"| {item['t']:.4f} | {item['df']:.3f} | {item['p']:.3g} | yes, p < {level:g} |" in page
    nats, size = [], None
    for name in ("old", "new"):
        costs = [read_costs(run / "ledger.npz", "adapted") for run in runs(root, name)]
        nats.append(np.mean([item.nats for item in costs], axis=0) / math.log(2))
        size = costs[0].bytes
    difference = (nats[0] - nats[1]).sum() / size.sum()
    rest = nats[0] - nats[1] - difference * size
    error = math.sqrt(len(size) / (len(size) - 1) * (rest**2).sum()) / size.sum()
    paired = compared["paired_over_documents"]
    assert (paired["difference"], paired["standard_error"]) == pytest.approx((difference, error), rel=1e-9)
    assert "The test is unpaired: Welch's" in page
    assert f"{difference:+.8f} bpb, standard error {error:.8f}" in page


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_the_lower_bound_says_what_the_p_value_says(data: st.DataObject) -> None:
    values = st.lists(st.floats(1.0, 2.0), min_size=2, max_size=6, unique=True)
    new, reference = (Summary.of(data.draw(values), Unit.BPB) for _ in range(2))
    margin, level = data.draw(st.floats(0.0, 0.5)), data.draw(st.floats(0.001, 0.4))
    found = welch_test(new, reference, Margin(margin, Unit.BPB))
    if abs(found.p - level) > 1e-6:
        assert (found.least(level) > found.margin) == (found.p < level)


def test_the_page_has_no_unfilled_field_and_no_broken_table(done: HandedIn) -> None:
    page = (done.folder / "README.md").read_text()
    assert not re.search(r"\bNone\b|\bnan\b|[{}]|TODO|TBD|<\w+>", page)
    assert page.startswith("# a \\| better way\n")
    for table in re.findall(r"(?:^\|.*\n)+", page, flags=re.M):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1
    for title in ("Lineage", "Results", "Comparison", "Validity", "How to make it again", "Files"):
        assert f"\n## {title}\n" in page
    assert "pr1394 → pr1413 → tiny → this run of tiny" in page
    assert "`optim.ema_decay` 0.95 → 0.9" in page
    assert "fairway run tiny --seed 2 --optim.ema-decay 0.9" in page
    assert "| score before update | pass | pass | pass |" in page
    assert "Seed 2: not proved by decoding" in page
    assert "Outside the challenge's track: timed on 1 x cpu" in page


def test_nothing_of_the_machine_or_the_text_is_handed_in(root: Path, done: HandedIn) -> None:
    for path in done.folder.iterdir():
        content = path.read_bytes()
        for hidden in (DATA_FOLDER, "somebody", str(root), str(root.parent)):
            assert hidden.encode() not in content, path.name
    assert read(done, "audit_seed1.json")["scorer"] == "model.fwz adapted"
    assert without_folders("in /home/me/x/model.fwz, 3 nats/token, runs/a, https://a.b/c/d, '/a/b'") == (
        "in model.fwz, 3 nats/token, runs/a, https://a.b/c/d, 'b'"
    )
    with np.load(done.folder / "costs_seed1.npz") as archive:
        assert {name: len(np.atleast_1d(archive[name])) for name in archive.files} == {
            "nats": 40, "bytes": 40, "starts": 40, "tokens": 1, "text": 32,
        }  # fmt: skip


def test_a_witness_s_text_stays_behind(root: Path, tmp_path: Path) -> None:
    run = shutil.copytree(root / "new-1", tmp_path / "run")
    witness = {
        "position": 3,
        "tokens": {"first": {"tokens": [71, 72, 73]}},
        "expected": 0.0,
        "found": 1.0,
        "how": "at /home/me/f",
    }
    edit(run / "audit.json", lambda content: content["findings"][0].update(witness=witness))
    found = hand_in([run], [], tmp_path / "draft", draft=True)
    shown = json.loads((found.folder / "audit_seed1.json").read_text())["findings"][0]["witness"]
    assert shown == {**witness, "tokens": {}, "how": "at f"}


def test_equal_runs_give_equal_folders(root: Path, done: HandedIn, tmp_path: Path) -> None:
    again = hand_in(runs(root, "new"), runs(root, "old"), tmp_path / "again", about=ME)
    for path in done.folder.iterdir():
        assert path.read_bytes() == (again.folder / path.name).read_bytes(), path.name


def test_a_record_is_what_a_later_one_must_beat(root: Path, done: HandedIn, tmp_path: Path) -> None:
    """As a side of a comparison, the folder and its ``record.json`` say what the runs say, pairing included."""
    old = [read_run(run) for run in runs(root, "old")]
    by_runs = compare(old, [read_run(run) for run in runs(root, "new")])
    for path in (done.folder, done.folder / "record.json"):
        back = compare(old, read_results(path))
        assert back.paired is not None
        assert back.paired == by_runs.paired
        for ours, theirs in zip(back.answers, by_runs.answers, strict=True):
            assert ours.significance.t == pytest.approx(theirs.significance.t, rel=1e-9)
        assert back.reference.results[0].mode == "strict"
        assert any("optim.ema_decay" in sentence for sentence in back.conclusions)
        assert not back.discrepancies
    for seed in SEEDS:
        make_finished_run(tmp_path / f"next-{seed}", seed=seed, shift=-0.03)
    code, text, error = command(
        *(tmp_path / f"next-{seed}" for seed in SEEDS), "--against", done.folder, "--out", tmp_path / "next", "--author", "B",
        "--github-id", "b", "--json",
    )  # fmt: skip
    assert code == 0, error
    compared = json.loads(text)["submission"]["comparison"]
    assert (compared["reference"], list(compared["reference_seeds"])) == ("tiny", ["1", "2", "3"])
    assert compared["tests"][1]["accepted"]
    assert compared["paired_over_documents"]["documents"] == 40


def test_a_record_alone_is_compared_without_pairs_and_an_altered_one_refused(
    root: Path, done: HandedIn, tmp_path: Path
) -> None:
    alone = shutil.copy(done.folder / "record.json", tmp_path / "alone.json")
    found = compare([read_run(run) for run in runs(root, "old")], read_results(Path(alone)))
    assert found.paired is None
    assert found.answers
    copy = shutil.copytree(done.folder, tmp_path / "copy")
    original = (copy / "record.json").read_text()
    for change, words in (
        (lambda content: content["seeds"]["2"].update(val_bpb=1.5), "adds up to .* record.json states 1.5"),
        (lambda content: content["seeds"]["2"].update(costs_sha256="0" * 64), "was altered"),
        (lambda content: content["seeds"]["2"].update(costs="../costs_seed1.npz"), "must name a file beside it"),
        (lambda content: content.update(version=2), "this reader knows 1"),
        (lambda content: {name: value for name, value in content.items() if name != "mode"}, "'mode' is missing"),
    ):
        edit(copy / "record.json", change)
        with pytest.raises(DataError, match=words):
            read_results(copy)
        (copy / "record.json").write_text(original)
    edit(copy / "record.json", lambda content: content.update(recipe={"wings": 2}))
    assert read_results(copy)[0].recipe is None


def test_costs_by_document_come_back_exactly_or_not_at_all(root: Path, tmp_path: Path) -> None:
    costs, path = read_costs(root / "new-1" / "ledger.npz", "plain"), tmp_path / "costs.npz"
    write_document_costs(path, costs)
    back = read_document_costs(path)
    assert back.same_text(costs)
    assert (back.tokens, back.nats.tolist(), back.bytes.tolist()) == (costs.tokens, costs.nats.tolist(), costs.bytes.tolist())
    assert back.bits_per_byte == read_run(root / "new-1", "plain").bits_per_byte
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="restore the folder"):
        read_document_costs(path)
    np.savez(
        path, nats=np.ones(2), bytes=np.ones(3, np.int64), starts=np.arange(2), tokens=np.int64(3), text=np.zeros(32, np.uint8)
    )
    with pytest.raises(DataError, match="do not fit together"):
        read_document_costs(path)


def test_requirements_pin_what_was_recorded_and_say_what_was_not(done: HandedIn) -> None:
    text = (done.folder / "requirements.txt").read_text()
    assert "torch==2.13.0  # ran with the build cpu\n" in text
    assert "numpy==2.4.6\n" in text
    assert text.startswith("# Python 3.11.7, fairway 0.1.0\n")
    libraries = [re.split(r"[=<> ]", line)[0] for line in text.splitlines() if not line.startswith("#")]
    assert len(libraries) == len(set(libraries))
    assert requirements.__doc__


def test_a_failure_in_the_middle_leaves_nothing(
    root: Path, done: HandedIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> str:
        raise RuntimeError("power cut")

    kept = shutil.copytree(done.folder, tmp_path / "kept")
    monkeypatch.setattr(module, "readme", fail)
    for out, overwrite in ((tmp_path / "out", False), (kept, True)):
        with pytest.raises(RuntimeError, match="power cut"):
            hand_in(runs(root, "new"), runs(root, "old"), out, about=ME, overwrite=overwrite)
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
    for path in done.folder.iterdir():
        assert path.read_bytes() == (kept / path.name).read_bytes()


def test_what_is_written_must_pass_before_it_is_in_place(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A figure that changes between reading and writing is found by the audit of the folder itself."""
    original = module.write_json

    def wrong(path: Path, document: dict) -> None:
        original(path, {**document, "val_bpb": document["val_bpb"] - 0.1} if path.name == "submission.json" else document)

    monkeypatch.setattr(module, "write_json", wrong)
    code, _, error = command(
        *runs(root, "new"), "--against", *runs(root, "old"), "--out", tmp_path / "out", "--author", "A", "--github-id", "a"
    )
    assert (code, error.count("\n")) == (1, 1)
    assert "does not pass the claim audit: the stated mean" in error
    assert not list(tmp_path.iterdir())


def test_the_command_says_what_it_wrote(root: Path, tmp_path: Path) -> None:
    words = [
        *runs(root, "new"),
        "--against",
        *runs(root, "old"),
        "--out",
        tmp_path / "out",
        "--author",
        "A",
        "--github-id",
        "a",
    ]
    code, text, error = command(*words)
    assert (code, error) == (0, "")
    values = [read_run(run).bits_per_byte for run in runs(root, "new")]
    assert f"tiny: {statistics.fmean(values):.8f} bpb, mean of 3 seeds" in text
    assert "README rule yes: Welch's t" in text
    assert f"record written: {tmp_path / 'out'}, 15 files" in text
    code, _, error = command(*words)
    assert (code, error.count("\n")) == (2, 1)
    assert "already holds a record; use --overwrite" in error
    assert command(*words, "--overwrite")[0] == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--out", "{}"], "needs runs and a folder"),
        (["{}"], "needs runs and a folder"),
        (["{}", "--out", "{}/x", "--margin", "-1"], "not a number of at least 0"),
        (["{}", "--out", "{}/x", "--unit", "bits"], "invalid choice"),
        (["{}", "--out", "{}/x", "--autor", "A"], "did you mean --author"),
        (["{}", "--out", "{}/x", "--author", "two\nlines"], "holds control characters"),
        (["{}", "--out", "{}/x", "--name", "\ud800"], "is no UTF-8"),
        (["{}", "--out", "{}"], "left alone; choose another --out"),
        (["{}/nothing", "--out", "{}/x"], "holds no score.json"),
    ],
)
def test_mistakes_are_lines_that_say_so(tmp_path: Path, words: list[str], said: str) -> None:
    (tmp_path / "file").write_text("")
    code, out, error = command(*(word.format(tmp_path) for word in words))
    assert code == 2
    assert not out
    assert said in error
    assert all(re.match(r"\w+Error: |refused", line) for line in error.splitlines())
    assert "Traceback" not in error

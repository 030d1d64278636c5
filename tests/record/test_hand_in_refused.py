"""Every reason for which a record is refused, shown once: one line, nothing written, and told in the draft's first lines."""

import hashlib
import io
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fairway.artifact.container import read_artifact, write_artifact
from fairway.audit.accounting import KNOWN_TOTALS
from fairway.base.errors import DataError
from fairway.record.claim import claim_audit
from fairway.record.evidence import read_seed
from fairway.record.figures import read_claim
from fairway.record.hand_in import hand_in
from fairway.record.reasons import Refused
from fairway.record.submission import About, track_of
from record.finished_runs import SEEDS, audit, edit, make_finished_run
from record.test_hand_in import command

ME = ("--author", "A", "--github-id", "a")
SETTINGS = {"optim.ema_decay": 0.9}
"""Those of the new runs."""
AUTHOR = About(author="A", github_id="a")


@pytest.fixture
def root(finished: Path, tmp_path: Path) -> Path:
    """A copy of runs that nothing stands against."""
    return shutil.copytree(finished, tmp_path / "runs")


def sides(root: Path) -> tuple[list[Path], list[Path]]:
    """Whatever lies in the folder, as the two sides."""
    return sorted(root.glob("new-*")), sorted(root.glob("old-*"))


def all_new(name: str, change: Callable) -> Callable[[Path], None]:
    """Edit one JSON file of all new runs."""
    return lambda root: [edit(run / name, change) for run in sides(root)[0]] and None


def one_new(name: str, change: Callable) -> Callable[[Path], None]:
    return lambda root: edit(root / "new-2" / name, change)


def all_old(name: str, change: Callable) -> Callable[[Path], None]:
    return lambda root: [edit(run / name, change) for run in sides(root)[1]] and None


def pack(root: Path, name: str = "new-2", **header: object) -> None:
    """Pack one run's artifact anew with other fields in its header."""
    path = root / name / "model.fwz"
    artifact = read_artifact(path)
    write_artifact(path, artifact.tensors, {**artifact.header, **header})
    size = path.stat().st_size
    edit(root / name / "score.json", lambda score: score.update(artifact_bytes=size, total_bytes=size + 8))


def ledger(root: Path, change: Callable[[dict[str, np.ndarray]], None]) -> None:
    path = root / "new-2" / "ledger.npz"
    with np.load(path) as archive:
        arrays = dict(archive)
    change(arrays)
    np.savez(path, **arrays)


def cheaper(arrays: dict[str, np.ndarray]) -> None:
    arrays["adapted_nll"] = arrays["adapted_nll"] * np.float32(1.01)


def under_a_cap(root: Path) -> None:
    all_new("recipe.json", lambda recipe: recipe["artifact"].update(byte_cap=200))(root)
    all_new("score.json", lambda score: score.update(byte_cap=200))(root)


def of_steps(root: Path) -> None:
    all_new("recipe.json", lambda recipe: recipe["train"].update(budget=2002.0, budget_unit="steps"))(root)


def other_text(root: Path) -> None:
    for seed in SEEDS:
        shutil.rmtree(root / f"old-{seed}")
        make_finished_run(root / f"old-{seed}", seed=seed, shift=0.03, text_seed=1)


def other_data_of_one(root: Path) -> None:
    shutil.rmtree(root / "new-2")
    make_finished_run(root / "new-2", seed=2, text_seed=1, changes=SETTINGS)


def seed_again(root: Path) -> None:
    make_finished_run(root / "new-4", seed=1, shift=0.0001, changes=SETTINGS)


def small_gap(root: Path) -> None:
    for seed in SEEDS:
        shutil.rmtree(root / f"old-{seed}")
        make_finished_run(root / f"old-{seed}", seed=seed, shift=0.002)


def no_gap(root: Path) -> None:
    for seed in SEEDS:
        (root / f"new-{seed}").rename(root / f"was-{seed}")
        (root / f"old-{seed}").rename(root / f"new-{seed}")
        (root / f"was-{seed}").rename(root / f"old-{seed}")


def without(*names: str) -> Callable[[Path], None]:
    def remove(root: Path) -> None:
        for name in names:
            path = root / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    return remove


def changed_weights(root: Path) -> None:
    (root / "new-2" / "weights.safetensors").write_bytes(b"of another training")


def truncated(name: str) -> Callable[[Path], None]:
    def cut(root: Path) -> None:
        content = (root / "new-2" / name).read_bytes()
        (root / "new-2" / name).write_bytes(content[: len(content) // 2])

    return cut


def still_training(root: Path) -> None:
    (root / "new-2" / "state").mkdir()
    (root / "new-2" / "state" / "training.safetensors").write_bytes(b"half")


def without_stop(root: Path) -> None:
    path = root / "new-2" / "metrics.jsonl"
    path.write_text("".join(line + "\n" for line in path.read_text().splitlines() if '"stop"' not in line))


def audited(**what: tuple[str, ...]) -> Callable[[Path], None]:
    return one_new("audit.json", lambda content: audit("model.fwz adapted", **what))


def audited_sizes(root: Path) -> None:
    """The audit measured another artifact."""

    def change(content: dict) -> None:
        (finding,) = (item for item in content["findings"] if item["test"] == "Z")
        finding["details"] = {"artifact_bytes": 100, "code_bytes": 8}

    edit(root / "new-2" / "audit.json", change)


def clock(name: str, seconds: float, counted: bool) -> Callable[[Path], None]:
    return one_new("score.json", lambda score: score["clock"].update({name: {"seconds": seconds, "counted": counted}}))


REFUSALS: dict[str, tuple[Callable[[Path], None], str]] = {
    "byte cap": (under_a_cap, r"BudgetError: seed 1: \d+ bytes are over the cap of 200; pack it smaller"),
    "training time": (
        all_new("recipe.json", lambda recipe: recipe["train"].update(budget=581.5)),
        "BudgetError: seed 3: train_seconds 581.6 is over the cap of 581.5; train again",
    ),
    "training steps": (of_steps, "BudgetError: .*new-3 took 2,003 steps, its budget is 2,002"),
    "evaluation time": (clock("adapted", 600.0, True), "BudgetError: seed 2: eval_seconds 600.2 is over the cap of 600.0"),
    "hint tables off the clock": (clock("hints", 560.0, False), "BudgetError: seed 2: eval_seconds 602.2 is over"),
    "raised cap": (
        one_new("score.json", lambda score: score.update(byte_cap=2_000_000)),
        "BudgetError: .*held to 2,000,000 bytes, its recipe's cap is 1,000,000",
    ),
    "other settings": (
        one_new("recipe.json", lambda recipe: recipe["optim"].update(ema_decay=0.8)),
        "DataError: .*new-1 and .*new-2 are not two seeds of one recipe: optim.ema_decay 0.9 and 0.8",
    ),
    "other code": (
        lambda root: (root / "new-2" / "code.bundle").write_bytes(b"FWBUNDLF") and None,
        "ValidityError: .*new-1 and .*new-2 were made by different code, SHA-256 ",
    ),
    "other data": (other_data_of_one, "ValidityError: .*differ in data: '0000000000000000' and '0000000000000001'"),
    "other tokenizer": (lambda root: pack(root, tokenizer_sha256="other"), "ValidityError: .*differ in tokenizer_sha256: "),
    "other library": (
        one_new("environment.json", lambda content: content["versions"].update(torch="2.14.0")),
        "ValidityError: .*new-1 and .*new-2 differ in versions: ",
    ),
    "other machine": (
        one_new("environment.json", lambda content: content.update(device_name="NVIDIA H100")),
        "ValidityError: .*differ in device_name: 'cpu' and 'NVIDIA H100'",
    ),
    "ledger of another score": (
        lambda root: ledger(root, cheaper),
        r"ValidityError: seed 2: bits_per_byte is stated as 1\.6\d+, logged as 1\.6\d+; score the run again",
    ),
    "another pass's figure": (
        one_new("score.json", lambda score: score["passes"]["plain"].update(bits_per_byte=1.0)),
        "ValidityError: seed 2: quantized_bpb is stated as 1.0, logged as 1.6",
    ),
    "altered ledger": (
        one_new("score.json", lambda score: score.update(ledger_sha256="0" * 64)),
        r"ValidityError: .*ledger.npz was altered: its SHA-256 is not 0000000000000000\.\.\.",
    ),
    "damaged ledger": (truncated("ledger.npz"), "DataError: .*ledger.npz cannot be read as a NumPy archive"),
    "other settings than the artifact": (
        lambda root: (
            pack(root, score={"stride": 8, "passes": ["adapted"]}),
            one_new("score.json", lambda score: score.update(settings={"stride": 4, "passes": ["plain", "adapted"]}))(root),
        ),
        "ValidityError: .*new-2 was scored with other settings than its artifact carries",
    ),
    "published order": (
        one_new("score.json", lambda score: score.update(mode="as_published")),
        "ValidityError: .*new-2 was scored in mode as_published; a record can be claimed from strict alone",
    ),
    "no audit": (without("new-2/audit.json"), "DataError: .*new-2 has no audit.json, so the run is incomplete; make it with"),
    "failed audit": (audited(failing=("F",)), "ValidityError: .*new-2: audit fail: causal: F: what future perturbation came"),
    "undecided audit": (
        audited(undecided=("F", "S", "K", "O", "D")), "ValidityError: .*new-2: audit undecided: causal: .*; every condition",
    ),
    "audit undecided about bytes": (
        audited(undecided=("Y",)), "ValidityError: .*new-2: audit pass: bytes: Y: what byte accounting came to; every",
    ),
    "audit of another pass": (
        one_new("audit.json", lambda content: content.update(scorer="model.fwz plain")),
        "ValidityError: .*audit.json is about pass plain, the result is of adapted",
    ),
    "audit of another artifact": (
        audited_sizes, r"ValidityError: .*audit.json is about artifact_bytes 100, model.fwz now has \d+",
    ),
    "damaged audit": (truncated("audit.json"), "DataError: .*audit.json is not valid JSON"),
    "small gap": (
        small_gap,
        r"ValidityError: significance is not there: a gap of \+0.00\d+ bpb .* does not show an improvement of 0.005 nats per "
        r"token at p < 0.01: Welch's t .* 3 seeds on each side with this spread need a gap of 0.00\d+ bpb, and no number of",
    ),
    "worse": (no_gap, "ValidityError: significance is not there: a gap of -0.02"),
    "no reference": (without("old-1", "old-2", "old-3"), "DataError: nothing is given to compare with"),
    "one run as the reference": (
        without("old-2", "old-3"), "ValidityError: the reference is a single run, .* give at least 2 more seeds of it",
    ),
    "seed twice": (seed_again, r"ValidityError: seed 1 is given 2 times \(.*new-1, .*new-4\)"),
    "two seeds": (without("new-3"), "ValidityError: 2 runs are evidenced, 3 are needed; run more seeds"),
    "one seed": (without("new-2", "new-3"), "ValidityError: significance cannot be shown: The new side is a single run"),
    "no log": (without("new-2/metrics.jsonl"), "DataError: .*new-2 has no metrics.jsonl, so the run is incomplete"),
    "damaged log": (truncated("metrics.jsonl"), "DataError: .*metrics.jsonl line .* is not valid JSON"),
    "no ledger": (without("new-2/ledger.npz"), "DataError: .*new-2 has no ledger.npz"),
    "no artifact": (without("new-2/model.fwz"), "DataError: .*new-2 has no model.fwz"),
    "damaged artifact": (truncated("model.fwz"), "ArtifactError: .*model.fwz"),
    "training not ended": (still_training, "DataError: .*still holds a training state"),
    "training without an end": (without_stop, "DataError: .*tells no end of training"),
    "other weights": (changed_weights, "ValidityError: .*was packed from other weights than weights.safetensors now holds"),
    "artifact of another seed": (lambda root: pack(root, seed=7), "ValidityError: .*was packed for seed 7, the run is of 2"),
    "other clock": (
        one_new("clock.json", lambda clock: clock["train"].update(seconds=500.0)),
        "ValidityError: .*clock.json gives train 500.0 s, score.json 580.25 s",
    ),
    "trained on other data": (
        one_new("environment.json", lambda content: content.update(data_fingerprint="other")),
        "ValidityError: .*was trained on data other and scored on 0000000000000000",
    ),
    "other text": (other_text, "DataError: .*bits per byte of different data cannot be compared"),
    "reference of published order": (
        all_old("score.json", lambda score: score.update(mode="as_published")),
        "ValidityError: the reference .*old-1 was scored in mode as_published",
    ),
    "reference under a smaller cap": (
        all_old("score.json", lambda score: score.update(byte_cap=1000)),
        "BudgetError: the cap is 1,000,000 bytes, that of the reference 1,000; pack under the same cap",
    ),
    "reference that its ledger does not show": (
        all_old("score.json", lambda score: score.update(total_bytes=7)),
        "ValidityError: the reference: .*total_bytes is stated as 7",
    ),
}  # fmt: skip


TOGETHER = (
    ("byte cap", "other code", "no audit", "no log", "small gap"),
    ("worse", "training time", "other library", "failed audit", "other clock"),
    ("evaluation time", "other tokenizer", "undecided audit", "one run as the reference"),
    ("hint tables off the clock", "other machine", "audit of another pass", "reference of published order"),
    ("raised cap", "trained on other data", "audit of another artifact", "reference that its ledger does not show"),
    ("altered ledger", "damaged audit", "artifact of another seed", "reference under a smaller cap"),
    ("other settings", "damaged log", "other weights"),
    ("published order", "no artifact", "ledger of another score"),
    ("damaged ledger", "damaged artifact", "training not ended"),
    ("no ledger", "training without an end", "no reference"),
    ("other data", "training steps", "other settings than the artifact"),
    ("other text", "seed twice", "another pass's figure"),
    ("two seeds", "audit undecided about bytes"),
    ("one seed",),
)
"""Damages that leave each other alone; applied in this order."""


def test_every_refusal_is_shown() -> None:
    assert sorted(name for group in TOGETHER for name in group) == sorted(REFUSALS)


@pytest.mark.parametrize("names", TOGETHER, ids="; ".join)
def test_every_reason_is_a_line_and_nothing_is_written(root: Path, names: tuple[str, ...]) -> None:
    for name in names:
        REFUSALS[name][0](root)
    new, old = sides(root)
    against = ["--against", *old] if old else []
    code, out, error = command(*new, *against, "--out", root / "out", *ME)
    assert not out
    *lines, last = error.splitlines()
    for name in names:
        assert [line for line in lines if re.match(REFUSALS[name][1], line)], (name, error)
    assert all(re.match(r"(Validity|Budget|Data|Artifact)Error: \S", line) for line in lines)
    assert len(lines) == len(set(lines)) >= len(names)
    assert re.fullmatch(rf"refused, nothing was written: {len(lines)} reasons? above; --draft writes a folder .*", last)
    assert code == (1 if any(line.startswith(("Budget", "Validity")) for line in lines) else 2)
    assert not [path for path in root.iterdir() if path.name.startswith((".", "out"))]


DRAFTED = ("no ledger", "damaged audit", "damaged artifact", "no log", "no reference", "other data", "one seed", "failed audit")
"""Those of which a draft must leave something out."""


@pytest.mark.parametrize("name", DRAFTED)
def test_a_draft_says_so_and_lists_the_reasons(root: Path, name: str) -> None:
    damage, words = REFUSALS[name]
    damage(root)
    new, old = sides(root)
    done = hand_in(new, old, root / "out", about=AUTHOR, draft=True)
    document, page = json.loads((root / "out" / "submission.json").read_text()), (root / "out" / "README.md").read_text()
    assert document["draft"] is True
    said = [f"{type(reason).__name__}: {reason}" for reason in done.reasons]
    assert [line for line in said if re.match(words, line)]
    assert len(document["draft_reasons"]) == len(said)
    assert page.startswith(f"**DRAFT, not a record.** What stands against it: {len(said)} reason")
    assert all(f"\n- {reason}" in page for reason in document["draft_reasons"])
    assert not re.search(r"\bNone\b|\bnan\b|[{}]", page.partition("## Lineage")[2])
    assert str(root) not in page + json.dumps(document)


def test_the_undamaged_runs_are_accepted(root: Path) -> None:
    new, old = sides(root)
    assert command(*new, "--against", *old, "--out", root / "out", *ME)[0] == 0


def test_the_error_numbers_all_reasons(root: Path) -> None:
    REFUSALS["no audit"][0](root)
    new, old = sides(root)
    with pytest.raises(Refused) as refused:
        hand_in(new, old, root / "out")
    assert [type(reason) for reason in refused.value.reasons] == [DataError] * 3
    text = str(refused.value)
    assert text.startswith("3 reasons stand against this record, nothing was written: (1) ")
    assert "; (2) submission.json needs author, " in text
    assert text.endswith("; --draft writes a folder that says so")


def test_runs_that_cannot_be_read_are_told_together_even_for_a_draft(root: Path) -> None:
    (root / "new-1" / "score.json").unlink()
    edit(root / "new-2" / "recipe.json", lambda recipe: recipe.update(wings=2))
    new, old = sides(root)
    code, _, error = command(*new, "--against", *old, "--out", root / "out", "--draft")
    assert code == 2
    lines = error.splitlines()
    assert len(lines) == 3
    assert "new-1 holds no score.json" in lines[0]
    assert "'wings'" in lines[1]
    assert "not even a draft" in lines[2]
    assert not (root / "out").exists()


def test_places_are_cut_from_a_draft_s_reasons_and_nothing_else(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root / "new-1")
    done = hand_in([Path()], [Path("../old-1")], root / "out", draft=True)
    reasons = done.document["draft_reasons"]
    assert any("significance cannot be shown: Each side is a single run" in reason for reason in reasons)
    assert any("--author NAME" in reason and "submission.json" in reason for reason in reasons)


@pytest.mark.parametrize("name", ["bits_per_byte", "nats", "tokens"])
def test_a_score_without_its_figures_is_unreadable(root: Path, name: str) -> None:
    edit(root / "new-2" / "score.json", lambda score: {**score, name: None})
    edit(root / "new-3" / "score.json", lambda score: score["passes"]["float"].update({name: "low"}))
    new, _ = sides(root)
    with pytest.raises(Refused) as refused:
        hand_in(new, [], root / "out", draft=True)
    assert [type(reason) for reason in refused.value.reasons] == [DataError] * 2


def test_one_run_given_twice(root: Path) -> None:
    new, old = sides(root)
    code, _, error = command(*new, new[0], "--against", *old, "--out", root / "out", *ME)
    assert code == 1
    assert "are the same run; give every run once" in error
    assert "seed 1 is given 2 times" in error
    done = hand_in([*new, new[0]], old, root / "out", draft=True)
    assert list(done.document["seed_results"]) == ["1-1", "1-2", "2", "3"]
    assert (root / "out" / "train_seed1-2.log").exists()


def test_a_draft_is_nobody_s_reference(root: Path) -> None:
    new, old = sides(root)
    hand_in(old, [], root / "draft", draft=True)
    code, _, error = command(*new, "--against", root / "draft", "--out", root / "out", *ME)
    assert code == 1
    assert re.search("the reference .* is a draft, not a record; hand it in first", error)


def test_a_record_whose_costs_were_altered_is_no_reference(root: Path) -> None:
    new, old = sides(root)
    hand_in(old, [], root / "draft", draft=True)
    path = root / "draft" / "costs_seed2.npz"
    with np.load(path) as archive:
        arrays = dict(archive)
    arrays["nats"] = arrays["nats"] * 1.01
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    path.write_bytes(buffer.getvalue())
    code, _, error = command(*new, "--against", root / "draft", "--out", root / "out", *ME)
    assert code == 2
    assert re.search("costs_seed2.npz was altered: its SHA-256 is", error)


def test_a_smaller_gap_passes_the_leaderboard_s_rule(root: Path) -> None:
    for seed in SEEDS:
        make_finished_run(root / f"older-{seed}", seed=seed, shift=0.003)
    new, old = sides(root)[0], sorted(root.glob("older-*"))
    assert command(*new, "--against", *old, "--out", root / "out", *ME)[0] == 1
    code, text, error = command(*new, "--against", *old, "--out", root / "out", *ME, "--margin", "0")
    assert code == 0, error
    assert "leaderboard rule yes" in text


def test_without_an_author_only_a_draft_is_written(root: Path) -> None:
    new, old = sides(root)
    code, _, error = command(*new, "--against", *old, "--out", root / "out", "--author", "A")
    assert (code, len(error.splitlines())) == (2, 2)
    assert "needs github_id, which no file of a run knows" in error
    done = hand_in(new, old, root / "out", draft=True)
    assert not {"author", "github_id"} & set(done.document)
    assert len(done.reasons) == 2


def test_the_track_needs_its_hardware_text_and_script(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs that look like the challenge's own are on its track, and then the folder must hold the script that it asks for."""
    for run in sides(root)[0]:
        edit(run / "environment.json", lambda content: content.update(device_name="NVIDIA H100 80GB HBM3", ranks=8))
        edit(run / "score.json", lambda score: score.update(partial=False))
    for run in sides(root)[1]:
        edit(run / "score.json", lambda score: score.update(partial=False))
    new, old = sides(root)
    track, why = track_of([read_seed(run) for run in new])
    assert track is None
    assert why == ["4,318 tokens, 10,257 bytes were scored, which is no published export of the challenge's validation split"]
    monkeypatch.setitem(KNOWN_TOTALS, 4318, 10_257)
    with pytest.raises(Refused, match=r"one reason stands .* the submission's folder has no train_gpt.py"):
        hand_in(new, old, root / "out", about=AUTHOR)
    for run in new:
        (run / "code.bundle").write_bytes(b"print(1)")
    done = hand_in(new, old, root / "out", about=AUTHOR)
    assert (done.document["track"], done.document["off_track_because"]) == ("track_10min_16mb", [])
    assert "Track: track_10min_16mb." in (root / "out" / "README.md").read_text()
    # The audit room's own limits of the track, with its file list.
    assert (
        claim_audit(read_claim(root / "out" / "submission.json"), files=[path.name for path in done.folder.iterdir()]).verdict
        == "pass"
    )


def test_a_script_bears_the_name_that_the_rules_ask_for(root: Path) -> None:
    for run in sides(root)[0]:
        (run / "code.bundle").write_bytes(b"print(1)")
    new, old = sides(root)
    done = hand_in(new, old, root / "out", about=AUTHOR)
    assert (done.folder / "train_gpt.py").read_bytes() == b"print(1)"
    assert not (done.folder / "code.bundle").exists()
    digest = hashlib.sha256(b"print(1)").hexdigest()
    assert all(item["code_sha256"] == digest for item in done.document["seed_results"].values())

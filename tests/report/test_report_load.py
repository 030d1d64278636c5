import json
import math

import numpy as np
import pytest

from fairway.base.errors import DataError
from fairway.report import load_run
from fairway.report.load import MADE_BY
from report.fake_run import FILES, make_run


def test_full_folder_is_read_completely(full_source):
    data = load_run(full_source)
    assert data.recipe.name == "tiny"
    assert not data.missing
    assert not data.warnings
    assert [item.name for item in data.score.passes] == ["float", "plain", "sliding", "adapted"]
    assert data.score.settings == data.recipe.score
    assert set(data.ledger.nats) == {"float", "plain", "sliding", "adapted"}
    assert data.metrics.parameters == 871_440
    assert data.metrics.train.recurrence_start is not None
    assert len(data.samples) == 3
    assert {record.group for record in data.tensors} >= {"embedding", "attention.query", "mlp.down"}
    assert [phase.name for phase in data.clock][:3] == ["compile", "warmup", "train"]


def test_every_subset_of_one_missing_file_is_named(tmp_path):
    for left_out in FILES:
        run = make_run(tmp_path / left_out, files=tuple(name for name in FILES if name != left_out), steps=40, targets=4096)
        assert load_run(run).missing == (MADE_BY[left_out],)


def test_no_folder_and_no_recipe_are_refused(tmp_path):
    with pytest.raises(DataError, match="not a folder"):
        load_run(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"recipe\.json does not exist"):
        load_run(tmp_path)


def edit_json(path, change):
    content = json.loads(path.read_text("utf-8"))
    change(content)
    path.write_text(json.dumps(content), "utf-8")


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("recipe.json", lambda c: c["model"].update(widht=3), r"recipe\.json: .*widht"),
        ("recipe.json", lambda c: c["model"].update(width="wide"), r"recipe\.json: .*width='wide'"),
        ("environment.json", lambda c: c.update(versions=[1]), r"environment\.json: field 'versions' is a list"),
        ("score.json", lambda c: c.pop("bytes"), r"score\.json: field 'bytes' is missing"),
        ("score.json", lambda c: c.update(tokens="many"), r"field 'tokens' is 'many'; it must be a whole number"),
        ("score.json", lambda c: c.update(tokens=True), r"field 'tokens' is True"),
        ("score.json", lambda c: c.update(nats=math.nan), r"field 'nats' is nan; it must be a finite number"),
        ("score.json", lambda c: c.update(bits_per_byte=1.0), r"field 'bits_per_byte' is 1\.0; it must be nats / ln 2 / bytes"),
        ("score.json", lambda c: c["passes"]["plain"].update(bytes=9), r"'passes\.plain': field 'bits_per_byte'"),
        (
            "score.json",
            lambda c: c.update(passes={}),
            r"field 'pass' is 'adapted'; it must be one of the passes, of which there is",
        ),
        ("score.json", lambda c: c.update({"pass": "tilted"}), r"field 'pass' is 'tilted'; it must be one of .* adapted"),
        ("score.json", lambda c: c["settings"].update(stride=0), r"field 'settings' is .*score\.stride=0 must be at least 1"),
        ("score.json", lambda c: c["passes"].update(magic=c["passes"]["plain"]), r"field 'passes' .*not 'magic'"),
        ("score.json", lambda c: c["clock"]["train"].update(counted=1), r"'clock\.train': field 'counted' is 1"),
        ("score.json", lambda c: c.update(total_bytes=5), r"field 'total_bytes' is 5; it must be artifact_bytes \+ code_bytes"),
        ("score.json", lambda c: c.update(partial="no"), r"field 'partial' is 'no'; it must be true or false"),
        ("tensors.json", lambda c: c[2].pop("shape"), r"tensors\.json\[2\]: field 'shape' is missing"),
        ("tensors.json", lambda c: c[0].update(shape=[2, -1]), r"tensors\.json\[0\]: field 'shape' is \[2, -1\]"),
        ("tensors.json", lambda c: c[0].update(entropy_bits=90000.0), r"field 'entropy_bits' .*bits per weight"),
        ("tensors.json", lambda c: c[0].update(rms_error=-1.0), r"field 'rms_error' is -1\.0; it must be at least 0"),
        ("proof.json", lambda c: c.update(decoded_exactly=0), r"field 'decoded_exactly' is 0; it must be a whole number of at"),
        ("samples.json", lambda c: c[1].update(text=7), r"samples\.json\[1\]: field 'text' is 7; it must be text"),
        ("samples.json", lambda c: c.append("loose"), r"samples\.json\[3\] is a text; it must be an object"),
    ],
)
def test_malformed_field_is_named_with_its_file(full_run, name, change, message):
    edit_json(full_run / name, change)
    with pytest.raises(DataError, match=message) as caught:
        load_run(full_run)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["recipe.json", "environment.json", "score.json", "tensors.json", "samples.json", "proof.json"]
)
def test_truncated_json_is_refused(full_run, name):
    content = (full_run / name).read_bytes()
    (full_run / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=rf"{name} is not valid JSON"):
        load_run(full_run)


def rewrite(full_run, change):
    with np.load(full_run / "ledger.npz") as archive:
        arrays = dict(archive)
    change(arrays)
    np.savez(full_run / "ledger.npz", **arrays)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.pop("bytes"), "array 'bytes' is missing"),
        (lambda a: a.update(plain_nll=a["plain_nll"][:-1]), "array 'plain_nll' has 65535 targets, 'bytes' has 65536"),
        (lambda a: a.update(plain_nll=np.full_like(a["plain_nll"], np.nan)), "'plain_nll' holds a cost that is not a finite"),
        (lambda a: a.update(documents=a["documents"][::-1]), "array 'documents' must rise"),
        (lambda a: a.update(documents=a["documents"] + 10**6), "array 'documents' must rise"),
        (lambda a: a.update(documents=a["documents"].astype(float)), "array 'documents' is float64"),
        (lambda a: a.update(context=np.array(0)), "'context' is 0"),
        (lambda a: [a.pop(f"{name}_nll") for name in ("float", "plain", "sliding", "adapted")], "no array of a pass"),
        (lambda a: a.update(bytes=np.array([None] * 3)), "cannot be read"),
    ],
)
def test_malformed_ledger_is_refused(full_run, change, message):
    rewrite(full_run, change)
    with pytest.raises(DataError, match=rf"ledger\.npz.*{message}"):
        load_run(full_run)


@pytest.mark.parametrize("position", [0.0, 0.3, 0.6, 0.95])
def test_damaged_ledger_file_is_refused(full_run, position):
    content = bytearray((full_run / "ledger.npz").read_bytes())
    content[int(position * len(content))] ^= 0x40
    (full_run / "ledger.npz").write_bytes(bytes(content))
    with pytest.raises(DataError, match=r"ledger\.npz"):
        load_run(full_run)
    (full_run / "ledger.npz").write_bytes(bytes(content[: int(position * len(content))]))
    with pytest.raises(DataError, match=r"ledger\.npz cannot be read"):
        load_run(full_run)


def test_metrics_lines_are_named(full_run):
    path = full_run / "metrics.jsonl"
    lines = path.read_text("utf-8").splitlines()
    path.write_text("\n".join([*lines[:10], "{broken", *lines[10:]]) + "\n", "utf-8")
    with pytest.raises(DataError, match=r"metrics\.jsonl line 11 is not valid JSON"):
        load_run(full_run)
    place = next(index for index, line in enumerate(lines) if '"train"' in line and '"event": "train"' in line)
    event = json.loads(lines[place])
    del event["momentum"]
    path.write_text("\n".join([*lines[:place], json.dumps(event), *lines[place + 1 :]]) + "\n", "utf-8")
    with pytest.raises(DataError, match=rf"metrics\.jsonl line {place + 1}: field 'momentum' is missing"):
        load_run(full_run)
    path.write_text("\n".join([*lines, lines[place]]) + "\n", "utf-8")
    with pytest.raises(DataError, match=r"field 'step' is 1; it must be above the step before it"):
        load_run(full_run)


def test_interrupted_last_line_is_left_out_and_said(full_run):
    path = full_run / "metrics.jsonl"
    whole = load_run(full_run).metrics
    path.write_bytes(path.read_bytes() + b'{"event": "train", "step": 99')
    data = load_run(full_run)
    assert len(data.metrics.train) == len(whole.train)
    assert any("incomplete" in sentence for sentence in data.warnings)


def test_diverged_loss_is_said(full_run):
    path = full_run / "metrics.jsonl"
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    for event in lines:
        if event["event"] == "train" and event["step"] >= 500:
            event["loss"] = math.nan
    path.write_text("".join(json.dumps(event) + "\n" for event in lines), "utf-8")
    assert any("not a finite number from step 500 on" in sentence for sentence in load_run(full_run).warnings)


def test_score_of_another_run_is_said(full_run):
    rewrite(full_run, lambda arrays: arrays.update(plain_nll=arrays["plain_nll"] * np.float32(1.01)))
    (sentence,) = load_run(full_run).warnings
    assert "plain" in sentence
    assert "not of the same run" in sentence


def test_text_before_the_first_document_belongs_to_a_document(full_run):
    rewrite(full_run, lambda arrays: arrays.update(documents=np.array([5, 900], dtype=np.int64)))
    assert load_run(full_run).ledger.documents.tolist() == [0, 5, 900]


def test_phases_of_metrics_serve_until_there_is_a_score(full_run):
    (full_run / "score.json").unlink()
    data = load_run(full_run)
    assert [phase.name for phase in data.clock] == ["compile", "warmup", "train"]


def test_the_result_is_the_pass_that_the_score_names(full_run):
    """Whatever the order of the passes is elsewhere; an ablation adds passes before a recipe's own result."""
    path = full_run / "score.json"
    content = json.loads(path.read_text())
    content["pass"] = "sliding"
    content |= {key: value for key, value in content["passes"]["sliding"].items() if key != "seconds"}
    del content["settings"]
    path.write_text(json.dumps(content))
    score = load_run(full_run).score
    assert [item.name for item in score.passes] == ["float", "plain", "adapted", "sliding"]
    assert score.settings is None

import json
import socket

import numpy as np
import pytest
from published_helpers import COMMIT, serving, write_export

from fairway.base.errors import DataError, MachineError
from fairway.data.dataset import Dataset
from fairway.data.fetch import VARIANTS, fetch
from fairway.data.tokenizer import train_tokenizer

REPOSITORY = VARIANTS["sp1024"].repository
SHARD = "fineweb_train_000001.bin"


@pytest.fixture(autouse=True)
def loopback_only(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr("time.sleep", lambda seconds: None)


@pytest.fixture(scope="session")
def flat(texts):
    return [" ".join(text.split()) for text in texts[:30]]


@pytest.fixture
def hub(tmp_path, challenge_tokenizer, flat):
    write_export(tmp_path / "hub" / "datasets", challenge_tokenizer, flat)
    (tmp_path / "hub" / "datasets" / "docs_selected.jsonl").write_text('{"text": "x"}\n')
    (tmp_path / "hub" / "datasets" / "docs_selected.source_manifest.json").write_text("{}")
    with serving(tmp_path / "hub", REPOSITORY) as hub:
        yield hub


def contents(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_fetch_brings_exactly_the_files_of_the_manifest(hub, tmp_path, flat):
    out = tmp_path / "out"
    report = fetch("sp1024", out, train_shards=2, endpoint=hub.endpoint)
    place = "datasets/fineweb10B_sp1024"
    assert contents(out) == {
        "manifest.json", "fetch.json", "tokenizers/toy.model", f"{place}/fineweb_val_000000.bin",
        f"{place}/fineweb_train_000000.bin", f"{place}/{SHARD}",
    }  # fmt: skip
    assert (report.commit, report.train_shards, report.downloaded_files) == (COMMIT, 2, 4)
    dataset = Dataset.open(out)
    dataset.verify()
    assert dataset.fingerprint == report.fingerprint
    assert int(dataset.validation().byte_costs.sum()) == sum(len(text.encode()) for text in flat[:4])
    for name in contents(out) - {"fetch.json"}:
        assert (out / name).read_bytes() == (hub.root / "datasets" / name).read_bytes()
    assert all(f"/resolve/{COMMIT}/" in path for method, path, _ in hub.requests if method == "GET")


def test_a_second_fetch_downloads_only_what_is_missing(hub, tmp_path):
    out = tmp_path / "out"
    fetch("sp1024", out, train_shards=1, endpoint=hub.endpoint)
    hub.requests.clear()
    report = fetch("sp1024", out, train_shards=3, endpoint=hub.endpoint)
    assert report.downloaded_files == 2
    assert not hub.gets("train_000000")
    assert not hub.gets("val_000000")
    (out / "datasets/fineweb10B_sp1024" / SHARD).write_bytes(b"short")
    assert fetch("sp1024", out, train_shards=3, endpoint=hub.endpoint).downloaded_files == 1
    Dataset.open(out).verify()


def test_a_connection_that_breaks_half_way_is_resumed(hub, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 500)
    hub.break_after[SHARD] = 1500
    fetch("sp1024", tmp_path / "out", train_shards=2, endpoint=hub.endpoint)
    ranges = [wanted for _, _, wanted in hub.gets(SHARD)]
    assert ranges[0] is None
    assert ranges[-1] == "bytes=1500-"
    Dataset.open(tmp_path / "out").verify()


def test_a_fetch_that_gave_up_goes_on_with_that_file(hub, tmp_path):
    hub.break_after[SHARD] = 1500
    hub.down_after_break = True
    with pytest.raises(MachineError, match="finished files are kept"):
        fetch("sp1024", tmp_path / "out", train_shards=2, endpoint=hub.endpoint)
    hub.status = None
    hub.requests.clear()
    assert fetch("sp1024", tmp_path / "out", train_shards=2, endpoint=hub.endpoint).downloaded_files == 1
    assert [path for method, path, _ in hub.requests if method == "GET"][-1].endswith(SHARD)
    assert not hub.gets("train_000000")
    Dataset.open(tmp_path / "out").verify()


def test_a_file_with_a_wrong_hash_is_fetched_again_by_the_next_one(hub, tmp_path):
    out = tmp_path / "out"
    hub.corrupt.add(SHARD)
    with pytest.raises(DataError, match=rf"{SHARD} arrived with SHA-256 .* the copy was removed, fetch again"):
        fetch("sp1024", out, train_shards=3, endpoint=hub.endpoint)
    assert not (out / "manifest.json").exists()
    assert not (out / "datasets/fineweb10B_sp1024" / SHARD).exists()
    with pytest.raises(DataError, match=r"manifest\.json does not exist"):
        Dataset.open(out)
    hub.corrupt.clear()
    hub.requests.clear()
    report = fetch("sp1024", out, train_shards=3, endpoint=hub.endpoint)
    assert report.downloaded_files == 2
    assert not hub.gets("train_000000")
    Dataset.open(out).verify()


def test_a_shard_that_is_broken_on_the_hub_is_not_put_in_place(hub, tmp_path):
    path = hub.root / "datasets/datasets/fineweb10B_sp1024" / SHARD
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(DataError, match="its header says"):
        fetch("sp1024", tmp_path / "out", train_shards=3, endpoint=hub.endpoint)
    assert not (tmp_path / "out/datasets/fineweb10B_sp1024" / SHARD).exists()


def test_a_tokenizer_of_another_size_is_refused(hub, tmp_path, texts):
    train_tokenizer(texts, 300).save(hub.root / "datasets/tokenizers/toy.model")
    with pytest.raises(DataError, match="300 pieces, the manifest says 400"):
        fetch("sp1024", tmp_path / "out", train_shards=1, endpoint=hub.endpoint)


def test_what_does_not_exist_is_bad_input(hub, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(DataError, match=r"'sp1042' is not one of sp1024, .*did you mean 'sp1024'"):
        fetch("sp1042", out)
    with pytest.raises(DataError, match="kevclark/parameter-golf does not exist on http://127"):
        fetch("sp8192", out, endpoint=hub.endpoint)
    with pytest.raises(DataError, match="no such revision"):
        fetch("sp1024", out, revision="v9", endpoint=hub.endpoint)
    with pytest.raises(DataError, match=r"4 training shards are asked for; sp1024 has 1\.\.3"):
        fetch("sp1024", out, train_shards=4, endpoint=hub.endpoint)
    (hub.root / "datasets/datasets/fineweb10B_sp1024" / SHARD).unlink()
    with pytest.raises(DataError, match=rf"has no file .*{SHARD}"):
        fetch("sp1024", out, train_shards=2, endpoint=hub.endpoint)
    manifest = json.loads((hub.root / "datasets/manifest.json").read_text())
    manifest["datasets"][0]["name"] = "fineweb10B_sp4096"
    (hub.root / "datasets/manifest.json").write_text(json.dumps(manifest))
    out = tmp_path / "another"
    with pytest.raises(DataError, match="0 entries for data set 'fineweb10B_sp1024'; it lists fineweb10B_sp4096"):
        fetch("sp1024", out, train_shards=1, endpoint=hub.endpoint)


def test_a_hub_that_cannot_be_reached_is_the_machines_fault(hub, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(MachineError, match=f"127.0.0.1:{port}"):
        fetch("sp1024", tmp_path / "out", endpoint=f"http://127.0.0.1:{port}")
    hub.status = 503
    with pytest.raises(MachineError, match="finished files are kept"):
        fetch("sp1024", tmp_path / "out", endpoint=hub.endpoint)


def test_a_folder_with_something_else_is_left_alone(hub, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("x")
    with pytest.raises(DataError, match="not downloaded by fairway"):
        fetch("sp1024", out, endpoint=hub.endpoint)
    assert contents(out) == {"thesis.txt"}
    other = tmp_path / "other"
    fetch("sp1024", other, train_shards=1, endpoint=hub.endpoint)
    record = json.loads((other / "fetch.json").read_text())
    (other / "fetch.json").write_text(json.dumps({**record, "export": "fineweb10B_sp8192"}))
    with pytest.raises(DataError, match="holds export fineweb10B_sp8192, not fineweb10B_sp1024"):
        fetch("sp1024", other, train_shards=1, endpoint=hub.endpoint)


def test_documents_come_on_request(hub, tmp_path):
    fetch("sp1024", tmp_path / "out", train_shards=1, endpoint=hub.endpoint, documents=True)
    assert (tmp_path / "out/docs_selected.jsonl").read_text() == '{"text": "x"}\n'
    assert (tmp_path / "out/docs_selected.source_manifest.json").is_file()


def test_a_changed_file_after_the_download_is_found(hub, tmp_path, texts):
    out = tmp_path / "out"
    fetch("sp1024", out, train_shards=2, endpoint=hub.endpoint)
    path = out / "datasets/fineweb10B_sp1024" / SHARD
    content = bytearray(path.read_bytes())
    content[1030] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(DataError, match=rf"{SHARD} has SHA-256"):
        Dataset.open(out).verify()
    train_tokenizer(texts, 400).save(out / "tokenizers/toy.model")
    with pytest.raises(DataError, match="was downloaded with the shards"):
        Dataset.open(out)


def test_caseops_exports_bring_their_sidecars(tmp_path, tokenizer, texts):
    variant = VARIANTS["sp8192-caseops"]
    write_export(tmp_path / "hub" / "datasets", tokenizer, texts[:20], name=variant.name, sidecars=True)
    with serving(tmp_path / "hub", variant.repository) as hub:
        fetch("sp8192-caseops", tmp_path / "out", train_shards=1, endpoint=hub.endpoint)
    stream = Dataset.open(tmp_path / "out").validation()
    assert stream.byte_rule == "sidecar"
    assert np.count_nonzero(stream.byte_costs) > 0

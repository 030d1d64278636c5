"""The package's own passes as black boxes: fresh at every call, one walk for score, distributions, session and code."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fairway import pipeline
from fairway.audit.artifact import ArtifactScorer, NetworkScorer, logic_scale
from fairway.audit.decoding import lossless_decoding
from fairway.audit.determinism import determinism
from fairway.audit.future import future_perturbation
from fairway.audit.hook import hook_consistency
from fairway.audit.incompressible import incompressible_stream
from fairway.audit.influence import influence_graph
from fairway.audit.kraft import kraft_enumeration
from fairway.audit.online import online_protocol
from fairway.audit.prefix import replay_prefixes
from fairway.audit.run import run_audit
from fairway.audit.runner import ADAPTED
from fairway.audit.scorer import Distributional, Meta, Scorer, Stepwise
from fairway.audit.streams import Streams, generate, shared_documents
from fairway.audit.subjects import open_run
from fairway.audit.substitution import substitution_sum
from fairway.base.errors import DataError
from fairway.base.runs import RunFolder
from fairway.base.values import with_fields
from fairway.cli import main
from fairway.config import AdaptationConfig, MachineConfig, PassName, Recipe, ScoreConfig
from fairway.data.dataset import Stream
from fairway.model.gpt import GPT
from fairway.score.load import load_packed
from fairway.score.passes import run_pass, select_text
from fairway.score.plan import Block
from fairway.score.predictor import Predictor, Revealed, WindowBatch
from fairway.train.machine import choose
from toy_network import toy_network

VOCAB = 6
PASSES: tuple[PassName, ...] = ("plain", "sliding", "adapted")
CONFIG = ScoreConfig(
    passes=("plain", "adapted"),
    context=8,
    stride=3,
    keep_tail=True,
    adaptation=AdaptationConfig(chunk_tokens=16, epochs=1, learning_rate=0.05, sequences_per_step=2),
)
STREAM = shared_documents(VOCAB, 64, 0, documents=5, phrase=10)


def network() -> GPT:
    return toy_network(VOCAB)


def scorer(name: PassName) -> NetworkScorer:
    return NetworkScorer(name, network, CONFIG, name)


@pytest.mark.parametrize("name", PASSES)
def test_the_audit_scores_what_the_package_scores(name: PassName) -> None:
    made = scorer(name)
    costs = np.ones(len(STREAM.tokens), dtype=np.uint16)
    stream = Stream(STREAM.tokens.astype(np.uint16), costs, np.array(STREAM.document_starts), "sidecar")
    ledger = run_pass(name, network(), select_text(stream, CONFIG), CONFIG)
    np.testing.assert_array_equal(made.score(STREAM.tokens, STREAM.meta()), ledger.nats.astype(np.float64))
    assert made.declares == ({"targets"} if name == "adapted" else set())
    assert isinstance(made, Scorer)
    assert isinstance(made, Distributional)
    assert isinstance(made, Stepwise)


@pytest.mark.parametrize("name", PASSES)
def test_our_passes_are_valid(name: PassName) -> None:
    made = scorer(name)
    options = {"tolerances": ADAPTED, "probes": 5}
    findings = [
        determinism(made, STREAM),
        future_perturbation(made, STREAM, **options),
        substitution_sum(made, STREAM, **options),
        hook_consistency(made, STREAM, tolerances=ADAPTED, probes=2),
        influence_graph(made, STREAM, **options),
        replay_prefixes(made, STREAM, **options),
        online_protocol(made, STREAM, tolerances=ADAPTED),
        lossless_decoding(made, STREAM),
        kraft_enumeration(made, most_streams=16),
    ]
    for finding in findings:
        assert finding.verdict == "pass", f"{finding.test}: {finding.reason}"


def test_an_adapted_pass_adapts_within_the_stream_of_the_audit() -> None:
    plain, adapted = scorer("sliding"), scorer("adapted")
    meta = STREAM.meta()
    change = np.abs(plain.score(STREAM.tokens, meta) - adapted.score(STREAM.tokens, meta))
    chunk = CONFIG.adaptation.chunk_tokens
    assert change[: chunk - 1].max() < 1e-5
    assert change[chunk:].max() > 1e-2


def test_the_miniature_adapts_too() -> None:
    small = scorer("adapted").miniature(2)
    fixed = scorer("sliding").miniature(2)
    tokens = np.array([0, 1, 1, 0, 1, 1, 0, 1, 1])
    assert np.abs(small.score(tokens, Meta(8)) - fixed.score(tokens, Meta(8))).max() > 1e-3


@pytest.mark.parametrize("name", PASSES)
def test_a_uniform_network_gains_nothing_on_uniform_text(name: PassName) -> None:
    matched = scorer(name).matched(16)
    sources = generate(16, 0, source_targets=300).sources
    first = matched.score(sources[0].tokens[:9], Meta(8))
    np.testing.assert_allclose(first, np.log(16), atol=0.05)
    assert incompressible_stream(matched, *sources).verdict == "pass"


class Peeking:
    """A predictor that looks at the next token of its window where the window goes on."""

    def __init__(self, inner: Predictor) -> None:
        self.inner, self.vocab_size = inner, inner.vocab_size

    def predict(self, batch: WindowBatch) -> torch.Tensor:
        rows = self.inner.predict(batch).clone()
        following = batch.inputs[:, batch.first_scored + 1 :]
        rows[:, : following.shape[1]].scatter_add_(-1, following[..., None], torch.ones(*following.shape, 1))
        return rows.log_softmax(-1)

    def observe(self, block: Revealed) -> None:
        self.inner.observe(block)


class Leaking(NetworkScorer):
    def build(self, targets: int, told: int) -> tuple[Predictor, list[Block]]:
        predictor, plan = super().build(targets, told)
        return Peeking(predictor), plan


def test_a_leak_in_one_of_our_own_predictors_is_found() -> None:
    leaking = Leaking("leaking", network, CONFIG, "sliding")
    assert substitution_sum(leaking, STREAM).verdict == "fail"
    assert hook_consistency(leaking, STREAM).verdict == "fail"
    assert online_protocol(leaking, STREAM, tolerances=ADAPTED).verdict == "fail"
    finding = lossless_decoding(leaking, STREAM)
    assert finding.verdict == "fail"
    assert "did not come back" in finding.reason


def test_the_catalogue_runs_what_fits() -> None:
    streams = Streams(STREAM, generate(VOCAB, 0, source_targets=100).sources)
    findings = run_audit(scorer("plain"), streams, 60.0, tolerances=ADAPTED)
    verdicts = {finding.test: finding.verdict for finding in findings}
    assert verdicts.pop("P") == "not applicable"
    assert set(verdicts) == {"X", "E", "U", "N", "O", "D", "F", "G", "K", "H", "S"}
    assert set(verdicts.values()) == {"pass"}


def test_the_scale_of_logic_tests_keeps_proportions() -> None:
    big = ScoreConfig(context=2048, stride=64)
    small = logic_scale(big, 64, 128)
    assert (small.context, small.stride, small.adaptation.chunk_tokens) == (64, 2, 128)
    assert small.adaptation.epochs == big.adaptation.epochs


@pytest.fixture(scope="module")
def finished(corpus: Path, quick: Recipe, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    out = tmp_path_factory.mktemp("runs") / "quick"
    pipeline.run(quick, data=corpus, out=out, resume=False, overwrite=False)
    return RunFolder(out)


def test_a_run_folder_is_audited_from_the_command_line(finished: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["audit", str(finished.root), "--budget-seconds", "12", "--machine.threads", "1", "--pass", "adapted"])
    shown = capsys.readouterr().out
    assert code == 0, shown
    document = json.loads(finished.audit.read_text())
    verdicts = [(finding["test"], finding["name"], finding["verdict"]) for finding in document["findings"]]
    for letter in "QYZXE":
        assert any(test == letter and verdict == "pass" for test, _, verdict in verdicts), verdicts
    assert ("E", "ledger scored again", "pass") in verdicts
    assert ("W", "wall clock", "undecided") in verdicts
    assert not any(verdict == "fail" for *_, verdict in verdicts)
    for condition in ("causal", "normalised", "score before update", "single pass", "bytes", "budget", "claim"):
        assert f"\n{condition} " in shown


def test_tampering_with_the_result_fails_the_audit(finished: RunFolder, tmp_path: Path, capsys) -> None:
    stated = json.loads(finished.score.read_text())
    saved = finished.score.read_text()
    stated["passes"]["adapted"]["bytes"] += 1000
    finished.score.write_text(json.dumps(stated))
    try:
        out = tmp_path / "a.json"
        assert main(["audit", str(finished.root), "--budget-seconds", "0", "--out", str(out), "--json"]) == 1
    finally:
        finished.score.write_text(saved)
    document = json.loads(capsys.readouterr().out)
    assert document == json.loads(out.read_text())
    assert [item["test"] for item in document["findings"] if item["verdict"] == "fail"] == ["Q", "Y"]


def test_a_claim_that_its_ledger_does_not_show_fails_the_audit(finished: RunFolder, tmp_path: Path, capsys) -> None:
    """The figures fit each other, so that only the ledger says that they are not those of the run."""
    saved = finished.score.read_text()
    stated = json.loads(saved)
    figures = stated["passes"][stated["pass"]]
    figures.update({name: 0.99 * figures[name] for name in ("nats", "bits_per_byte", "nats_per_token")})
    finished.score.write_text(json.dumps(stated))
    try:
        out = tmp_path / "a.json"
        assert main(["audit", str(finished.root), "--budget-seconds", "0", "--out", str(out), "--json"]) == 1
    finally:
        finished.score.write_text(saved)
    findings = {item["test"]: item for item in json.loads(capsys.readouterr().out)["findings"]}
    assert findings["Q"]["verdict"] == "fail"
    assert "bits_per_byte is stated as" in findings["Q"]["reason"]
    assert findings["Y"]["verdict"] == "pass"


def test_a_claim_without_its_ledger_is_undecided(finished: RunFolder, tmp_path: Path, capsys) -> None:
    kept = finished.ledger.rename(tmp_path / "kept.npz")
    try:
        assert main(["audit", str(finished.root), "--budget-seconds", "0", "--out", str(tmp_path / "a.json"), "--json"]) == 0
    finally:
        kept.rename(finished.ledger)
    findings = {item["test"]: item for item in json.loads(capsys.readouterr().out)["findings"]}
    assert findings["Q"]["verdict"] == "undecided"
    assert "cannot be recomputed" in findings["Q"]["reason"]


def test_the_clock_is_judged_by_the_machine_that_the_run_names(finished: RunFolder, tmp_path: Path, capsys) -> None:
    saved = finished.environment.read_text()
    environment = json.loads(saved)
    assert (environment["device_name"], environment["ranks"]) == ("cpu", 1)
    verdicts = {}
    for name, ranks in (("cpu", 1), ("NVIDIA H100 80GB HBM3", 4), ("NVIDIA H100 80GB HBM3", 8)):
        finished.environment.write_text(json.dumps({**environment, "device_name": name, "ranks": ranks}))
        try:
            out = tmp_path / "a.json"
            assert main(["audit", str(finished.root), "--budget-seconds", "0", "--out", str(out), "--json"]) == 0
        finally:
            finished.environment.write_text(saved)
        findings = {item["test"]: item for item in json.loads(capsys.readouterr().out)["findings"]}
        assert "training" in findings["W"]["reason"]
        verdicts[name, ranks] = findings["W"]["verdict"]
    assert list(verdicts.values()) == ["undecided", "undecided", "pass"]


def test_an_artifact_without_its_folder_states_nothing(finished: RunFolder, tmp_path: Path, capsys) -> None:
    copy = tmp_path / "model.fwz"
    copy.write_bytes(finished.artifact.read_bytes())
    assert main(["audit", str(copy), "--budget-seconds", "0", "--json"]) == 0
    findings = {item["test"]: item["verdict"] for item in json.loads(capsys.readouterr().out)["findings"]}
    assert findings["Q"] == "not applicable"
    assert "Z" not in findings


def test_an_artifact_alone_has_no_files_to_check(finished: RunFolder, tmp_path: Path) -> None:
    copy = tmp_path / "model.fwz"
    copy.write_bytes(finished.artifact.read_bytes())
    path, run = open_run(copy)
    assert (path, run) == (copy, None)
    packed = load_packed(path)
    made = ArtifactScorer(packed, choose(MachineConfig(threads=1)), logic_scale(packed.score, 16, 32), "sliding")
    assert made.vocab_size == packed.model.vocab_size
    stream = shared_documents(made.vocab_size, 60, 0)
    assert future_perturbation(made, stream).verdict == "pass"
    with pytest.raises(DataError, match="does not exist"):
        open_run(tmp_path / "none")


def test_a_published_plan_that_trains_on_unscored_targets_is_found() -> None:
    """PR #1776's key, where the stride does not divide the chunk: a few targets are learnt from before they are scored."""
    published = with_fields(CONFIG, {"mode": "as_published", "adaptation.window_key": "last_input", "stride": 5})
    repaired = with_fields(published, {"mode": "strict", "adaptation.window_key": "first_input"})
    chunk = CONFIG.adaptation.chunk_tokens
    stream = replace(STREAM, landmarks=tuple(range(chunk - 1, STREAM.targets, chunk)))
    for config, verdict in ((published, "fail"), (repaired, "pass")):
        assert future_perturbation(NetworkScorer("adapted", network, config, "adapted"), stream).verdict == verdict

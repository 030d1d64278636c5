"""Residual topologies and settings of the adaptation before the audit: as valid as the plain network, and seen at work."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fairway import pipeline
from fairway.audit.artifact import NetworkScorer, logic_scale, small_scale
from fairway.audit.decoding import lossless_decoding
from fairway.audit.future import future_perturbation
from fairway.audit.incompressible import incompressible_stream
from fairway.audit.kraft import kraft_enumeration
from fairway.audit.online import online_protocol
from fairway.audit.prefix import replay_prefixes
from fairway.audit.runner import ADAPTED
from fairway.audit.scorer import Meta
from fairway.audit.streams import generate, shared_documents
from fairway.base.values import with_fields
from fairway.cli import main
from fairway.config import (
    AdaptationConfig,
    GateConfig,
    PassName,
    Recipe,
    RecurrenceConfig,
    ResidualConfig,
    ScoreConfig,
    TiltConfig,
)
from fairway.model.gpt import GPT
from fairway.model.residual import TOPOLOGIES
from fairway.score.passes import adaptation_plan
from fairway.score.plan import early_targets
from toy_network import toy_network

VOCAB, CHUNK = 6, 16
STREAM = shared_documents(VOCAB, 64, 0, documents=5, phrase=10)
ADAPTATIONS: dict[str, dict[str, Any]] = {
    "frozen": {"frozen_blocks": 2, "epochs": 5, "sequences_per_step": 2},
    "adamw": {"optimizer": "adamw", "learning_rate": 0.01, "weight_decay": 0.1, "epochs": 2, "sequences_per_step": 1},
    "last input": {"window_key": "last_input", "epochs": 1, "sequences_per_step": 2},
}

# Two lanes, and two ways to adapt; `make long` takes the other pairs.
CASES = [
    pytest.param("sequential", "adamw", marks=pytest.mark.long),
    pytest.param("single_stream", "last input", marks=pytest.mark.long),
    ("decoupled_lanes", "frozen"),
    ("routed_lanes", "adamw"),
    pytest.param("routed_lanes", "frozen", marks=pytest.mark.long),
]


def network(topology: str) -> GPT:
    """Two looped layers, and one behind them that the topology is about."""
    residual = ResidualConfig(topology=topology, parallel_from=2)  # pyright: ignore[reportArgumentType]
    return toy_network(VOCAB, layers=3, recurrence=RecurrenceConfig(first=0, last=1, extra_passes=1), residual=residual)


def scorer(topology: str, adaptation: str, pass_name: PassName) -> NetworkScorer:
    settings = {"chunk_tokens": CHUNK, "learning_rate": 0.05, **ADAPTATIONS[adaptation]}
    counting = "pr1557" if adaptation == "frozen" else "exact"
    tilt = TiltConfig(counting=counting, contexts=(2, 3), thresholds=(0.5, 0.5), minimum_counts=(1, 1))
    config = ScoreConfig(context=8, stride=4, adaptation=AdaptationConfig(**settings), tilt=tilt)
    return NetworkScorer(f"{topology}, {adaptation}", lambda: network(topology), config, pass_name)


@pytest.mark.parametrize(("topology", "adaptation"), CASES)
def test_topologies_are_valid_however_they_adapt(topology: str, adaptation: str) -> None:
    made = scorer(topology, adaptation, "tilted")
    findings = [
        future_perturbation(made, STREAM, tolerances=ADAPTED, probes=5),
        replay_prefixes(made, STREAM, tolerances=ADAPTED, probes=2),
        online_protocol(made, STREAM, tolerances=ADAPTED),
        lossless_decoding(made, STREAM),
        kraft_enumeration(made, most_streams=16),
    ]
    for finding in findings:
        assert finding.verdict == "pass", f"{finding.test}: {finding.reason}"


@pytest.mark.parametrize(("topology", "adaptation"), CASES)
def test_the_audit_sees_the_adaptation_at_work(topology: str, adaptation: str) -> None:
    """In the stream of the logic tests and in the miniature: a mechanism that does nothing could hide nothing."""
    plain, adapted = scorer(topology, adaptation, "sliding"), scorer(topology, adaptation, "adapted")
    change = np.abs(plain.score(STREAM.tokens, STREAM.meta()) - adapted.score(STREAM.tokens, STREAM.meta()))
    assert change[: CHUNK - 1].max() < 1e-5
    assert change[CHUNK:].max() > 1e-2
    tokens = np.array([0, 1, 1, 0, 1, 1, 0, 1, 1])
    small = adapted.miniature(2).score(tokens, Meta(8)) - plain.miniature(2).score(tokens, Meta(8))
    assert 1e-3 < np.abs(small).max() < 3.0


def test_packed_rows_are_valid_and_keep_documents_apart() -> None:
    config = ScoreConfig(passes=("plain",), context=6, stride=3, packed_tokens=16)
    made = NetworkScorer("packed rows", lambda: toy_network(VOCAB, gates=GateConfig(smear=True)), config, "plain")
    findings = [
        future_perturbation(made, STREAM, probes=5),
        replay_prefixes(made, STREAM, probes=2),
        online_protocol(made, STREAM),
        lossless_decoding(made, STREAM),
        kraft_enumeration(made, most_streams=16),
    ]
    for finding in findings:
        assert finding.verdict == "pass", f"{finding.test}: {finding.reason}"
    whole, first = STREAM.tokens, STREAM.document_starts[1]
    alone = made.score(whole[first:], Meta(len(whole) - 1 - first))
    # The same rows would begin elsewhere; until the row ends, the document is all that its tokens see.
    row = 16 - first % 16
    np.testing.assert_allclose(made.score(whole, STREAM.meta())[first : first + row], alone[:row], atol=1e-5)


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_adamw_gains_nothing_on_uniform_text(topology: str) -> None:
    matched = scorer(topology, "adamw", "adapted").matched(16)
    assert incompressible_stream(matched, *generate(16, 0, source_targets=200).sources).verdict == "pass"


@pytest.mark.parametrize(("context", "stride"), [(2048, 64), (192, 64), (96, 32), (2048, 2048), (40, 8)])
def test_a_key_that_is_safe_stays_safe_at_the_scale_of_the_logic_tests(context: int, stride: int) -> None:
    """A third of 32 is no whole number, so the stride becomes a divisor near it; else windows would straddle chunks."""
    adaptation = AdaptationConfig(chunk_tokens=8 * context, window_key="last_input")
    config = ScoreConfig(context=context, stride=stride, adaptation=adaptation)
    assert early_targets(adaptation_plan(50 * context, config)) == 0
    for small, targets in ((logic_scale(config, 32, 64), 256), (small_scale(config, 4), 30), (small_scale(config, 32), 300)):
        assert early_targets(adaptation_plan(targets, small)) == 0


# The command line of the audit is tested in test_audit_artifact too.
@pytest.mark.long
@pytest.mark.parametrize("topology", ["decoupled_lanes", "routed_lanes"])
def test_an_artifact_with_lanes_is_audited_from_the_command_line(
    topology: str, quick: Recipe, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Lanes, frozen blocks, five epochs and the tilt, from training to the verdict."""
    changes = {
        "model.residual.topology": topology,
        "model.residual.parallel_from": 3,
        "score.passes": ("plain", "tilted"),
        "score.max_tokens": 600,
        "score.adaptation.frozen_blocks": 3,
        "score.adaptation.epochs": 5,
    }
    out = tmp_path / "run"
    pipeline.run(with_fields(quick, changes), data=corpus, out=out, resume=False, overwrite=False)
    capsys.readouterr()
    code = main(["audit", str(out), "--budget-seconds", "10", "--machine.threads", "1", "--json"])
    findings = json.loads(capsys.readouterr().out)["findings"]
    verdicts = {(finding["test"], finding["name"]): finding["verdict"] for finding in findings}
    assert code == 0, verdicts
    for letter in "QYZE":
        assert any(test == letter and verdict == "pass" for (test, _), verdict in verdicts.items()), verdicts
    assert verdicts["E", "ledger scored again"] == "pass"

"""The audit passes the strict order of documents and fails the published one."""

import itertools

import numpy as np
import pytest

from fairway.audit.decoding import lossless_decoding
from fairway.audit.determinism import determinism
from fairway.audit.documents import DocumentScorer
from fairway.audit.future import future_perturbation
from fairway.audit.hook import hook_consistency
from fairway.audit.influence import influence_graph
from fairway.audit.kraft import kraft_enumeration
from fairway.audit.online import online_protocol
from fairway.audit.runner import ADAPTED
from fairway.audit.scorer import Meta, Scheduled
from fairway.audit.streams import shared_documents
from fairway.audit.substitution import substitution_sum
from fairway.base.values import with_fields
from fairway.config import DocumentAdaptationConfig, PassName, ScoreConfig, TiltConfig
from toy_network import toy_network

VOCAB = 6
STREAM = shared_documents(VOCAB, 40, 0, documents=3, phrase=10)
CONFIG = ScoreConfig(
    context=12,
    stride=4,
    documents=DocumentAdaptationConfig(
        lanes=2,
        chunk_sizes=(2, 4),
        chunk_limits=(8,),
        rank=2,
        alpha=4.0,
        learning_rate=0.02,
        prefix_documents=2,
        global_learning_rate=0.05,
        global_chunk_tokens=8,
        global_context=4,
    ),
    tilt=TiltConfig(contexts=(2,), thresholds=(0.5,), minimum_counts=(1,), strength=2.0),
)
PUBLISHED = with_fields(CONFIG, {"mode": "as_published", "documents.lanes": 1})


def scorer(name: PassName, config: ScoreConfig) -> DocumentScorer:
    return DocumentScorer(name, lambda: toy_network(VOCAB), config, name)


def test_the_strict_pass_is_valid() -> None:
    made = scorer("documents_tilted", CONFIG)
    assert isinstance(made, Scheduled)
    assert made.declares == {"targets", "documents"}
    options = {"tolerances": ADAPTED, "probes": 3}
    findings = [
        determinism(made, STREAM),
        future_perturbation(made, STREAM, tolerances=ADAPTED, probes=5),
        substitution_sum(made, STREAM, tolerances=ADAPTED, probes=4),
        hook_consistency(made, STREAM, tolerances=ADAPTED, probes=2),
        influence_graph(made, STREAM, **options),
        online_protocol(made, STREAM, tolerances=ADAPTED),
        kraft_enumeration(made, most_streams=32),
    ]
    for finding in findings:
        assert finding.verdict == "pass", f"{finding.test}: {finding.reason}"
    coded = lossless_decoding(made, STREAM, tolerances=ADAPTED)
    assert coded.verdict == "undecided"
    assert "too few for the constant" in coded.reason


def test_the_published_order_with_its_tilt_is_no_code() -> None:
    """Long documents are coded first, with hints from short ones that are coded after them and learn from them."""
    made = scorer("documents_tilted", PUBLISHED)
    graph = influence_graph(made, STREAM, tolerances=ADAPTED, probes=3)
    assert graph.verdict == "fail"
    assert "depend on each other" in graph.reason
    kraft = kraft_enumeration(made, documents=(3, 4), most_streams=64)
    assert kraft.verdict == "fail", kraft.reason


@pytest.mark.parametrize("documents", [1, 3, 4])
def test_probabilities_of_all_texts_in_the_order_of_coding_sum_to_one(documents: int) -> None:
    """For a number of targets and of documents the strict order is a complete code, whatever markers come and do not come."""
    config = with_fields(CONFIG, {"documents.prefix_documents": 2})
    made = DocumentScorer("tiny", lambda: toy_network(2), config, "documents_tilted")
    targets, total = 5, 0.0
    for tokens in itertools.product(range(2), repeat=targets):
        session, nats = made.start(1, Meta(targets, tuple(range(documents)))), 0.0
        for token in tokens:
            nats -= float(session.propose()[token])
            session.reveal(token)
        total += float(np.exp(-nats))
    assert total == pytest.approx(1.0, abs=1e-5)

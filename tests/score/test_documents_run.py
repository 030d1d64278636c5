"""A run whose result is the strict pass over documents: scored, proved by fresh processes over a phase, and reported."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from fairway import pipeline
from fairway.base.runs import RunFolder
from fairway.base.values import with_fields
from fairway.config import Recipe

TARGETS, PREFIX = 500, 4


@pytest.mark.slow
def test_a_run_over_documents_is_proved(corpus: Path, quick: Recipe, tmp_path: Path) -> None:
    changes = {
        "score.passes": ("plain", "documents", "documents_tilted"),
        "score.max_tokens": TARGETS,
        "score.proof_targets": TARGETS,
        "score.tilt.contexts": (3,),
        "score.tilt.thresholds": (0.5,),
        "score.tilt.minimum_counts": (1,),
        "score.tilt.agreement": 0.0,
        "score.documents.lanes": 3,
        "score.documents.chunk_sizes": (8, 16),
        "score.documents.chunk_limits": (32,),
        "score.documents.rank": 4,
        "score.documents.alpha": 8.0,
        "score.documents.learning_rate": 0.003,
        "score.documents.prefix_documents": PREFIX,
        "score.documents.global_learning_rate": 0.02,
        "score.documents.global_chunk_tokens": 64,
        "score.documents.global_context": 32,
    }
    folder = RunFolder(tmp_path / "run")
    pipeline.run(with_fields(quick, changes), data=corpus, out=folder.root, resume=False, overwrite=False)
    stated, proof = json.loads(folder.score.read_text()), json.loads((folder.root / "proof.json").read_text())
    assert stated["pass"] == "documents_tilted"
    assert len(stated["side_information"]) == 2
    with np.load(folder.ledger) as ledger:
        order, documents = ledger["documents_tilted_order"], ledger["documents"]
        assert sorted(order.tolist()) == list(range(len(order)))
        # Chunks of three documents take turns: the order of coding is not that of the stream.
        assert not np.array_equal(order, np.arange(len(order)))
        assert len(documents) > PREFIX + 1
        assert stated["passes"]["documents_tilted"]["nats"] == pytest.approx(
            float(ledger["documents_tilted_nll"].sum()), rel=1e-5
        )
    assert proof["pass_name"] == "documents_tilted"
    assert proof["decoded_exactly"] == 2
    assert proof["targets"] == TARGETS
    bits = 8 * (proof["coded_bytes"] - proof["overhead_bytes"])
    assert abs(bits - proof["nats"] / math.log(2)) <= 64 + 0.001 * bits

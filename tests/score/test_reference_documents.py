"""Nats per target of PR #2140's adaptation per document equal the published system's, and so do its adapters and weights."""

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from document_cases import FAMILIES, DocumentCase, document_case, stored_adapters
from safetensors.torch import load_file
from scoring_cases import WHOLE
from torch import Tensor

from fairway.config import ScoreConfig
from fairway.model.gpt import GPT
from fairway.model.step import Site
from fairway.score.documents import DocumentPredictor
from fairway.score.driver import walk
from fairway.score.hints import build_hints
from fairway.score.lane_plans import PublishedPlan
from fairway.score.lanes import LaneStep, coding_order
from fairway.score.ledger import Ledger
from fairway.score.passes import Plan, ScoredText, build_pass, run_pass
from fairway.score.predictor import Predictor
from fairway.score.tilt_documents import PublishedTiltedPredictor
from reference_names import to_fairway

TOLERANCE = 3e-5
needs_adapters = pytest.mark.skipif(
    not WHOLE.is_dir(), reason="the stored adapters lie outside the repository; one document of run b is tested from it"
)
Adapters = dict[Site, Tensor]


def padded(adapters: Adapters, lanes: int) -> Adapters:
    """Stored adapters of fewer lanes, zeros in the others."""
    return {
        site: torch.cat([a, a.new_zeros(a.shape[0], lanes - a.shape[1], *a.shape[2:])], dim=1) for site, a in adapters.items()
    }


def drawn(*adapters: Adapters) -> Callable[[], Adapters]:
    """Stored draws of A, one after the other."""
    left: Iterator[Adapters] = iter(adapters)
    return lambda: next(left)


def plan_of(case: DocumentCase, config: ScoreConfig) -> PublishedPlan:
    return PublishedPlan(case.text.documents.numpy(), case.text.targets, config.documents, config.context)


def run_a(case: DocumentCase, config: ScoreConfig, *, keep_graph: bool = False) -> tuple[DocumentPredictor, GPT]:
    """The predictor of run a: batches 4, 3 and 1 begin with a fresh A."""
    model = case.network()
    starts = [padded(stored_adapters("a", f"start_b{number}", "A"), 4) for number in (4, 3, 1)]
    return DocumentPredictor(model, config.documents, ended_decay=True, keep_graph=keep_graph, draw=drawn(*starts)), model


def scored(predictor: Predictor, plan: Plan, text: ScoredText) -> Ledger:
    ledger = Ledger(text.byte_costs)
    walk(predictor, text.tokens, ledger, plan)
    return ledger


def check(ledger: Ledger, run: dict[str, np.ndarray]) -> None:
    np.testing.assert_allclose(ledger.nats, run["nll"], atol=TOLERANCE, rtol=0)
    assert ledger.total_nats == pytest.approx(run["summary"][0], rel=1e-6)
    assert (len(ledger.nats), ledger.total_bytes) == tuple(run["summary"][1:3])
    assert ledger.bits_per_byte == pytest.approx(run["summary"][4], abs=1e-6)


@needs_adapters
@pytest.mark.parametrize("keep_graph", [False, True])
def test_nats_adapters_and_weights_of_the_published_order(keep_graph: bool) -> None:
    """Nats; A and B of every batch when it is over, with the decay of lanes that ended early; weights after the phase."""
    case = document_case()
    config = case.config(as_published=True)
    predictor, model = run_a(case, config, keep_graph=keep_graph)
    numbers, restart = iter((4, 3, 2, 1)), predictor.adapters.restart

    def checked_restart() -> None:
        number = next(numbers)
        for kind in ("A", "B"):
            for site, wanted in stored_adapters("a", f"end_b{number}", kind).items():
                found = getattr(predictor.adapters.pairs[site], kind.lower())[:, : wanted.shape[1]]
                torch.testing.assert_close(found, wanted, atol=1e-4, rtol=0)
        restart()

    predictor.adapters.restart = checked_restart
    ledger = scored(predictor, plan_of(case, config), case.text)
    assert next(numbers, None) is None
    check(ledger, case.runs["a"])
    after = {k: v for k, v in load_file(WHOLE / "2140_a_after_global.safetensors").items() if k != "rope_inv_freq"}
    for name, tensor in to_fairway(after, case.setting("layers")).items():
        torch.testing.assert_close(model.state_dict()[name], tensor, atol=2e-6, rtol=0)


@needs_adapters
def test_the_tilt_of_the_published_order() -> None:
    case = document_case()
    config, run, ids = case.config(as_published=True), case.runs["a_tilt"], case.text.tokens.numpy().astype(np.uint16)
    _, plan = build_pass("documents_tilted", case.network(), case.text.targets, config, text=case.text)
    hints, strengths = build_hints(ids, config.tilt, vocab_size=192, primer=int(ids[1]))
    np.testing.assert_array_equal(hints, np.where(run["gate"], run["hint_ids"], -1))
    np.testing.assert_array_equal(strengths, run["boost"].astype(np.float64))
    assert int(run["gate"].sum()) == 351
    order = coding_order(plan_of(case, config), case.text.tokens)
    tilted = PublishedTiltedPredictor(run_a(case, config)[0], hints[order], strengths[order])
    check(scored(tilted, plan, case.text), run)


def test_the_pass_of_the_published_tilt_has_the_published_hints() -> None:
    case = document_case()
    config, run = case.config(as_published=True), case.runs["a_tilt"]
    tilted, plan = build_pass("documents_tilted", case.network(), case.text.targets, config, text=case.text)
    assert isinstance(tilted, PublishedTiltedPredictor)
    order = coding_order(plan, case.text.tokens)
    np.testing.assert_array_equal(tilted.hints, np.where(run["gate"], run["hint_ids"], -1)[order])


def test_chunks_windows_and_order_of_the_published_plan() -> None:
    case = document_case()
    run, plan = case.runs["a"], plan_of(case, case.config(as_published=True))
    chunk, window, forward = (np.full(case.text.targets, -1) for _ in range(3))
    begins, step_number, renewals, coded = case.text.documents.numpy(), 0, [], 0
    order = coding_order(plan, case.text.tokens)
    for step in plan.steps(lambda row, begin: row.reach(case.text.tokens, begin)):
        if not isinstance(step, LaneStep):
            renewals.append((step_number, step.text))
            continue
        for row in step.rows:
            entries = order[coded : coded + row.most]
            coded += row.most
            assert entries[0] == begins[row.document] + row.position
            # All chunks of a document but the last have the same size.
            window[entries] = row.position + 1 - len(row.history)
            forward[entries] = step_number
            assert run["doc_row"][row.document] == row.lane
        step_number += 1
    for document, begin in enumerate(begins):
        size = int((run["chunk"][begin : begin + plan.lengths[document]] == 0).sum())
        chunk[begin : begin + plan.lengths[document]] = np.arange(plan.lengths[document]) // size
    np.testing.assert_array_equal(chunk, run["chunk"])
    np.testing.assert_array_equal(window, run["window_start_in_doc"])
    np.testing.assert_array_equal(forward, run["forward_index"])
    coded_text = torch.cat([case.text.tokens[:1], case.text.tokens[1:][torch.from_numpy(order)]])
    z = [coded_text[torch.from_numpy(text)].numpy() for _, text in renewals if len(text)]
    assert len(z) == 1
    np.testing.assert_array_equal(z[0], run["z_tokens"])


@needs_adapters
@pytest.mark.parametrize(("name", "lanes"), [pytest.param("b", 1, marks=pytest.mark.long), ("b_batched", 4)])
def test_independent_documents_alone_and_in_batches(name: str, lanes: int) -> None:
    case = document_case()
    config = case.config(as_published=True, phases=0, warm_start=False, lanes=lanes)
    plan = plan_of(case, config)
    by_document = {site: a.squeeze(0) for site, a in stored_adapters("b", "start", "A").items()}
    order = np.argsort(plan.lengths, kind="stable")
    batches = [order[first : first + lanes] for first in range(0, len(order), lanes)][::-1]
    starts = [
        padded(
            {site: a[torch.from_numpy(batch)].reshape(-1, *_shape(site, a)).transpose(0, 1) for site, a in by_document.items()},
            lanes,
        )
        for batch in [*batches, batches[0]]
    ]
    predictor = DocumentPredictor(case.network(), config.documents, ended_decay=True, draw=drawn(*starts))
    ledger = scored(predictor, plan, case.text)
    np.testing.assert_allclose(ledger.nats, case.runs[name]["nll"], atol=TOLERANCE, rtol=0)


def _shape(site: Site, a: Tensor) -> tuple[int, ...]:
    """[application, rank, in] of one document."""
    return (1, *a.shape[1:]) if site == "head" else tuple(a.shape[1:])


@pytest.mark.parametrize("windows", [1, 32])
def test_packed_rows_of_documents_give_the_published_plain_nats(windows: int) -> None:
    """Rows of 96 targets, attention within documents and within pieces of 32 tokens from their start."""
    case = document_case()
    config = ScoreConfig(
        passes=("plain",),
        context=case.setting("plain_context"),
        stride=1,
        packed_tokens=case.setting("plain_slice_targets"),
        windows_per_forward=windows,
    )
    ledger = run_pass("plain", case.network(), case.text, config)
    np.testing.assert_allclose(ledger.nats, case.runs["shared"]["plain_nll"], atol=TOLERANCE, rtol=0)


def test_the_longest_document_alone() -> None:
    """Run b of one document, whose A lies in the repository: chunks, windows that move, AdamW and adapters."""
    case = document_case()
    config, run = case.config(as_published=True, phases=0, lanes=1), case.runs["b"]
    begin, end = (int(edge) for edge in case.text.documents[1:3])
    text = ScoredText(
        case.text.tokens[begin : end + 1], case.text.byte_costs[begin:end], torch.zeros(1, dtype=torch.int64), True
    )
    stored = {site: torch.from_numpy(run[f"start_A.{family}"]) for family, site in FAMILIES.items()}
    start = {site: (a[None, None] if site == "head" else a[:, None]) for site, a in stored.items()}
    predictor: Predictor = DocumentPredictor(case.network(), config.documents, ended_decay=True, draw=drawn(start))
    plan = PublishedPlan(text.documents.numpy(), text.targets, config.documents, config.context)
    ledger = scored(predictor, plan, text)
    np.testing.assert_allclose(ledger.nats, run["nll"][begin:end], atol=TOLERANCE, rtol=0)
    # Adaptation is worth a multiple of the tolerance, so this compares more than the network.
    fixed = case.config(as_published=True, phases=0, lanes=1, learning_rate=1e-12)
    untrained = run_pass("documents", case.network(), text, fixed)
    assert untrained.total_nats - ledger.total_nats > 5

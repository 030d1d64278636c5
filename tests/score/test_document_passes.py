"""The strict pass over documents: what it may know, what it must not, and that a decoder follows it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from hypothesis import given, settings
from hypothesis import strategies as st
from score_text import scored_text
from torch import Tensor

from fairway.base.errors import RecipeError, ValidityError
from fairway.config import DocumentAdaptationConfig, PassName, ScoreConfig, TiltConfig
from fairway.data.tokenizer import BOS
from fairway.score.codec import decode, encode
from fairway.score.documents import DocumentPredictor
from fairway.score.driver import score, walk
from fairway.score.lane_plans import PublishedPlan, StrictPlan, chunk_size, phase_bounds
from fairway.score.lanes import (
    LaneRow,
    LaneStep,
    coding_order,
    decoded_order,
    document_starts,
    in_coding_order,
    in_stream_order,
)
from fairway.score.ledger import Ledger
from fairway.score.lora import Adapters, Pair, seeded_draw
from fairway.score.passes import build_pass, count_documents, run_pass
from fairway.score.plan import fixed_plan, plain_windows
from fairway.score.predictor import LaneBatch, RevealedText, WindowBatch
from fairway.train.distributed import Ranks
from toy_network import toy_network

VOCAB = 11
ADAPTATION = DocumentAdaptationConfig(
    lanes=3,
    chunk_sizes=(2, 4),
    chunk_limits=(6,),
    rank=2,
    alpha=4.0,
    learning_rate=0.02,
    prefix_documents=4,
    global_learning_rate=0.05,
    global_chunk_tokens=8,
    global_context=4,
)
CONFIG = ScoreConfig(
    context=10,
    stride=2,
    documents=ADAPTATION,
    tilt=TiltConfig(contexts=(1, 2), thresholds=(0.5, 0.5), minimum_counts=(1, 1), strength=2.0),
)
LENGTHS = (7, 1, 12, 4, 9, 3, 5)
"""Targets of the documents, the marker of the next one included, but for the last."""


def stream(lengths: tuple[int, ...] = LENGTHS, seed: int = 0) -> Tensor:
    """Documents of these numbers of targets, written from few tokens so that contexts come back."""
    generator = torch.Generator().manual_seed(seed)
    tokens = [torch.tensor([BOS])]
    for number, length in enumerate(lengths):
        text = torch.randint(2, 6, (length,), generator=generator)
        if number < len(lengths) - 1:
            text[-1] = BOS
        tokens.append(text)
    return torch.cat(tokens)


TEXT = stream()


def config(**changes: Any) -> ScoreConfig:
    return replace(CONFIG, documents=replace(ADAPTATION, **changes))


def plan_of(tokens: Tensor, settings: ScoreConfig = CONFIG) -> StrictPlan:
    return StrictPlan(len(tokens) - 1, count_documents(tokens), settings.documents, settings.context)


def build(name: PassName, tokens: Tensor, settings: ScoreConfig = CONFIG, **options: Any):
    return build_pass(name, toy_network(VOCAB), len(tokens) - 1, settings, documents=count_documents(tokens), **options)


class Rows:
    """A predictor that keeps every whole distribution, by entry in the order of coding."""

    def __init__(self, inner) -> None:
        self.inner, self.vocab_size = inner, inner.vocab_size
        self.rows: dict[int, Tensor] = {}

    def predict(self, batch: WindowBatch) -> Tensor:
        found = self.inner.predict(batch)
        for row, begin in enumerate((batch.starts + batch.first_scored).tolist()):
            for column in range(found.shape[1]):
                # Columns behind the end of a document come first; the row that owns the entry comes later.
                self.rows[begin + column] = found[row, column]
        return found

    def observe(self, block) -> None:
        self.inner.observe(block)


def distributions(name: PassName, tokens: Tensor) -> tuple[Tensor, np.ndarray]:
    """Distributions in the order of coding, and that order."""
    predictor, plan = build(name, tokens)
    rows, order = Rows(predictor), coding_order(plan, tokens)
    score(rows, in_coding_order(tokens, order), Ledger(np.zeros(len(order), np.uint16)), plan)
    return torch.stack([rows.rows[entry] for entry in range(len(order))]), order


@pytest.mark.parametrize("name", ["documents", "documents_tilted"])
def test_what_is_coded_later_changes_no_distribution(name: PassName) -> None:
    """Whatever comes at and after a place of the order of coding, markers that move ends of documents included."""
    before, order = distributions(name, TEXT)
    coded = in_coding_order(TEXT, order)
    for cut, seed in ((3, 0), (11, 1), (17, 2), (29, 3)):
        # Another text with as many documents that is coded alike up to the cut.
        changed = other_ending(coded, cut, seed)
        found, order_found = distributions(name, changed)
        again = in_coding_order(changed, order_found)
        assert torch.equal(again[: cut + 1], coded[: cut + 1])
        assert not torch.equal(again, coded)
        assert torch.equal(found[: cut + 1], before[: cut + 1])


def other_ending(coded: Tensor, cut: int, seed: int) -> Tensor:
    """A stream whose order of coding agrees up to entry ``cut``, with the same numbers of targets and documents."""
    documents, generator = count_documents(coded), torch.Generator().manual_seed(seed)
    for _ in range(1000):
        changed = coded.clone()
        changed[cut + 1 :] = torch.randint(1, 6, (len(coded) - cut - 1,), generator=generator)
        plan = StrictPlan(len(coded) - 1, documents, ADAPTATION, CONFIG.context)
        if count_documents(changed) == documents:
            order = decoded_order(plan, changed)
            if len(order) == len(coded) - 1:
                candidate = in_stream_order(changed, order)
                if torch.equal(in_coding_order(candidate, coding_order(plan, candidate)), changed):
                    return candidate
    raise AssertionError("no other ending was found")


@given(lengths=st.lists(st.integers(1, 14), min_size=1, max_size=9), lanes=st.integers(1, 4), prefix=st.integers(0, 6))
@settings(max_examples=40, deadline=None)
def test_the_strict_plan_looks_at_coded_tokens_alone_and_covers_the_text(lengths: list[int], lanes: int, prefix: int) -> None:
    tokens = stream(tuple(lengths))
    plan = plan_of(tokens, config(lanes=lanes, prefix_documents=prefix))
    order = coding_order(plan, tokens)
    np.testing.assert_array_equal(np.sort(order), np.arange(len(tokens) - 1))
    coded = in_coding_order(tokens, order)
    trained, done = [], 0

    def reach(row: LaneRow, begin: int) -> tuple[int, bool]:
        # What is not coded yet reads as document markers, which would end every row that looked at it.
        count, ended = row.reach(torch.where(torch.arange(len(coded)) <= done, coded, BOS), begin)
        assert begin + count <= done
        return count, ended

    for step in plan.steps(reach):
        if isinstance(step, LaneStep):
            begin = done
            for row in step.rows:
                assert row.history.max() <= done
                assert len(row.history) + row.most - 1 <= CONFIG.context
                begin += row.reach(coded, begin)[0]
            done = begin
        else:
            assert step.text.max() <= done
            trained.append(coded[torch.from_numpy(step.text)])
    assert done == len(tokens) - 1
    np.testing.assert_array_equal(decoded_order(plan, coded), order)
    assert torch.equal(in_stream_order(coded, order), tokens)
    # A phase trains on whole documents from the start of the stream, and on nothing else.
    starts = document_starts(tokens)
    wanted = [tokens[: starts[prefix] + 1]] if 0 < prefix < len(starts) else []
    assert [text.tolist() for text in trained] == [text.tolist() for text in wanted]


@pytest.mark.parametrize("name", ["documents", "documents_tilted"])
def test_a_decoder_follows_the_strict_pass(name: PassName) -> None:
    predictor, plan = build(name, TEXT)
    ledger = Ledger(np.zeros(len(TEXT) - 1, np.uint16))
    words = encode(predictor, TEXT, ledger, plan)
    predictor, plan = build(name, TEXT)
    assert torch.equal(decode(predictor, words, BOS, len(TEXT) - 1, plan), TEXT)
    assert 32 * len(words) * np.log(2) < ledger.total_nats + 64
    scored = run_pass(name, toy_network(VOCAB), scored_text(TEXT), CONFIG)
    np.testing.assert_allclose(ledger.nats, scored.nats, atol=2e-5)
    np.testing.assert_array_equal(ledger.order, scored.order)


def test_lanes_change_no_result_where_documents_are_independent() -> None:
    found = []
    for lanes in (1, 3):
        settings = config(lanes=lanes, warm_start=False, phases=0)
        found.append(run_pass("documents", toy_network(VOCAB), scored_text(TEXT), settings).nats)
    np.testing.assert_allclose(found[0], found[1], atol=1e-5)
    # Each document alone, as a text of its own.
    for begin, end in zip(document_starts(TEXT), [*document_starts(TEXT)[1:], len(TEXT) - 1], strict=True):
        alone = TEXT[begin : end + 1]
        settings = config(lanes=1, warm_start=False, phases=0)
        nats = run_pass("documents", toy_network(VOCAB), scored_text(alone), settings).nats
        np.testing.assert_allclose(nats, found[0][begin:end], atol=1e-5)


def test_the_first_chunk_is_that_of_the_network_and_later_ones_are_not() -> None:
    long = stream((30,))
    adapted = run_pass("documents", toy_network(VOCAB), scored_text(long), config(learning_rate=0.05)).nats
    fixed = run_pass("documents", toy_network(VOCAB), scored_text(long), config(learning_rate=1e-30)).nats
    np.testing.assert_array_equal(adapted[:2], fixed[:2])
    assert np.abs(adapted[2:] - fixed[2:]).max() > 1e-2


def test_a_phase_changes_what_comes_after_it_and_nothing_before() -> None:
    tokens = scored_text(TEXT)
    with_phase, without = (run_pass("documents", toy_network(VOCAB), tokens, config(phases=n)) for n in (1, 0))
    edge = int(document_starts(TEXT)[4])
    np.testing.assert_allclose(with_phase.nats[:edge], without.nats[:edge], atol=1e-5)
    assert np.abs(with_phase.nats[edge:] - without.nats[edge:]).max() > 1e-3


def test_one_forward_pass_less_changes_no_number() -> None:
    found = []
    for keep in (False, True):
        predictor, plan = build("documents", TEXT, keep_graph=keep)
        ledger = Ledger(np.zeros(len(TEXT) - 1, np.uint16))
        walk(predictor, TEXT, ledger, plan)
        found.append(ledger.nats)
    np.testing.assert_allclose(found[0], found[1], atol=1e-6)


def test_the_published_order_is_refused_where_a_decoder_would_need_it() -> None:
    published = replace(CONFIG, mode="as_published")
    with pytest.raises(RecipeError, match=r"lengths, which no decoder knows .* set score.mode=strict"):
        build("documents", TEXT, published)
    _, plan = build("documents", TEXT, published, text=scored_text(TEXT))
    assert isinstance(plan, PublishedPlan)
    with pytest.raises(RecipeError, match="needs the number of documents"):
        build_pass("documents", toy_network(VOCAB), 10, CONFIG)
    with pytest.raises(RecipeError, match="word experts"):
        ScoreConfig(passes=("documents_tilted",), tilt=TiltConfig(agreement=0.1))


def test_adapters_need_a_lane_plan() -> None:
    predictor, _ = build("documents", TEXT)
    with pytest.raises(ValidityError, match="lane plan"):
        score(predictor, TEXT, Ledger(np.zeros(len(TEXT) - 1, np.uint16)), fixed_plan(plain_windows(len(TEXT) - 1, 8)))


def test_a_plan_for_another_text_is_refused() -> None:
    plan = PublishedPlan(document_starts(TEXT), len(TEXT) - 3, ADAPTATION, 10)
    with pytest.raises(ValidityError, match="make it for this text"):
        coding_order(plan, TEXT)


def test_chunks_and_phases_by_the_settings() -> None:
    published = DocumentAdaptationConfig()
    assert [chunk_size(published, position) for position in (0, 255, 256, 1999, 2000)] == [16, 16, 32, 32, 64]
    assert phase_bounds(replace(published, phases=3)) == [833, 1666, 2500]
    assert phase_bounds(replace(published, phases=0)) == []
    sizes = (1,) * 47_328
    lengths = np.array([*sizes, *range(2, 2674)])
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    order, done = PublishedPlan(starts, int(lengths.sum()), published, 3072), 0
    assert len(order.lengths) == 50_000
    batches = [order.lengths[first : first + 24] for first in range(0, 50_000, 24)]
    assert (len(batches), len(batches[-1])) == (2084, 8)
    for number, batch in enumerate(reversed(batches), 1):
        done += len(batch)
        if done >= 2500:
            assert (number, done) == (105, 2504)
            break


@pytest.mark.parametrize("beta2", [0.99, 0.0])
def test_adamw_of_the_lanes(beta2: float) -> None:
    """Worked numbers of the specification, and ``torch.optim.AdamW`` on random gradients."""
    options = replace(ADAPTATION, lanes=2, learning_rate=7.5e-5, weight_decay=0.5, beta2=beta2, sites=("mlp",))
    model = toy_network(VOCAB)
    adapters = Adapters(options, model.config, torch.device("cpu"), torch.float64, seeded_draw(options, model.config, 3))
    pair = adapters.pairs["mlp"]
    twins = [tensor.detach().clone().requires_grad_() for tensor in pair]
    optimizer = torch.optim.AdamW(twins, lr=7.5e-5, betas=(0.0, beta2), eps=1e-10, weight_decay=0.5)
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        slopes = Pair(*(torch.randn(tensor.shape, generator=generator, dtype=torch.float64) for tensor in pair))
        for twin, slope in zip(twins, slopes, strict=True):
            twin.grad = slope.clone()
        optimizer.step()
        adapters.step([0, 1], {"mlp": slopes})
    for tensor, twin in zip(pair, twins, strict=True):
        torch.testing.assert_close(tensor, twin.detach(), atol=1e-12, rtol=0)


def test_a_lane_that_has_ended_stays_as_it_is() -> None:
    predictor, _ = build("documents", TEXT)
    assert isinstance(predictor, DocumentPredictor)
    adapters = predictor.adapters
    before = {site: Pair(a.clone(), b.clone()) for site, (a, b) in adapters.pairs.items()}
    batch = LaneBatch(torch.tensor([[1, 2, 3]]), 1, torch.tensor([0]), torch.tensor([1, 2, 3]), 0, (1,), ())
    assert predictor.predict(batch).shape == (1, 2, VOCAB)
    ones = {site: Pair(torch.ones_like(a[:, :1]), torch.ones_like(b[:, :1])) for site, (a, b) in adapters.pairs.items()}
    adapters.step([1], ones)
    for site, (a, b) in adapters.pairs.items():
        for found, old in ((a, before[site].a), (b, before[site].b)):
            assert torch.equal(found[:, [0, 2]], old[:, [0, 2]])
            assert not torch.equal(found[:, 1], old[:, 1])


def test_a_renewal_brings_back_the_first_adapters_and_trains_the_network() -> None:
    predictor, _ = build("documents", TEXT)
    assert isinstance(predictor, DocumentPredictor)
    adapters, weight = predictor.adapters, predictor.model.embedding.weight
    first = {site: a.clone() for site, (a, _) in adapters.pairs.items()}
    ones = {site: Pair(torch.ones_like(a[:, :1]), torch.ones_like(b[:, :1])) for site, (a, b) in adapters.pairs.items()}
    adapters.step([0], ones)
    adapters.restart()
    assert all(not torch.equal(pair.a, first[site]) and not pair.b.any() for site, pair in adapters.pairs.items())
    before = weight.clone()
    predictor.observe(RevealedText(TEXT[:0], 0))
    assert all(torch.equal(pair.a, first[site]) for site, pair in adapters.pairs.items())
    assert torch.equal(weight, before)
    predictor.observe(RevealedText(TEXT, 0))
    assert not torch.equal(weight, before)
    assert not weight.requires_grad


def scored_as_rank(rank: int, world: int, folder: str) -> None:
    torch.set_num_threads(1)
    store = torch.distributed.FileStore(f"{folder}/store", world)
    torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=world)
    try:
        ledger = run_pass("documents_tilted", toy_network(VOCAB), scored_text(TEXT), CONFIG, ranks=Ranks(rank, world))
        np.save(f"{folder}/rank{rank}.npy", ledger.nats)
    finally:
        torch.distributed.destroy_process_group()


def test_ranks_share_lanes_and_phases_and_change_no_result(tmp_path: Path) -> None:
    """Three ranks of three lanes, and a phase whose documents they share."""
    alone = run_pass("documents_tilted", toy_network(VOCAB), scored_text(TEXT), CONFIG).nats
    mp.spawn(scored_as_rank, (3, str(tmp_path)), nprocs=3)
    for rank in range(3):
        np.testing.assert_allclose(np.load(tmp_path / f"rank{rank}.npy"), alone, atol=1e-5)

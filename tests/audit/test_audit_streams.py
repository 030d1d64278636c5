"""Streams of the audit, the places it looks at, and how it makes witnesses small."""

import numpy as np
import pytest
from audit_toys import Documents, LengthOrdered, Toy
from hypothesis import given, settings
from hypothesis import strategies as st

from fairway.audit.influence import on_cycles, shortest_cycle
from fairway.audit.order import coding_order, groups_of, split_at
from fairway.audit.probes import candidates, longest_matches, probe_entries
from fairway.audit.runner import Malformed
from fairway.audit.scorer import Meta
from fairway.audit.shrink import fewest_changes
from fairway.audit.streams import MARKER, generate, markov, shared_documents, uniform

TOKENS = st.lists(st.integers(0, 3), min_size=2, max_size=40).map(lambda items: np.array(items, dtype=np.int64))


@settings(deadline=None, max_examples=30)
@given(tokens=TOKENS)
def test_longest_matches_are_those_of_a_plain_search(tokens: np.ndarray) -> None:
    lengths, ends = longest_matches(tokens)
    for place in range(len(tokens)):
        best = 0
        for end in range(place):
            length = 0
            while length <= end and tokens[end - length] == tokens[place - length]:
                length += 1
            best = max(best, length)
        assert lengths[place] == best
        if best:
            end = int(ends[place])
            assert end < place
            np.testing.assert_array_equal(tokens[end - best + 1 : end + 1], tokens[place - best + 1 : place + 1])


@pytest.mark.parametrize("vocab", [2, 4, 16, 1024])
def test_documents_begin_where_they_are_said_to(vocab: int) -> None:
    stream = shared_documents(vocab, 200, 3)
    assert stream.targets == 200
    assert stream.tokens.max() < vocab
    if stream.marker is None:
        assert vocab < 5
    else:
        assert np.flatnonzero(stream.tokens == MARKER).tolist() == list(stream.document_starts)
    lengths = np.diff([*stream.document_starts, 201])
    assert lengths[-1] > lengths[0]


def test_streams_repeat_themselves_and_depend_on_the_seed_alone() -> None:
    one, two, other = (shared_documents(64, 300, seed) for seed in (5, 5, 6))
    np.testing.assert_array_equal(one.tokens, two.tokens)
    assert not np.array_equal(one.tokens, other.tokens)
    lengths, _ = longest_matches(one.tokens)
    assert np.mean(lengths >= 3) > 0.3


def test_phrases_can_come_from_real_text() -> None:
    text = np.arange(10, 200)
    stream = shared_documents(256, 300, 0, text=text)
    assert set(stream.tokens.tolist()) <= {MARKER, *text.tolist()}
    runs = np.diff(stream.tokens) == 1
    assert runs.mean() > 0.5


def test_source_costs_are_those_of_the_source() -> None:
    stream = uniform(8, 500, 0)
    assert stream.source_nats is not None
    assert stream.source_nats.sum() == pytest.approx(500 * np.log(8))
    chain = markov(32, 500, 0)
    pairs = {tuple(pair) for pair in np.stack([chain.tokens[:-1], chain.tokens[1:]], axis=1).tolist()}
    assert all(len({b for a, b in pairs if a == token}) <= 4 for token in range(32))


def test_probes_cover_every_kind_of_place() -> None:
    stream = shared_documents(16, 300, 0)
    entries = probe_entries(stream, 12, 0)
    assert len(set(entries)) == 12
    assert all(0 <= entry < stream.targets for entry in entries)
    starts = set(stream.document_starts)
    assert any(entry in starts for entry in entries)
    assert any(entry + 1 in starts for entry in entries)
    lengths, ends = longest_matches(stream.tokens[:-1])
    followed = stream.tokens[ends + 1] == stream.tokens[1:]
    assert any(lengths[entry] >= 5 and followed[entry] for entry in entries)
    assert any(lengths[entry] >= 3 and not followed[entry] for entry in entries)


def test_candidates_begin_with_what_followed_before() -> None:
    stream = shared_documents(1024, 300, 0)
    lengths, ends = longest_matches(stream.tokens[:-1])
    entry = int(lengths.argmax())
    found = candidates(stream, entry, 12, 0, np.arange(1024))
    assert len(found) == len(set(found)) == 12
    assert int(stream.tokens[ends[entry] + 1]) in found
    assert int(stream.tokens[entry + 1]) in found


def test_declared_documents_stay_and_undeclared_ones_follow_the_text() -> None:
    stream = shared_documents(16, 100, 0)
    changed = stream.tokens.copy()
    changed[60:] = 5
    assert (
        stream.changed_meta(Documents(declares=frozenset({"documents"})), changed, 0).document_starts == stream.document_starts
    )
    followed = stream.changed_meta(Toy(), changed, 0).document_starts
    assert followed == tuple(start for start in stream.document_starts if start < 60)


def test_groups_split_into_before_and_after() -> None:
    scorer, meta = LengthOrdered(declares=frozenset({"documents"})), Meta(9, (0, 4))
    groups = groups_of(scorer, meta)
    assert [group.tolist() for group in groups] == [[3, 4, 5, 6, 7, 8], [0, 1, 2]]
    before, after = split_at(groups, 5, 9)
    assert np.flatnonzero(before).tolist() == [3, 4]
    assert np.array_equal(before, ~after)
    assert coding_order(scorer, meta).tolist() == [3, 4, 5, 6, 7, 8, 0, 1, 2]
    # Documents that are used but not declared are not told, and the schedule is another.
    assert len(groups_of(LengthOrdered(), meta)) == 1


def test_a_schedule_names_every_target_once() -> None:
    class Twice(Toy):
        def schedule(self, meta: Meta) -> list[np.ndarray]:
            return [np.array([0, 1]), np.array([1])]

    with pytest.raises(Malformed, match="2 of them distinct, of 3"):
        groups_of(Twice(), Meta(3))


@settings(deadline=None, max_examples=40)
@given(needed=st.sets(st.integers(0, 30), min_size=1, max_size=3))
def test_fewest_changes_keeps_what_is_needed(needed: set[int]) -> None:
    kept = fewest_changes(np.arange(31), lambda places: needed <= set(places.tolist()), attempts=400)
    assert set(kept.tolist()) == needed


def test_cycles() -> None:
    graph = {0: [1], 1: [2], 2: [0, 3], 3: [2], 4: [0]}
    assert sorted(shortest_cycle(graph)) == [2, 3]
    assert on_cycles(graph) == [0, 1, 2, 3]
    assert shortest_cycle({0: [], 1: [0], 2: [0, 1]}) == []


def test_generated_streams_fit_the_vocabulary() -> None:
    for vocab in (2, 3, 8, 300):
        made = generate(vocab, 0, 60, 80)
        assert all(stream.tokens.max() < vocab for stream in (made.logic, *made.sources))

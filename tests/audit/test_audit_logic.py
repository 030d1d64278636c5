"""Every test passes valid scorers, fails on one that breaks exactly what it looks for, and its witness can be replayed."""

from collections.abc import Callable

import numpy as np
import pytest
from audit_toys import (
    VOCAB,
    BlackBox,
    Documents,
    Forgetful,
    LengthOrdered,
    LengthRate,
    LookBack,
    StreamHints,
    Toy,
    bigram,
    blend,
    gated,
    honest,
    next_token,
    skipping,
    sure_of_what_it_knows,
    two_pass,
    warmed_up,
)

from fairway.audit.coverage import coverage
from fairway.audit.decoding import lossless_decoding
from fairway.audit.determinism import determinism
from fairway.audit.finding import Finding
from fairway.audit.future import future_perturbation
from fairway.audit.hook import hook_consistency
from fairway.audit.incompressible import incompressible_stream
from fairway.audit.independence import document_independence
from fairway.audit.influence import influence_graph
from fairway.audit.kraft import kraft_enumeration
from fairway.audit.online import online_protocol
from fairway.audit.order import coding_order
from fairway.audit.prefix import replay_prefixes
from fairway.audit.scorer import Meta, Scorer
from fairway.audit.streams import generate, shared_documents
from fairway.audit.substitution import substitution_sum
from fairway.audit.witness import Case, replay

STREAMS = generate(VOCAB, seed=0, targets=160, source_targets=400)
DOCUMENTS = frozenset({"documents"})
TARGETS = frozenset({"targets"})

ON_LOGIC: dict[str, Callable[..., Finding]] = {
    "F": future_perturbation,
    "S": substitution_sum,
    "H": hook_consistency,
    "G": influence_graph,
    "N": replay_prefixes,
    "O": online_protocol,
    "P": document_independence,
    "X": coverage,
    "E": determinism,
    "D": lossless_decoding,
}

VALID: dict[str, Callable[[], Scorer]] = {
    "adaptive bigram": Toy,
    "prefix tilt": lambda: Toy(tilted=True),
    "black box": lambda: BlackBox(honest),
    "declared length": lambda: LengthRate(declares=TARGETS),
    "length order": lambda: LengthOrdered(declares=DOCUMENTS),
    "documents": lambda: Documents(declares=DOCUMENTS),
}


def run(letter: str, scorer: Scorer) -> Finding:
    if letter == "U":
        return incompressible_stream(scorer, *STREAMS.sources)
    return ON_LOGIC[letter](scorer, STREAMS.logic)


@pytest.mark.parametrize("name", VALID)
@pytest.mark.parametrize("letter", [*ON_LOGIC, "U"])
def test_valid_scorers_are_never_flagged(letter: str, name: str) -> None:
    finding = run(letter, VALID[name]())
    assert finding.verdict in ("pass", "not applicable"), finding.reason
    assert finding.test == letter
    if finding.verdict == "pass":
        assert finding.witness is None
        assert finding.runs > 0


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_no_seed_flags_a_valid_tilt(seed: int) -> None:
    stream = shared_documents(VOCAB, 120, seed)
    for function in (future_perturbation, substitution_sum, influence_graph, replay_prefixes):
        assert function(Toy(tilted=True), stream, seed=seed).verdict == "pass"


class Unequal(Toy):
    """Shows another distribution than it scores with."""

    def distributions(self, tokens: np.ndarray, meta: Meta, targets: np.ndarray) -> np.ndarray:
        return np.log(np.stack([np.full(self.vocab_size, 1 / self.vocab_size) for _ in targets]))


class GatedHook(Toy):
    """The distribution shown is another one for odd targets."""

    def distributions(self, tokens: np.ndarray, meta: Meta, targets: np.ndarray) -> np.ndarray:
        return np.log(np.stack([bigram(self.vocab_size, tokens[: entry + 1 + tokens[entry + 1] % 2]) for entry in targets]))


class Impure(Toy):
    """Proposing changes what is proposed next."""

    def start(self, first: int, meta: Meta):
        walk = super().start(first, meta)
        inner = walk.propose

        def propose() -> np.ndarray:
            walk.past.insert(0, 3)
            return inner()

        walk.propose = propose
        return walk


class Cheaper(Toy):
    """Claims one nat in ten less than its distributions give."""

    def score(self, tokens: np.ndarray, meta: Meta) -> np.ndarray:
        return 0.9 * super().score(tokens, meta)


class UndeclaredOrder(LengthOrdered):
    """Length order without saying so: neither the documents nor the schedule are declared."""

    schedule = None

    def score(self, tokens: np.ndarray, meta: Meta) -> np.ndarray:
        return LengthOrdered().score(tokens, meta)


INVALID: dict[str, tuple[str, Callable[[], Scorer]]] = {
    "F next token": ("F", lambda: BlackBox(next_token)),
    "F two passes": ("F", lambda: BlackBox(two_pass)),
    "F warm-up on the first targets": ("F", lambda: BlackBox(warmed_up)),
    "F undeclared order": ("F", UndeclaredOrder),
    "S gate on the target": ("S", lambda: BlackBox(gated)),
    "S blend": ("S", lambda: BlackBox(blend)),
    "S skipped targets": ("S", lambda: BlackBox(skipping)),
    "H unequal": ("H", Unequal),
    "H gated": ("H", GatedHook),
    "G two passes": ("G", lambda: BlackBox(two_pass)),
    "G order conflict": ("G", lambda: StreamHints(declares=DOCUMENTS)),
    "N length": ("N", LengthRate),
    "O length": ("O", LengthRate),
    "O documents": ("O", Documents),
    "O cheaper": ("O", Cheaper),
    "U blend": ("U", lambda: BlackBox(blend)),
    "U two passes": ("U", lambda: BlackBox(two_pass)),
    "P look back": ("P", lambda: LookBack(declares=DOCUMENTS)),
    "X skipped targets": ("X", lambda: BlackBox(skipping)),
    "E state": ("E", Forgetful),
    "D cheaper": ("D", Cheaper),
}


REPLAYED = ("F", "S", "H", "G", "N", "O", "U", "P", "X")


@pytest.mark.parametrize("name", INVALID)
def test_a_breach_is_found_and_its_witness_replayed(name: str) -> None:
    letter, make = INVALID[name]
    finding = run(letter, make())
    assert finding.verdict == "fail", finding.reason
    assert not finding.statistic <= finding.tolerance
    assert finding.conditions
    assert finding.blind_to
    if letter in REPLAYED:
        assert finding.witness is not None
        expected, found = replay(finding.witness, make())
        assert expected == pytest.approx(finding.witness.expected, rel=1e-9)
        assert found == pytest.approx(finding.witness.found, rel=1e-9)
        assert abs(expected - found) > finding.tolerance


def test_a_proposal_that_changes_state_is_found() -> None:
    finding = online_protocol(Impure(), STREAMS.logic)
    assert finding.verdict == "fail"


def test_what_future_perturbation_cannot_see_the_substitution_sum_does() -> None:
    assert run("F", BlackBox(gated)).verdict == "pass"
    assert run("F", BlackBox(blend)).verdict == "pass"
    assert run("S", BlackBox(next_token)).verdict == "pass"


def test_length_order_with_stream_hints_has_a_cycle_that_length_order_lacks() -> None:
    finding = run("G", StreamHints(declares=DOCUMENTS))
    cycle = finding.details["edges"]
    assert [edge[1] for edge in cycle] == [edge[0] for edge in cycle[1:]] + [cycle[0][0]]
    assert len(cycle) == 2
    for witness in finding.details["other_witnesses"]:
        expected, found = replay(witness, StreamHints(declares=DOCUMENTS))
        assert expected != found


def test_witnesses_of_another_order_keep_to_it() -> None:
    """A shortened text may be coded in another order; the changed tokens must still come after the target there."""
    finding = run("F", StreamHints(declares=DOCUMENTS))
    assert finding.verdict == "fail"
    witness = finding.witness
    assert witness is not None
    case = Case.from_dict(witness.tokens["first"])
    places = np.array([int(place) for place in witness.tokens["substituted"]])
    assert (places > 0).all()
    order = coding_order(StreamHints(declares=DOCUMENTS), case.meta).tolist()
    assert all(order.index(place - 1) > order.index(witness.position) for place in places.tolist())


def test_witnesses_are_small() -> None:
    future = run("F", BlackBox(next_token)).witness
    assert future is not None
    assert len(future.tokens["substituted"]) == 1
    blended = run("S", BlackBox(blend)).witness
    assert blended is not None
    assert len(blended.tokens["first"]["tokens"]) < 20


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_a_warm_up_on_the_first_targets_shows_at_the_early_cut(seed: int) -> None:
    finding = future_perturbation(BlackBox(warmed_up), shared_documents(VOCAB, 120, seed), seed=seed, probes=5)
    assert finding.verdict == "fail"
    assert finding.details["full_stream_position"] < 7


def test_a_small_witness_of_a_sum_keeps_the_direction_of_the_breach() -> None:
    """Cut down to its last token the text would sum to 0.6: a breach too, but not the one that was found."""
    finding = run("S", BlackBox(sure_of_what_it_knows))
    full = 1.0 + finding.statistic
    assert full > 2
    assert f"sum to {full:.6g} instead of 1" in finding.reason
    assert finding.witness is not None
    assert 1.0 + 0.5 * finding.statistic <= finding.witness.found <= full
    assert len(finding.witness.tokens["first"]["tokens"]) < finding.details["full_stream_position"] + 2


def test_state_between_runs_is_told_from_chance() -> None:
    finding = run("E", Forgetful())
    assert "after another text" in finding.reason or "at once" in finding.reason


@pytest.mark.parametrize("broken", [np.nan, -1.0])
def test_what_is_no_score_is_a_finding(broken: float) -> None:
    class Broken(Toy):
        def score(self, tokens: np.ndarray, meta: Meta) -> np.ndarray:
            nats = super().score(tokens, meta)
            nats[5] = broken
            return nats

    class Short(Toy):
        def score(self, tokens: np.ndarray, meta: Meta) -> np.ndarray:
            return super().score(tokens, meta)[:-2]

    for scorer in (Broken(), Short()):
        for letter in ("F", "S", "X", "U"):
            finding = run(letter, scorer)
            assert finding.verdict == "fail"
            assert finding.witness is not None


def test_kraft_sums() -> None:
    for make in (lambda v: Toy(vocab_size=v), lambda v: Toy(vocab_size=v, tilted=True), lambda v: BlackBox(honest, v)):
        for vocab in (2, 3):
            finding = kraft_enumeration(make(vocab), most_streams=256)
            assert finding.verdict == "pass", finding.reason
            assert finding.details["sum"] == pytest.approx(1.0, abs=1e-9)
    for cost, over in ((gated, False), (blend, True), (two_pass, True)):
        scorer = BlackBox(cost, 2)
        finding = kraft_enumeration(scorer)
        assert finding.verdict == "fail"
        assert (finding.details["sum"] > 1) == over
        assert finding.witness is not None
        assert replay(finding.witness, scorer)[1] == pytest.approx(finding.details["sum"])


def test_kraft_settles_the_order_of_coding() -> None:
    ordered = LengthOrdered(vocab_size=2, declares=DOCUMENTS)
    conflict = StreamHints(vocab_size=2, declares=DOCUMENTS)
    assert kraft_enumeration(ordered).verdict == "pass"
    finding = kraft_enumeration(conflict)
    assert finding.verdict == "fail"


def test_kraft_needs_a_tiny_alphabet() -> None:
    assert kraft_enumeration(Toy()).verdict == "not applicable"


def test_too_few_probes_leave_a_pass_undecided() -> None:
    assert future_perturbation(Toy(), STREAMS.logic, probes=2).verdict == "undecided"
    assert substitution_sum(Toy(), STREAMS.logic, probes=2).verdict == "undecided"
    assert substitution_sum(BlackBox(honest), STREAMS.logic, most_runs=8).verdict == "undecided"
    # A part of the alphabet whose sum is above one is proof, however little was tried.
    assert substitution_sum(BlackBox(blend), STREAMS.logic, most_runs=8).verdict == "fail"


def test_a_passed_deadline_stops_at_the_fewest_probes() -> None:
    for function, each in ((substitution_sum, VOCAB), (hook_consistency, 10)):
        slow, quick = function(Toy(), STREAMS.logic), function(Toy(), STREAMS.logic, deadline=0.0)
        assert slow.verdict == quick.verdict == "pass"
        assert quick.runs <= 4 * each + 2 < slow.runs


def test_decoding_without_a_walk_uses_distributions() -> None:
    class Shown(Toy):
        start = None

    stream = STREAMS.logic.part(0, 81)
    finding = lossless_decoding(Shown(), stream)
    assert finding.verdict == "pass"
    assert finding.statistic < finding.tolerance


def test_a_distribution_that_sees_the_future_does_not_decode() -> None:
    class Peeking(Toy):
        start = None

        def distributions(self, tokens: np.ndarray, meta: Meta, targets: np.ndarray) -> np.ndarray:
            return np.log(np.stack([bigram(self.vocab_size, tokens[: entry + 2]) for entry in targets]))

        def score(self, tokens: np.ndarray, meta: Meta) -> np.ndarray:
            shown = self.distributions(tokens, meta, np.arange(len(tokens) - 1))
            return -shown[np.arange(len(tokens) - 1), tokens[1:]]

    assert lossless_decoding(Peeking(), STREAMS.logic.part(0, 81)).verdict == "fail"

"""F, future perturbation: what comes later must not change what was scored earlier."""

import numpy as np
from jaxtyping import Bool, Int64

from fairway.audit.order import coded_before, groups_of, split_at
from fairway.audit.probes import probe_entries
from fairway.audit.runner import FLOAT32, Outcome, Runner, Sheet, Tolerances, audit_test
from fairway.audit.shrink import fewest_changes, latest_start
from fairway.audit.streams import AuditStream
from fairway.audit.witness import Case, difference

SHEET = Sheet(
    "F",
    "future perturbation",
    ("causal", "score before update", "single pass"),
    "largest change in nats of a target coded before the cut",
    "what depends on the target itself (unnormalised blends, target-dependent gates), and what is in the artifact",
    "A later part of the text was changed, and the cost of an earlier target changed with it. A decoder reads the earlier "
    "target first and does not have the later text yet.",
)
FEWEST_CUTS = 5
KINDS = ("random", "repeat", "constant")
EARLY = (4, 3, 5, 2, 6, 7)
"""Cuts within the first few targets, of which one is always made: a warm-up on the beginning of the text shows nowhere else.
About half of the first eight targets should stay, and half change, so the middle ones come first."""


@audit_test(SHEET)
def future_perturbation(
    runner: Runner, stream: AuditStream, *, seed: int = 0, probes: int = 8, tolerances: Tolerances = FLOAT32
) -> Outcome:
    """``max |nats(x) - nats(y)|`` over targets before a cut, where ``y`` differs from ``x`` at and after it.

    Every cut is tried with three replacements: random tokens, the text before the cut once more (which fires caches), and
    one token throughout. The last cut lies within the first few targets. Declared side information stays; with a
    declared schedule, before and after are its own.

    Args:
        runner: The scorer.
        stream: The text; its repeats and documents decide where the cuts are.
        seed: Seed of cuts and replacements.
        probes: Number of cuts; fewer than five leave a pass undecided.
        tolerances: ``same_shape`` applies.

    Source: rules of the challenge, test F.
    """
    meta = stream.meta()
    base = runner.nats(stream.tokens, meta)
    groups = groups_of(runner.scorer, meta)
    cuts = _cuts(stream, groups, probes, seed)
    worst = 0.0
    for number, cut in enumerate(cuts):
        before, after = split_at(groups, cut, stream.targets)
        for kind in KINDS:
            changed = replaced(runner, stream, after, kind, [seed, number])
            found = runner.nats(changed, stream.changed_meta(runner.scorer, changed, seed + number))
            gap = np.where(before, gaps(base, found), 0.0)
            worst = max(worst, float(gap.max()))
            if worst > tolerances.same_shape:
                return _breach(runner, stream, changed, seed + number, before, int(gap.argmax()), worst, tolerances)
    reason = f"{len(cuts)} cuts with {len(KINDS)} replacements each changed nothing that was coded before them"
    if len(cuts) < FEWEST_CUTS:
        return Outcome("undecided", worst, tolerances.same_shape, f"only {len(cuts)} cuts were tried")
    return Outcome("pass", worst, tolerances.same_shape, reason)


def _cuts(stream: AuditStream, groups: list[Int64[np.ndarray, "_"]], probes: int, seed: int) -> list[int]:
    """At most ``probes`` entries before which something is coded: where mechanisms are at work, and one early in the text."""

    def usable(entry: int) -> bool:
        return entry < stream.targets and bool(split_at(groups, entry, stream.targets)[0].any())

    early = next(([entry] for entry in EARLY if usable(entry)), [])
    others = [entry for entry in probe_entries(stream, probes + 4, seed) if entry not in early and usable(entry)]
    return [*others[: probes - len(early)], *early]


def gaps(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """``|first - second|``, zero where both are infinite."""
    with np.errstate(invalid="ignore"):
        return np.where(first == second, 0.0, np.abs(first - second))


def replaced(
    runner: Runner, stream: AuditStream, later: Bool[np.ndarray, " targets"], kind: str, seed: list[int]
) -> Int64[np.ndarray, " targets_plus_1"]:
    """The stream with the targets of the entries ``later`` replaced; declared markers stay."""
    rng, alphabet = np.random.default_rng(seed), stream.alphabet(runner.scorer)
    places = np.flatnonzero(later) + 1
    places = places[~stream.fixed(runner.scorer)[places]]
    changed = stream.tokens.copy()
    if kind == "random":
        changed[places] = rng.choice(alphabet, len(places))
    elif kind == "constant":
        changed[places] = rng.choice(alphabet)
    else:
        earlier = np.flatnonzero(~later) + 1
        text = stream.tokens[earlier] if len(earlier) else stream.tokens[:1]
        text = text[np.isin(text, alphabet)]
        text = text[-int(rng.integers(4, 40)) :] if len(text) else rng.choice(alphabet, 1)
        changed[places] = np.resize(text, len(places))
    return changed


def _breach(
    runner: Runner,
    stream: AuditStream,
    changed: Int64[np.ndarray, " targets_plus_1"],
    seed: int,
    before: Bool[np.ndarray, " targets"],
    entry: int,
    worst: float,
    tolerances: Tolerances,
) -> Outcome:
    """The smallest change, in the shortest stream, that still alters the entry."""
    unchanged: dict[tuple[int, int], float] = {}

    def compare(first: int, stop: int, places: np.ndarray) -> tuple[Case, Case, float, float]:
        part = stream.part(first, stop)
        tokens = part.tokens.copy()
        tokens[places - first] = changed[places]
        a, b = Case(part.tokens, part.meta()), Case(tokens, part.changed_meta(runner.scorer, tokens, seed))
        if (first, stop) not in unchanged:
            unchanged[first, stop] = runner.nats(a.tokens, a.meta)[entry - first]
        return a, b, unchanged[first, stop], runner.nats(b.tokens, b.meta)[entry - first]

    def differs(first: int, stop: int, places: np.ndarray) -> bool:
        if not coded_before(runner.scorer, stream.part(first, stop).meta(), entry - first, places - first):
            return False
        _, _, one, two = compare(first, stop, places)
        return bool(gaps(np.array(one), np.array(two)) > tolerances.same_shape)

    end = len(stream.tokens)
    places = np.flatnonzero(changed != stream.tokens)
    places = fewest_changes(places, lambda kept: differs(0, end, kept))
    needed = max(int(places[-1]) + 1, entry + 2)
    stop = needed if needed < end and differs(0, needed, places) else end
    start = latest_start(min(entry, int(places[0]) - 1), stream, runner.scorer, lambda first: differs(first, stop, places))
    unchanged.clear()
    one, two, expected, found = compare(start, stop, places)
    gap = float(gaps(np.array(expected), np.array(found)))
    if not gap > tolerances.same_shape:
        return Outcome("fail", worst, tolerances.same_shape, f"target {entry + 1} changes from run to run; see test E")
    how = (
        f"the nats of target {entry - start + 1}, coded before the tokens at {(places - start).tolist()}, "
        "change when those are replaced"
    )
    witness = difference(how, one, two, entry - start, expected, found)
    reason = f"target {entry + 1} costs {expected:.6g} nats, and {found:.6g} after tokens coded later were replaced"
    details = {"coded_before": int(before.sum()), "full_stream_position": entry}
    return Outcome("fail", gap, tolerances.same_shape, reason, witness, details)

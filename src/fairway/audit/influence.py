"""G, influence graph: if two stretches of text each depend on the other, no decoder can begin with either."""

import numpy as np
from jaxtyping import Int64

from fairway.audit.future import gaps
from fairway.audit.order import groups_of
from fairway.audit.runner import FLOAT32, Outcome, Runner, Sheet, Tolerances, audit_test
from fairway.audit.scorer import Scheduled
from fairway.audit.streams import AuditStream
from fairway.audit.witness import Case, difference

SHEET = Sheet(
    "G",
    "influence graph",
    ("causal", "score before update", "single pass"),
    "number of units on cycles of influence, or of influences against the stated order",
    "influence of a unit on itself (use S), and influence that the replacements do not trigger",
    "Two stretches of the text each depend on the other, or one depends on another that is to be decoded after it. A "
    "decoder must have read the one before it can read the other, so it has no place to begin or to go on.",
)
UNITS_WITHOUT_DOCUMENTS = 8


@audit_test(SHEET)
def influence_graph(
    runner: Runner, stream: AuditStream, *, seed: int = 0, probes: int = 12, tolerances: Tolerances = FLOAT32
) -> Outcome:
    """Replace one unit at a time and mark ``i <- j`` where a target of unit ``i`` changes with unit ``j``; no cycle may be.

    Units are the documents, or stretches of equal length where there is only one. The replacement is random text, then the
    text of the unit after it, so that caches find something. Needs no declared order; one that is declared must agree.

    Args:
        runner: The scorer.
        stream: The text; its units must share phrases, or caches stay silent.
        seed: Seed of the replacements.
        probes: Largest number of units that are replaced.
        tolerances: ``same_shape`` applies.

    Source: rules of the challenge, test G.
    """
    edges_at = _units(stream)
    units = len(edges_at) - 1
    base = runner.nats(stream.tokens, stream.meta())
    witnesses: dict[tuple[int, int], tuple[int, np.ndarray, float, float]] = {}
    chosen = np.unique(np.linspace(0, units - 1, min(probes, units)).round().astype(int))
    for unit in chosen:
        for kind in ("random", "neighbour"):
            changed = _replace(runner, stream, edges_at, int(unit), kind, seed)
            found = runner.nats(changed, stream.changed_meta(runner.scorer, changed, seed))
            gap = gaps(base, found)
            for other in range(units):
                inside = slice(max(0, edges_at[other] - 1), edges_at[other + 1] - 1)
                if other != unit and gap[inside].size and gap[inside].max() > tolerances.same_shape:
                    entry = inside.start + int(gap[inside].argmax())
                    key = (other, int(unit))
                    if key not in witnesses:
                        witnesses[key] = (entry, changed, float(base[entry]), float(found[entry]))
    adjacency = {unit: sorted(j for i, j in witnesses if i == unit) for unit in range(units)}
    details = {"units": [int(edge) for edge in edges_at], "depends_on": {str(k): v for k, v in adjacency.items()}}
    cycle = shortest_cycle(adjacency)
    against = _against_schedule(runner, stream, edges_at, witnesses)
    if cycle:
        pair = [(cycle[k], cycle[(k + 1) % len(cycle)]) for k in range(len(cycle))]
        return _fail(runner, stream, witnesses, pair, len(on_cycles(adjacency)), f"units {cycle} depend on each other", details)
    if against:
        i, j = against[0]
        reason = f"unit {i} depends on unit {j}, which the stated order codes later"
        return _fail(runner, stream, witnesses, [against[0]], len(against), reason, details)
    if len(chosen) < 2:
        return Outcome("undecided", 0.0, 0.0, "fewer than two units could be replaced", details=details)
    return Outcome("pass", 0.0, 0.0, f"{len(witnesses)} influences among {units} units, and no cycle", details=details)


def _units(stream: AuditStream) -> list[int]:
    """First tokens of the units, and the end."""
    if len(stream.document_starts) > 1:
        return [*stream.document_starts, len(stream.tokens)]
    count = min(UNITS_WITHOUT_DOCUMENTS, len(stream.tokens) // 2)
    return np.linspace(0, len(stream.tokens), count + 1).round().astype(int).tolist()


def _replace(
    runner: Runner, stream: AuditStream, edges_at: list[int], unit: int, kind: str, seed: int
) -> Int64[np.ndarray, " targets_plus_1"]:
    first, stop = edges_at[unit], edges_at[unit + 1]
    places = np.arange(first, stop)
    places = places[~stream.fixed(runner.scorer)[places]]
    if stream.marker is not None:
        places = places[~np.isin(places, stream.document_starts)]
    alphabet = stream.alphabet(runner.scorer)
    alphabet = alphabet[alphabet != stream.marker]
    changed = stream.tokens.copy()
    if kind == "random":
        changed[places] = np.random.default_rng([seed, unit]).choice(alphabet, len(places))
    else:
        other = (unit + 1) % (len(edges_at) - 1)
        text = stream.tokens[edges_at[other] : edges_at[other + 1]]
        text = text[np.isin(text, alphabet)]
        changed[places] = np.resize(text, len(places)) if len(text) else changed[places]
    return changed


def shortest_cycle(depends_on: dict[int, list[int]]) -> list[int]:
    """Nodes of a shortest cycle, each depending on the next; empty where there is none."""
    best: list[int] = []
    for root in depends_on:
        paths, seen = [[root]], {root}
        while paths and (not best or len(paths[0]) < len(best)):
            path = paths.pop(0)
            for node in depends_on[path[-1]]:
                if node == root:
                    if not best or len(path) < len(best):
                        best = path
                elif node not in seen:
                    seen.add(node)
                    paths.append([*path, node])
    return best


def on_cycles(depends_on: dict[int, list[int]]) -> list[int]:
    """Nodes that can be reached from themselves."""

    def reached(root: int) -> set[int]:
        found: set[int] = set()
        waiting = list(depends_on[root])
        while waiting:
            node = waiting.pop()
            if node not in found:
                found.add(node)
                waiting += depends_on[node]
        return found

    return [node for node in depends_on if node in reached(node)]


def _against_schedule(
    runner: Runner, stream: AuditStream, edges_at: list[int], witnesses: dict[tuple[int, int], tuple]
) -> list[tuple[int, int]]:
    """Influences of units that the scorer's own schedule codes entirely later."""
    if not isinstance(runner.scorer, Scheduled):
        return []
    group_of = np.zeros(stream.targets, dtype=np.int64)
    for number, group in enumerate(groups_of(runner.scorer, stream.meta())):
        group_of[group] = number
    first = {
        unit: group_of[max(0, edges_at[unit] - 1) : edges_at[unit + 1] - 1].min(initial=stream.targets)
        for unit in range(len(edges_at) - 1)
    }
    return [(i, j) for (i, j), (entry, *_) in witnesses.items() if group_of[entry] < first[j]]


def _fail(
    runner: Runner,
    stream: AuditStream,
    found: dict[tuple[int, int], tuple[int, np.ndarray, float, float]],
    edges: list[tuple[int, int]],
    statistic: int,
    reason: str,
    details: dict,
) -> Outcome:
    """One witness per influence of the cycle; the first is that of the finding."""
    shown = []
    for i, j in edges:
        entry, changed, before, after = found[i, j]
        meta = stream.changed_meta(runner.scorer, changed, 0)
        how = f"the nats of target {entry + 1}, in unit {i}, change when unit {j} is replaced"
        shown.append(difference(how, Case(stream.tokens, stream.meta()), Case(changed, meta), entry, before, after))
    details = {**details, "edges": [list(edge) for edge in edges], "other_witnesses": shown[1:]}
    numbers = "; ".join(f"{witness.how}, from {witness.expected:.6g} to {witness.found:.6g}" for witness in shown[:2])
    return Outcome("fail", float(statistic), 0.0, f"{reason}: {numbers}", shown[0], details)

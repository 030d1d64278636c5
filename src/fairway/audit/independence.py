"""P, document independence: where it is claimed, other documents change nothing."""

import numpy as np

from fairway.audit.future import gaps
from fairway.audit.runner import FLOAT32, Outcome, Runner, Sheet, Tolerances, audit_test
from fairway.audit.scorer import Independent
from fairway.audit.streams import AuditStream
from fairway.audit.witness import Case, difference

SHEET = Sheet(
    "P",
    "document independence",
    ("causal",),
    "largest change in nats of a target when other documents are replaced or reordered",
    "everything inside a document",
    "Other documents were replaced or put in another order, and the cost of a document changed with them. The score "
    "claims that each document is scored as if no other existed, and that is not so.",
)


@audit_test(SHEET)
def document_independence(
    runner: Runner, stream: AuditStream, *, seed: int = 0, probes: int = 6, tolerances: Tolerances = FLOAT32
) -> Outcome:
    """A document's targets cost the same when all others are replaced, and when the documents come in another order.

    The target that is a document marker belongs to no document and is left out.

    Args:
        runner: The scorer; only one that claims independence is examined.
        stream: The text, of two documents or more.
        seed: Seed of replacements and orders.
        probes: Number of documents that are kept while the others are replaced.
        tolerances: ``same_shape`` where places stay, ``other_shape`` where they move.

    Source: rules of the challenge, test P.
    """
    scorer = runner.scorer
    if not (isinstance(scorer, Independent) and scorer.documents_independent):
        return Outcome("not applicable", 0.0, 0.0, "the scorer does not claim that documents are scored independently")
    edges = [*stream.document_starts, len(stream.tokens)]
    if len(edges) < 3:
        return Outcome("undecided", 0.0, 0.0, "the stream has a single document")
    base = runner.nats(stream.tokens, stream.meta())
    documents = np.unique(np.linspace(0, len(edges) - 2, min(probes, len(edges) - 1)).round().astype(int)).tolist()
    for kept in documents:
        found = _replaced(runner, stream, edges, kept, seed, base, tolerances)
        if found is not None:
            return found
    worst, moved = _reordered(runner, stream, edges, seed, base, tolerances)
    if moved is not None:
        return moved
    return Outcome(
        "pass", worst, tolerances.other_shape, f"{len(documents)} documents cost the same beside others and elsewhere"
    )


def _replaced(
    runner: Runner, stream: AuditStream, edges: list[int], kept: int, seed: int, base: np.ndarray, tolerances: Tolerances
) -> Outcome | None:
    first, stop = edges[kept], edges[kept + 1]
    rng, alphabet = np.random.default_rng([seed, kept]), stream.alphabet(runner.scorer)
    alphabet = alphabet[alphabet != stream.marker]
    places = np.setdiff1d(np.arange(1, len(stream.tokens)), [*range(first, stop), *stream.document_starts])
    changed = stream.tokens.copy()
    changed[places] = rng.choice(alphabet, len(places))
    nats = runner.nats(changed, stream.meta())
    inside = slice(first, stop - 1)
    gap = gaps(base[inside], nats[inside])
    if not gap.size or gap.max() <= tolerances.same_shape:
        return None
    entry = first + int(gap.argmax())
    how = f"nats of target {entry + 1}, in the document that begins at {first}, before and after all others were replaced"
    one, two = Case(stream.tokens, stream.meta()), Case(changed, stream.meta())
    witness = difference(how, one, two, entry, float(base[entry]), float(nats[entry]))
    reason = f"target {entry + 1} costs {base[entry]:.6g} nats, and {nats[entry]:.6g} beside other documents"
    return Outcome("fail", float(gap.max()), tolerances.same_shape, reason, witness)


def _reordered(
    runner: Runner, stream: AuditStream, edges: list[int], seed: int, base: np.ndarray, tolerances: Tolerances
) -> tuple[float, Outcome | None]:
    """All documents once more in another order; a first document keeps its place, for its first token is given."""
    order = [0, *(1 + np.random.default_rng(seed).permutation(len(edges) - 2)).tolist()]
    if order == sorted(order):
        order = [0, *reversed(order[1:])]
    tokens = np.concatenate([stream.tokens[edges[k] : edges[k + 1]] for k in order])
    lengths = [edges[k + 1] - edges[k] for k in order]
    starts = tuple(int(start) for start in np.concatenate([[0], np.cumsum(lengths)[:-1]]))
    moved = AuditStream(stream.name, tokens, stream.vocab_size, starts, stream.marker)
    nats = runner.nats(moved.tokens, moved.meta())
    worst = 0.0
    for place, document in zip(starts, order, strict=True):
        first, count = edges[document], edges[document + 1] - edges[document] - 1
        gap = gaps(base[first : first + count], nats[place : place + count])
        worst = max(worst, float(gap.max(initial=0.0)))
        if worst > tolerances.other_shape:
            offset = int(gap.argmax())
            entry, shift = first + offset, place - first
            how = (
                f"nats of a target of the document that begins at {first}, and of the same with the documents in another order"
            )
            one, two = Case(stream.tokens, stream.meta()), Case(tokens, moved.meta())
            before, after = float(base[entry]), float(nats[entry + shift])
            witness = difference(how, one, two, entry, before, after, shift)
            reason = f"target {entry + 1} costs {before:.6g} nats, and {after:.6g} with the documents in another order"
            return worst, Outcome("fail", worst, tolerances.other_shape, reason, witness)
    return worst, None

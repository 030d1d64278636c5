"""The order of coding that a scorer states, as places that must not know of each other."""

import numpy as np
from jaxtyping import Bool, Int64

from fairway.audit.finding import Witness
from fairway.audit.runner import Malformed
from fairway.audit.scorer import Meta, Scheduled, Scorer


def groups_of(scorer: Scorer, meta: Meta) -> list[Int64[np.ndarray, "_"]]:
    """Entries committed together, group after group: the scorer's schedule, or the stream one target at a time.

    Undeclared side information is withheld: a schedule that needs it comes out differently from the order of scoring.

    Raises:
        Malformed: the schedule does not name every entry exactly once.
    """
    if not isinstance(scorer, Scheduled):
        return [np.array([entry]) for entry in range(meta.targets)]
    told = Meta(meta.targets, meta.document_starts if "documents" in scorer.declares else (0,))
    groups = [np.asarray(group, dtype=np.int64) for group in scorer.schedule(told)]
    named = np.sort(np.concatenate(groups)) if groups else np.zeros(0, dtype=np.int64)
    if not np.array_equal(named, np.arange(meta.targets)):
        text = f"the schedule names {len(named)} entries, {len(np.unique(named))} of them distinct, of {meta.targets}"
        witness = Witness(-1, {"compare": "schedule"}, float(meta.targets), float(len(np.unique(named))), text)
        raise Malformed(text, witness)
    return groups


def split_at(
    groups: list[Int64[np.ndarray, "_"]], entry: int, targets: int
) -> tuple[Bool[np.ndarray, " targets"], Bool[np.ndarray, " targets"]]:
    """Entries coded before ``entry``, and ``entry`` with all that come later.

    Inside the group of ``entry``, earlier means earlier in the stream.
    """
    before = np.zeros(targets, dtype=bool)
    for group in groups:
        if entry in group:
            before[group[group < entry]] = True
            break
        before[group] = True
    return before, ~before


def coded_before(scorer: Scorer, meta: Meta, entry: int, places: Int64[np.ndarray, " places"]) -> bool:
    """Whether the target of ``entry`` is coded before the tokens at all ``places``; token 0 is given before everything."""
    if not isinstance(scorer, Scheduled):
        return bool((places > entry + 1).all())
    rank = np.empty(meta.targets, dtype=np.int64)
    rank[coding_order(scorer, meta)] = np.arange(meta.targets)
    return bool((places > 0).all() and (rank[places - 1] > rank[entry]).all())


def coding_order(scorer: Scorer, meta: Meta) -> Int64[np.ndarray, " targets"]:
    """All entries, one after the other, in the order of coding."""
    return np.concatenate([np.sort(group) for group in groups_of(scorer, meta)])

"""Making witnesses small: fewer changed tokens, a shorter stream."""

from collections.abc import Callable, Iterable
from itertools import count, takewhile

import numpy as np
from jaxtyping import Int64

from fairway.audit.scorer import Scorer
from fairway.audit.streams import AuditStream


def fewest_changes(
    places: Int64[np.ndarray, " places"], fails: Callable[[Int64[np.ndarray, " kept"]], bool], attempts: int = 24
) -> Int64[np.ndarray, " kept"]:
    """A small part of ``places`` that still ``fails``, by leaving out ever smaller pieces (delta debugging)."""
    kept, piece = places, max(1, len(places) // 2)
    while attempts > 0 and len(kept) > 1:
        for first in range(0, len(kept), piece):
            rest = np.concatenate([kept[:first], kept[first + piece :]])
            attempts -= 1
            if len(rest) and fails(rest):
                kept = rest
                break
            if attempts == 0:
                break
        else:
            if piece == 1:
                break
            piece = max(1, piece // 2)
        piece = min(piece, max(1, len(kept) // 2))
    return kept


def latest_start(entry: int, stream: AuditStream, scorer: Scorer, fails: Callable[[int], bool]) -> int:
    """The latest first token, at ``entry`` or 1, 3, 7 ... before it, from which the stream still ``fails``; 0 at worst.

    Where documents are declared, a stream begins with a document, so only their starts are tried.
    """
    steps: Iterable[int] = (entry + 1 - 2**power for power in count())
    if "documents" in scorer.declares:
        steps = [start for start in reversed(stream.document_starts) if start <= entry]
    return next((start for start in takewhile(lambda start: start > 0, steps) if fails(start)), 0)

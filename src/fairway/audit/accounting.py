"""Y, byte accounting: every byte of every document is charged once, and to nothing else."""

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise, zip_longest
from typing import Any, Literal

import numpy as np
from jaxtyping import Int64, UInt16

from fairway.audit.finding import Finding, Witness
from fairway.audit.runner import Outcome, Sheet
from fairway.base.errors import DataError
from fairway.data.ledger import encode_documents, piece_table
from fairway.data.tokenizer import BOS, Tokenizer

SHEET = Sheet(
    "Y",
    "byte accounting",
    ("bytes",),
    "documents, texts and passes whose bytes do not come out",
    "whether the tokens are those of the original text, where that is not at hand",
    "The bytes counted for the pieces of a text are not the bytes of that text, or a stated figure does not follow from "
    "them. Bits per byte are then divided by a wrong number.",
)

ADVERSARIAL: tuple[str, ...] = (
    "",
    " ",
    "   ",
    "\x00",
    "\u2581",
    " leading",
    "trailing ",
    "Capital LETTERS iPhone",
    "two  spaces",
    "\n",
    "\nline\n",
    "\t",
    "naïve café",
    "e\u0301\u0302",
    "ß ﬁ İ ı",
    "\u200d\ufeff",
    "👩\u200d👩\u200d👧 🇦🇶",
    "\ue001a\ue002\ue003\ue004",
    "漢字かな",
    "\U0010ffff",
    "a" * 300,
)
"""Empty, NUL, a lone U+2581, spaces at every end, capitals, emoji, combining marks, letters that change under case folding
or normalisation, the operators of CaseOps in the text, a line end after the document marker, and long runs."""

KNOWN_TOTALS: dict[int, int] = {
    40_540_160: 151_078_222,
    40_548_352: 151_077_767,
    40_540_802: 151_080_891,
    47_851_520: 151_074_499,
    47_853_343: 151_080_645,
}
"""Targets -> bytes of the published validation exports (rules of the challenge, test Y)."""

IDENTITY_TOLERANCE = 1e-8
"""Relative difference of ``B / T`` and ``L / (ln 2 bpb)``."""

Charge = Callable[[str], tuple[Sequence[int] | np.ndarray, Sequence[int] | np.ndarray]]
"""Text -> token ids and the bytes that each is charged; a ``DataError`` refuses the text."""


def byte_accounting(
    tokenizer: Tokenizer,
    tokens: UInt16[np.ndarray, " tokens"] | Int64[np.ndarray, " tokens"],
    charged: UInt16[np.ndarray, " tokens"] | Int64[np.ndarray, " tokens"],
    documents: Int64[np.ndarray, " documents"],
    *,
    rule: Literal["sidecar", "piece_table"] = "sidecar",
    lossy_documents: int = 0,
    charge: Charge | None = None,
    passes: Mapping[str, Mapping[str, Any]] | None = None,
) -> Finding:
    """Decode every document and compare its bytes with what its tokens are charged; then difficult texts; then sums.

    The text of a document is known from its tokens alone; that these bring back what they were made from is required of the
    difficult texts.

    Args:
        tokenizer: The tokenizer of the tokens.
        tokens: A stream of whole documents.
        charged: Bytes charged to each token.
        documents: Positions of the document markers.
        rule: sidecar: a document's charges add up to its UTF-8 length. piece_table: each token has its table's charge.
        lossy_documents: Documents known not to decode to their text; so many may differ, and difficult texts may too.
        charge: The rule under test, for texts that are not in the stream; by default the package's.
        passes: Figures of each pass as ``score.json`` holds them, for ``B / T = L / (ln 2 bpb)``.

    Source: rules of the challenge, test Y.
    """
    # Operators without the transform that undoes them: the tokens do not tell their text.
    hidden = bool(tokenizer.operators) and tokenizer.text_transform == "none"
    problems: list[tuple[str, Witness]] = []
    expected_total = KNOWN_TOTALS.get(len(tokens) - 1)
    total = int(np.asarray(charged, dtype=np.int64).sum())
    if expected_total is not None and total != expected_total:
        how = f"bytes of the published export of {len(tokens) - 1} targets, and bytes charged"
        problems.append((how, _witness(-1, expected_total, total, how)))
    if rule == "piece_table":
        problems += _against_table(tokenizer, tokens, charged)
    elif not hidden:
        wrong = _against_text(tokenizer, np.asarray(tokens, np.int64), np.asarray(charged, np.int64), documents)
        problems += wrong if len(wrong) > lossy_documents else []
    exact = not lossy_documents and not hidden
    problems += _against_adversaries(tokenizer, charge or _package_charge(tokenizer, keep_lossy=not exact), exact)
    problems += _identities(passes or {})
    details = {
        "documents": len(documents),
        "bytes": total,
        "tokens": len(tokens),
        "problems": [text for text, _ in problems[:20]],
    }
    if problems:
        text, witness = problems[0]
        return SHEET.finding(Outcome("fail", float(len(problems)), 0.0, text, witness, details))
    if hidden and rule == "sidecar":
        reason = "the tokens of a transformed text do not show its bytes; decode it with the transform and compare"
        return SHEET.finding(Outcome("undecided", 0.0, 0.0, reason, details=details))
    reason = f"{total:,} bytes of {len(documents):,} documents are charged once, and {len(ADVERSARIAL)} difficult texts too"
    return SHEET.finding(Outcome("pass", 0.0, 0.0, reason, details=details))


def _witness(position: int, expected: Any, found: Any, how: str, **tokens: Any) -> Witness:
    return Witness(position, {"compare": "bytes", **tokens}, float(expected), float(found), how)


def _package_charge(tokenizer: Tokenizer, *, keep_lossy: bool) -> Charge:
    def charge(text: str) -> tuple[np.ndarray, np.ndarray]:
        document = encode_documents(tokenizer, [text], keep_lossy=keep_lossy)[0]
        if document is None:
            raise DataError(f"the text {text[:30]!r} does not come back from its tokens, so the data builder leaves it out")
        return document.tokens, document.byte_costs

    return charge


def _against_text(tokenizer: Tokenizer, tokens: np.ndarray, charged: np.ndarray, documents: np.ndarray) -> list:
    """Documents whose charges are not the UTF-8 length of what they decode to, and markers that are charged."""
    problems = []
    special = np.array([kind not in ("byte", "text") for kind in tokenizer.kinds])
    paid = np.flatnonzero(special[tokens] & (charged != 0))
    if len(paid):
        place = int(paid[0])
        how = f"bytes of token {tokens[place]}, which stands for none, and bytes charged to it"
        problems.append(
            (f"token {place} is special and is charged {charged[place]} bytes", _witness(place, 0, charged[place], how))
        )
    edges = [*documents.tolist(), len(tokens)]
    decoded = tokenizer.decode_batch([tokens[first + 1 : stop] for first, stop in pairwise(edges)])
    for text, (first, stop) in zip(decoded, pairwise(edges), strict=True):
        length, sum_ = len(text.encode("utf-8", "surrogateescape")), int(charged[first:stop].sum())
        if length != sum_:
            place = _first_wrong(tokenizer, tokens, charged, first, stop)
            how = f"UTF-8 length of the document at token {first}, and bytes charged; first at token {place} {tokens[place]}"
            reason = f"the document at token {first} has {length} bytes and is charged {sum_}"
            problems.append((reason, _witness(place, length, sum_, how, document=tokens[first:stop].tolist()[:400])))
    return problems


def _first_wrong(tokenizer: Tokenizer, tokens: np.ndarray, charged: np.ndarray, first: int, stop: int) -> int:
    lengths = np.array([len(tokenizer.surfaces[token]) for token in tokens[first:stop].tolist()])
    wrong = np.flatnonzero(lengths != charged[first:stop])
    return first + int(wrong[0]) if len(wrong) else first


def _against_table(tokenizer: Tokenizer, tokens: np.ndarray, charged: np.ndarray) -> list:
    """Tokens that are not charged what the published table says."""
    expected = piece_table(tokenizer).costs(np.asarray(tokens, np.uint16))
    wrong = np.flatnonzero(expected != charged)
    if not len(wrong):
        return []
    place = int(wrong[0])
    how = f"bytes of token {tokens[place]} after {tokens[place - 1] if place else 'nothing'} by the table, and bytes charged"
    reason = f"{len(wrong)} tokens are not charged what the piece table says, first token {place}"
    return [(reason, _witness(place, expected[place], charged[place], how))]


def _against_adversaries(tokenizer: Tokenizer, charge: Charge, exact: bool) -> list:
    """Difficult texts that are charged another length than theirs, or where ``exact`` do not come back from their tokens.

    A text that the data builder refuses is none.
    """
    problems = []
    for text in ADVERSARIAL:
        try:
            ids, costs = charge(text)
        except DataError:
            continue
        length, total = len(text.encode("utf-8")), int(np.asarray(costs, dtype=np.int64).sum())
        if length != total:
            how = f"UTF-8 length of {text[:30]!r}, and bytes charged to its tokens"
            reason = f"the text {text[:30]!r} has {length} bytes and is charged {total}"
            problems.append((reason, _witness(-1, length, total, how, text=text, ids=[int(token) for token in ids])))
        elif exact:
            problems += _changed_text(tokenizer, text, [int(token) for token in ids])
    return problems


def _changed_text(tokenizer: Tokenizer, text: str, ids: list[int]) -> list:
    """The text if its tokens, the document marker aside, decode to another one."""
    decoded = tokenizer.decode(ids[1:] if ids[:1] == [BOS] else ids)
    if decoded == text:
        return []
    pairs = zip_longest(text.encode("utf-8"), decoded.encode("utf-8", "surrogateescape"), fillvalue=-1)
    place, (original, found) = next((place, pair) for place, pair in enumerate(pairs) if pair[0] != pair[1])
    how = f"byte {place} of {text[:30]!r}, and of what its tokens decode to; -1 is the end"
    reason = f"the text {text[:30]!r} comes back from its tokens as {decoded[:30]!r}"
    return [(reason, _witness(-1, original, found, how, text=text, ids=ids))]


def _identities(passes: Mapping[str, Mapping[str, Any]]) -> list:
    """Passes whose printed figures do not fit each other: ``B / T = L / (ln 2 bpb)``, L the nats per token."""
    problems = []
    for name, figures in passes.items():
        direct = figures["bytes"] / figures["tokens"]
        implied = figures["nats_per_token"] / (math.log(2) * figures["bits_per_byte"])
        if not abs(direct / implied - 1) <= IDENTITY_TOLERANCE:
            how = f"bytes per token of the {name} pass, and what its nats per token and bits per byte imply"
            reason = f"the {name} pass has {direct:.8f} bytes per token, its losses imply {implied:.8f}"
            problems.append((reason, _witness(-1, direct, implied, how)))
    return problems

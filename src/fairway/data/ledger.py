"""The byte ledger: how many bytes of the document each token stands for. It is the denominator of bits per byte.

Two rules exist. The sidecar rule measures every token on the document's own bytes and adds up to the UTF-8 length of the
document exactly. The piece-table rule of the published systems (PR #1394, #1413) knows only the pieces and adds up to
the length of the normalised text; it serves exports that came without a sidecar.

Transformed text is charged by the original's bytes: an operator costs nothing, unless it is escaped, that is meant literally.
There a character spelled in byte pieces is charged to the last of them whole, as in the published CaseOps exports; without a
transform every byte piece is charged its own byte. Which piece of one character pays changes no sum over documents.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int16, UInt16

from fairway.base.errors import DataError
from fairway.data import caseops
from fairway.data.tokenizer import BOS, SPACE, Tokenizer

MAX_COST = 65535


@dataclass(frozen=True)
class EncodedDocument:
    """One document as stored: BOS and its tokens, and the byte cost of each (0 for BOS)."""

    tokens: UInt16[np.ndarray, " tokens"]
    byte_costs: UInt16[np.ndarray, " tokens"]
    lossless: bool
    """Whether the decoded tokens equal the document."""


def encode_documents(
    tokenizer: Tokenizer, texts: Sequence[str], threads: int = 1, *, keep_lossy: bool = False
) -> list[EncodedDocument | None]:
    """Encode documents as ``[BOS] + encode(text)`` with the byte cost of every token.

    A lossless document charges each token the length of its own surface, so the costs are consecutive slices of the
    document. In a lossy one a token is charged the bytes before normalisation that it covers, up to the next token;
    whatever the model strips at the two ends goes to the first and the last token.

    Transformed text is compared before the transform is undone: `caseops.encode` gives no two texts the same result.

    Args:
        tokenizer: The model.
        texts: Documents, free of lone surrogates.
        threads: Threads of the encoder; the result does not depend on it.
        keep_lossy: Encode lossy documents too; otherwise each is None in the result.

    Raises:
        DataError: the costs of a document do not add up to its UTF-8 length, or one exceeds 65,535 bytes.
    """
    charge = _charge_transformed(tokenizer) if tokenizer.text_transform == "caseops" else surface_lengths(tokenizer).take
    transformed = [tokenizer.transform(text) for text in texts]
    encoded = tokenizer.plain.encode_batch(transformed, threads)
    decoded = tokenizer.plain.decode_batch(encoded, threads)
    documents: list[EncodedDocument | None] = []
    for text, spelled, ids, back in zip(texts, transformed, encoded, decoded, strict=True):
        lossless = back == spelled
        if not lossless and not keep_lossy:
            documents.append(None)
            continue
        costs = charge(ids) if lossless else None
        if costs is not None and int(costs.sum(dtype=np.int64)) == len(text.encode("utf-8")):
            documents.append(_with_bos(ids, costs, text, True))
        else:
            documents.append(_with_bos(*covered_lengths(tokenizer, text), text, lossless))
    return documents


def encode_document(tokenizer: Tokenizer, text: str) -> EncodedDocument:
    """The plain twin of `encode_documents`: compares the concatenated surfaces with the document's bytes, one by one.

    Transformed text is counted character by character over what each token covers.
    """
    if tokenizer.text_transform == "caseops":
        spelled = caseops.encode_plain(text)
        ids, lengths = covered_lengths(tokenizer.plain, spelled)
        ends = np.cumsum(lengths)
        content = spelled.encode("utf-8")
        slices = [content[end - length : end].decode("utf-8") for end, length in zip(ends, lengths, strict=True)]
        costs = np.array(caseops.byte_counts(slices), np.int64)
        back = tokenizer.plain.decode(ids)
        return _with_bos(ids, costs, text, back == spelled and caseops.decode_plain(back) == text)
    content = text.encode("utf-8")
    ids = tokenizer.encode(text)
    surfaces = [tokenizer.surfaces[index] for index in ids.tolist()]
    if b"".join(surfaces) == content:
        return _with_bos(ids, np.array([len(surface) for surface in surfaces], np.int64), text, True)
    ids, costs = covered_lengths(tokenizer, text)
    return _with_bos(ids, costs, text, tokenizer.decode(ids) == text)


def _with_bos(ids: np.ndarray, costs: np.ndarray, text: str, lossless: bool) -> EncodedDocument:
    counted, total = int(costs.sum(dtype=np.int64)), len(text.encode("utf-8"))
    if counted != total:
        raise DataError(
            f"the byte costs of the document beginning {text[:40]!r} add up to {counted}, its UTF-8 length is {total}: "
            "the tokenizer has no token to charge them to; leave such documents out"
        )
    if len(costs) and int(costs.max()) > MAX_COST:
        raise DataError(
            f"one token of the document beginning {text[:40]!r} stands for {int(costs.max())} bytes, more than {MAX_COST}; "
            "use a lossless tokenizer"
        )
    tokens = np.concatenate([np.array([BOS], np.uint16), ids.astype(np.uint16)])
    return EncodedDocument(tokens, np.concatenate([np.zeros(1, np.uint16), costs.astype(np.uint16)]), lossless)


def surface_lengths(tokenizer: Tokenizer) -> np.ndarray:
    """Length in bytes of what each piece stands for, int64 of length ``vocab_size``; special pieces have 0."""
    return np.array([len(surface) for surface in tokenizer.surfaces], np.int64)


def _charge_transformed(tokenizer: Tokenizer) -> Callable[[np.ndarray], np.ndarray]:
    """The rule for tokens of transformed text that come back exactly: ids to bytes of the original text."""
    lengths = surface_lengths(tokenizer)
    lengths[list(tokenizer.operators)] = 0
    byte = np.full(tokenizer.vocab_size, -1)
    byte[list(tokenizer.byte_ids)] = np.arange(256)
    escape = caseops.FIRST_OPERATOR_ID + caseops.OPERATORS.index(caseops.ESCAPE)
    literal_length = len(caseops.ESCAPE.encode("utf-8"))

    def charge(ids: np.ndarray) -> np.ndarray:
        costs, bytes_ = lengths[ids], byte[ids]
        costs[bytes_ >= 0x80] = 0
        leads = np.flatnonzero(bytes_ >= 0xC0)
        width = 2 + (bytes_[leads] >= 0xE0) + (bytes_[leads] >= 0xF0)
        costs[leads + width - 1] = width
        literal = -1
        for place in np.flatnonzero(ids == escape).tolist():
            if place != literal:
                literal = place + 1
                costs[literal] = literal_length
        return costs

    return charge


def covered_lengths(tokenizer: Tokenizer, text: str) -> tuple[np.ndarray, np.ndarray]:
    """Token ids and the bytes of the document each covers, from the encoder's map to the text before normalisation.

    Token k is charged ``begin[k+1] - begin[k]``, with ``begin[0] = 0`` and ``begin[n]`` the length of the document, so the
    costs are consecutive slices whatever the normalisation removed. Of transformed text the slices' original bytes count.

    Raises:
        DataError: the encoder's map runs backwards.
    """
    content = tokenizer.transform(text).encode("utf-8")
    ids, spans = tokenizer.encode_with_spans(content)
    if not ids:
        return np.zeros(0, np.uint16), np.zeros(0, np.int64)
    begins = np.array([0, *(begin for begin, _ in spans[1:]), len(content)], np.int64)
    costs = np.diff(caseops.original_bytes(content)[begins] if tokenizer.text_transform == "caseops" else begins)
    if (costs < 0).any():
        raise DataError("the tokenizer's map from tokens to text runs backwards; use another tokenizer")
    return np.array(ids, np.uint16), costs


def loss(tokenizer: Tokenizer, text: str) -> str:
    """Where a document and what its tokens decode to part, in one clause; empty if the document comes back.

    A normaliser may turn a character into letters (U+2122 into ``TM``). If a capitalised word follows, an operator then
    stands inside a word, where only the lenient decoder can read it; the clause says so.
    """
    spelled = tokenizer.transform(text)
    back = tokenizer.plain.decode(tokenizer.encode(text))
    if back == spelled:
        return ""
    pairs = enumerate(zip(spelled, back, strict=False))
    place = next((place for place, pair in pairs if pair[0] != pair[1]), min(len(spelled), len(back)))
    if place == len(spelled):
        clause = "longer at its end"
    else:
        before = caseops.decode(spelled[:place], lenient=True) if tokenizer.text_transform == "caseops" else text[:place]
        clause = f"changed from character {len(before)} on, U+{ord(spelled[place]):04X}"
    if tokenizer.text_transform == "caseops":
        try:
            caseops.decode(back)
        except DataError:
            clause += ", which leaves case operators that cannot be undone"
    return clause


@dataclass(frozen=True)
class PieceTable:
    """Byte cost from pieces alone: ``bytes_i = base[t_i] + 1{space[t_i] and not boundary[t_{i-1}]}``.

    Counts normalised bytes, which differ from the document's by about 2e-6 on the published validation split.
    """

    base: Int16[np.ndarray, " vocab"]
    """UTF-8 length of the piece without its leading U+2581; 1 for a byte piece; 0 for special pieces."""
    space: Bool[np.ndarray, " vocab"]
    """Whether the piece begins with U+2581."""
    boundary: Bool[np.ndarray, " vocab"]
    """Whether the piece is special: a space right after it is not charged."""

    def costs(self, tokens: UInt16[np.ndarray, " tokens"]) -> UInt16[np.ndarray, " tokens"]:
        """Byte cost of every token of a stream; the first has no predecessor, which counts as a boundary.

        Raises:
            DataError: the stream holds a special token other than BOS, whose bytes are unknown.
        """
        special = self.boundary[tokens] & (tokens != BOS)
        if special.any():
            where = int(np.argmax(special))
            raise DataError(f"token {int(tokens[where])} at position {where} stands for no bytes; only BOS may occur in shards")
        charged = np.zeros(len(tokens), np.uint16)
        charged[1:] = self.space[tokens[1:]] & ~self.boundary[tokens[:-1]]
        return charged + self.base[tokens].astype(np.uint16)


def piece_table(tokenizer: Tokenizer) -> PieceTable:
    """The published systems' table of byte costs for a SentencePiece model.

    Raises:
        DataError: a piece has U+2581 beyond its first character, or the model has CaseOps operators; both would be
            miscounted, so such models need byte sidecars.

    Source: PR #1394, #1413; the leading-space rule of the challenge's evaluation.
    """
    if tokenizer.operators:
        raise DataError(
            f"the tokenizer has {len(tokenizer.operators)} CaseOps operator pieces, which a piece table counts as 3 bytes "
            "each; use an export with byte sidecars"
        )
    base = np.zeros(tokenizer.vocab_size, np.int16)
    space = np.zeros(tokenizer.vocab_size, bool)
    boundary = np.ones(tokenizer.vocab_size, bool)
    for index, (piece, kind) in enumerate(zip(tokenizer.pieces, tokenizer.kinds, strict=True)):
        if kind not in ("byte", "text"):
            continue
        boundary[index] = False
        if kind == "byte":
            base[index] = 1
            continue
        space[index] = piece.startswith(SPACE)
        rest = piece[1:] if space[index] else piece
        if SPACE in rest:
            raise DataError(f"piece {index} has U+2581 inside, which a piece table counts as 3 bytes; use byte sidecars")
        base[index] = len(rest.encode("utf-8"))
    return PieceTable(base, space, boundary)

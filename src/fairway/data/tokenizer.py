"""SentencePiece models: trained here so that every document comes back exactly, or given from outside.

The trainer follows the challenge's models (BPE, byte fallback, ids pad 0, BOS 1, EOS 2, unk 3, at most 16 characters per
piece, character coverage 0.999) except where those lose text: normalisation is the identity, spaces are kept as they
are, and runs of spaces may be pieces, which matters for source code. The only character such a model cannot tell apart
is a literal U+2581, SentencePiece's own sign for a space.
"""

import functools
import hashlib
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import sentencepiece
from jaxtyping import UInt16

from fairway.base.errors import DataError
from fairway.base.files import write_bytes

SPACE = "\u2581"
"""SentencePiece's sign for a space."""

BOS = 1
"""Id that opens every document in a shard."""

MAX_PIECES = 65536
"""Token ids are stored as uint16."""

OPERATORS = frozenset("\ue001\ue002\ue003\ue004")
"""The four CaseOps operators; a model that has them as pieces needs byte sidecars."""

PieceKind = Literal["control", "unknown", "unused", "byte", "text"]

_SENTENCE_CHARACTERS = 4000


@dataclass(frozen=True, repr=False)
class Tokenizer:
    """A checked SentencePiece model.

    Args:
        model: Content of the model file; its SHA-256 is the tokenizer's identity.

    Raises:
        DataError: not a SentencePiece model, more than 65,536 pieces, BOS is not 1, no byte fallback, or no piece U+2581.
    """

    model: bytes
    _processor: sentencepiece.SentencePieceProcessor = field(init=False, compare=False)

    def __repr__(self) -> str:
        return f"Tokenizer({self.vocab_size} pieces, sha256 {self.sha256[:16]})"

    def __post_init__(self) -> None:
        try:
            processor = sentencepiece.SentencePieceProcessor(model_proto=self.model) if self.model else None
        except RuntimeError:
            processor = None
        if processor is None or processor.get_piece_size() == 0:
            raise DataError(f"the tokenizer file of {len(self.model)} bytes is not a SentencePiece model; give a .model file")
        object.__setattr__(self, "_processor", processor)
        if self.vocab_size > MAX_PIECES:
            raise DataError(f"the tokenizer has {self.vocab_size} pieces; shards hold at most {MAX_PIECES}")
        if processor.bos_id() != BOS:
            raise DataError(f"the tokenizer's BOS id is {processor.bos_id()}; shards mark documents with id {BOS}")
        if sum(processor.is_byte(index) for index in range(self.vocab_size)) != 256:
            raise DataError("the tokenizer has no byte fallback, so some text has no tokens; train it with byte fallback")
        if processor.piece_to_id(SPACE) == processor.unk_id():
            raise DataError(
                "the tokenizer has no piece U+2581, so spaces would count as three bytes; train it on text with spaces"
            )

    @classmethod
    def load(cls, path: Path) -> "Tokenizer":
        """Read a model file.

        Raises:
            DataError: the file cannot be read, or see `Tokenizer`.
        """
        try:
            return cls(Path(path).read_bytes())
        except OSError as error:
            raise DataError(f"tokenizer {path} cannot be read ({error.strerror}); check the path") from None

    def save(self, path: Path) -> None:
        """Write the model file atomically."""
        write_bytes(path, self.model)

    @functools.cached_property
    def sha256(self) -> str:
        """SHA-256 of the model file, 64 hexadecimal digits."""
        return hashlib.sha256(self.model).hexdigest()

    @property
    def vocab_size(self) -> int:
        """Number of pieces; token ids lie in ``[0, vocab_size)``."""
        return self._processor.get_piece_size()

    @functools.cached_property
    def pieces(self) -> tuple[str, ...]:
        """Text of every piece, with U+2581 for a space."""
        return tuple(self._processor.id_to_piece(index) for index in range(self.vocab_size))

    @functools.cached_property
    def kinds(self) -> tuple[PieceKind, ...]:
        """Kind of every piece; text covers merges, single characters and user-defined symbols."""
        return tuple(self._kind(index) for index in range(self.vocab_size))

    def _kind(self, index: int) -> PieceKind:
        processor = self._processor
        if processor.is_control(index):
            return "control"
        if processor.is_unknown(index):
            return "unknown"
        if processor.is_unused(index):
            return "unused"
        return "byte" if processor.is_byte(index) else "text"

    @functools.cached_property
    def surfaces(self) -> tuple[bytes, ...]:
        """Bytes that every piece stands for: U+2581 is a space, a byte piece is its byte, special pieces are empty."""
        return tuple(_surface(piece, kind) for piece, kind in zip(self.pieces, self.kinds, strict=True))

    @functools.cached_property
    def byte_ids(self) -> tuple[int, ...]:
        """Id of the piece for each of the 256 bytes."""
        ids = {self.surfaces[index][0]: index for index, kind in enumerate(self.kinds) if kind == "byte"}
        return tuple(ids[byte] for byte in range(256))

    @functools.cached_property
    def operators(self) -> tuple[int, ...]:
        """Ids of pieces that contain a CaseOps operator."""
        return tuple(
            index
            for index, (piece, kind) in enumerate(zip(self.pieces, self.kinds, strict=True))
            if kind == "text" and OPERATORS.intersection(piece)
        )

    def encode(self, text: str) -> UInt16[np.ndarray, " tokens"]:
        """Token ids of a text, without BOS."""
        return self._processor.encode(text, return_type="numpy").astype(np.uint16)

    def encode_batch(self, texts: Sequence[str], threads: int = 1) -> list[UInt16[np.ndarray, " tokens"]]:
        """Token ids of several texts, without BOS; the result does not depend on ``threads``."""
        encoded = self._processor.encode(list(texts), return_type="numpy", num_threads=threads)
        return [ids.astype(np.uint16) for ids in encoded]

    def encode_with_spans(self, content: bytes) -> tuple[list[int], list[tuple[int, int]]]:
        """Token ids of UTF-8 ``content`` and, for each, the range of bytes before normalisation that it covers."""
        mapping = self._processor.encode(content, return_type="offset_mapping")
        return mapping["ids"], mapping["offsets"]

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """Text of token ids, as SentencePiece decodes it; special tokens such as BOS are empty."""
        return self._processor.decode([int(index) for index in ids])

    def decode_batch(self, encoded: Sequence[np.ndarray], threads: int = 1) -> list[str]:
        """Texts of several token sequences without BOS."""
        if not encoded:
            return []
        return self._processor.decode([ids.astype(np.int32) for ids in encoded], num_threads=threads)  # type: ignore[arg-type]

    def decode_bytes(self, ids: Sequence[int] | np.ndarray) -> bytes:
        """Concatenated surfaces of token ids; exact for any slice of a losslessly encoded document."""
        return b"".join(self.surfaces[int(index)] for index in ids)


def _surface(piece: str, kind: PieceKind) -> bytes:
    if kind == "byte":
        return bytes([int(piece[1:-1], 16)])
    return piece.replace(SPACE, " ").encode("utf-8") if kind == "text" else b""


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Train a lossless BPE model with byte fallback; the same texts give the same model, byte for byte.

    Documents are cut at line ends into stretches of at most 4,000 characters, because the trainer skips sentences beyond
    its own limit; a line break inside a stretch is an ordinary character, so pieces may contain it.

    Args:
        texts: Training text; about ten megabytes are enough for 8,192 pieces and take seconds.
        vocab_size: Number of pieces, including 4 special and 256 byte pieces.

    Raises:
        DataError: the text is empty or too small for that many pieces, or the number is impossible.

    Source: settings of the challenge's exports (PR #1394), made lossless.
    """
    if not 264 <= vocab_size <= MAX_PIECES:
        raise DataError(
            f"a vocabulary of {vocab_size} pieces is outside 264..{MAX_PIECES}; 4 special and 256 byte pieces are fixed"
        )
    output = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=_sentences(texts),
            model_writer=output,
            model_type="bpe",
            vocab_size=vocab_size,
            hard_vocab_limit=False,
            character_coverage=0.999,
            byte_fallback=True,
            split_digits=True,
            split_by_number=True,
            split_by_unicode_script=True,
            split_by_whitespace=True,
            allow_whitespace_only_pieces=True,
            max_sentencepiece_length=16,
            max_sentence_length=1 << 20,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            add_dummy_prefix=False,
            pad_id=0,
            bos_id=BOS,
            eos_id=2,
            unk_id=3,
            num_threads=2,
            minloglevel=2,
        )
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise DataError(f"no tokenizer of {vocab_size} pieces can be trained on this text ({reason}); give more text") from None
    tokenizer = Tokenizer(output.getvalue())
    if tokenizer.vocab_size != vocab_size:
        raise DataError(
            f"the text is too small for {vocab_size} pieces: only {tokenizer.vocab_size} can be made; "
            f"ask for at most {tokenizer.vocab_size} or give more text"
        )
    return tokenizer


def _sentences(texts: Iterable[str]) -> Iterator[str]:
    for text in texts:
        clean = text.replace("\0", " ")
        start = 0
        while start < len(clean):
            end = start + _SENTENCE_CHARACTERS
            if end < len(clean):
                line_end = clean.rfind("\n", start, end) + 1
                end = line_end if line_end > start else end
            yield clean[start:end]
            start = end

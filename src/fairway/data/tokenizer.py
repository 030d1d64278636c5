"""SentencePiece models: trained here so that every document comes back exactly, or given from outside.

The trainer follows the challenge's models (BPE, byte fallback, ids pad 0, BOS 1, EOS 2, unk 3, at most 16 characters per
piece, character coverage 0.999) except where those lose text: normalisation is the identity, spaces are kept as they
are, and runs of spaces may be pieces, which matters for source code. The only character such a model cannot tell apart
is a literal U+2581, SentencePiece's own sign for a space.

A model whose ids 4 to 7 are the CaseOps operators is made for transformed text. Its tokenizer transforms before it encodes and
undoes that after it decodes, so that whoever has the model file has the transform too.
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
from fairway.data import caseops

SPACE = "\u2581"
"""SentencePiece's sign for a space."""

BOS = 1
"""Id that opens every document in a shard."""

MAX_PIECES = 65536
"""Token ids are stored as uint16."""

PieceKind = Literal["control", "unknown", "unused", "byte", "text"]

TextTransform = Literal["none", "caseops"]
"""What is done to text before it is encoded."""

_SENTENCE_CHARACTERS = 4000


@dataclass(frozen=True, repr=False)
class Tokenizer:
    """A checked SentencePiece model.

    Args:
        model: Content of the model file; its SHA-256 is the tokenizer's identity.
        transforms: Whether text is transformed as the model's operators ask for; see `plain`.

    Raises:
        DataError: not a SentencePiece model, more than 65,536 pieces, BOS is not 1, no byte fallback, or no piece U+2581.
    """

    model: bytes
    transforms: bool = True
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
            if kind == "text" and not set(caseops.OPERATORS).isdisjoint(piece)
        )

    @functools.cached_property
    def text_transform(self) -> TextTransform:
        """What is done to text before it is encoded: ``caseops`` if ids 4 to 7, and no others, hold the four operators."""
        first = caseops.FIRST_OPERATOR_ID
        whole = tuple(self.pieces[index] for index in self.operators) == tuple(caseops.OPERATORS)
        return "caseops" if self.transforms and whole and self.operators[0] == first else "none"

    @functools.cached_property
    def plain(self) -> "Tokenizer":
        """The same pieces without the transform: it encodes text that is transformed already, and leaves it so."""
        return self if self.text_transform == "none" else Tokenizer(self.model, transforms=False)

    def transform(self, text: str) -> str:
        """What the pieces spell for ``text``."""
        return caseops.encode(text) if self.text_transform == "caseops" else text

    def transform_bytes(self, content: bytes) -> bytes:
        """What the pieces spell for any bytes; `decode_bytes` of tokens with these surfaces is ``content``."""
        return caseops.encode_bytes(content) if self.text_transform == "caseops" else content

    def encode(self, text: str) -> UInt16[np.ndarray, " tokens"]:
        """Token ids of a text, without BOS."""
        return self._processor.encode(self.transform(text), return_type="numpy").astype(np.uint16)

    def encode_batch(self, texts: Sequence[str], threads: int = 1) -> list[UInt16[np.ndarray, " tokens"]]:
        """Token ids of several texts, without BOS; the result does not depend on ``threads``."""
        transformed = [self.transform(text) for text in texts]
        encoded = self._processor.encode(transformed, return_type="numpy", num_threads=threads)
        return [ids.astype(np.uint16) for ids in encoded]

    def encode_with_spans(self, content: bytes) -> tuple[list[int], list[tuple[int, int]]]:
        """Token ids of transformed UTF-8 ``content`` and, for each, the range of its bytes that it covers.

        The ranges are those before normalisation, in order and without gaps.
        """
        mapping = self._processor.encode(content, return_type="offset_mapping")
        return mapping["ids"], mapping["offsets"]

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """Text of token ids, as SentencePiece decodes it; special tokens such as BOS are empty.

        Operators are read leniently, because a model may write them anywhere, and no word reaches over a special token.
        """
        if self.text_transform == "none":
            return self._processor.decode([int(index) for index in ids])
        return "".join(caseops.decode(self._processor.decode(run), lenient=True) for run in self._runs(ids))

    def decode_batch(self, encoded: Sequence[np.ndarray], threads: int = 1) -> list[str]:
        """Texts of several token sequences without BOS."""
        if not encoded:
            return []
        texts = self._processor.decode([ids.astype(np.int32) for ids in encoded], num_threads=threads)  # type: ignore[arg-type]
        return texts if self.text_transform == "none" else [caseops.decode(text, lenient=True) for text in texts]

    def decode_bytes(self, ids: Sequence[int] | np.ndarray) -> bytes:
        """Bytes that token ids stand for; exact for any slice of a losslessly encoded document that begins at a word."""
        if self.text_transform == "none":
            return b"".join(self.surfaces[int(index)] for index in ids)
        spelled = (b"".join(self.surfaces[index] for index in run) for run in self._runs(ids))
        return b"".join(caseops.decode_bytes(content) for content in spelled)

    def _runs(self, ids: Sequence[int] | np.ndarray) -> Iterator[list[int]]:
        """The tokens between special ones."""
        run: list[int] = []
        for index in map(int, ids):
            if self.kinds[index] in ("byte", "text"):
                run.append(index)
            elif run:
                yield run
                run = []
        if run:
            yield run


def _surface(piece: str, kind: PieceKind) -> bytes:
    if kind == "byte":
        return bytes([int(piece[1:-1], 16)])
    return piece.replace(SPACE, " ").encode("utf-8") if kind == "text" else b""


def train_tokenizer(texts: Iterable[str], vocab_size: int, text_transform: TextTransform = "none") -> Tokenizer:
    """Train a lossless BPE model with byte fallback; the same texts give the same model, byte for byte.

    Documents are cut at line ends into stretches of at most 4,000 characters, because the trainer skips sentences beyond
    its own limit; a line break inside a stretch is an ordinary character, so pieces may contain it.

    Args:
        texts: Training text; about ten megabytes are enough for 8,192 pieces and take seconds.
        vocab_size: Number of pieces, including 4 special and 256 byte pieces.
        text_transform: ``caseops`` transforms the text and makes the operators pieces 4 to 7, each always a token by itself.

    Raises:
        DataError: the text is empty or too small for that many pieces, or the number is impossible.

    Source: settings of the challenge's exports (PR #1394), made lossless.
    """
    operators = list(caseops.OPERATORS) if text_transform == "caseops" else []
    least = 264 + len(operators)
    if not least <= vocab_size <= MAX_PIECES:
        fixed = "4 special and 256 byte pieces" + (f" and {len(operators)} operators" if operators else "")
        raise DataError(f"a vocabulary of {vocab_size} pieces is outside {least}..{MAX_PIECES}; {fixed} are fixed")
    if operators:
        texts = map(caseops.encode, texts)
    output = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=_sentences(texts),
            model_writer=output,
            user_defined_symbols=operators,
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

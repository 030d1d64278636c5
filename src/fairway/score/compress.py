"""Text compression with an artifact: any file to coded text and back, under the artifact's own predictor.

Text is tokenized; whatever the tokenizer cannot give back exactly (bytes that are no UTF-8, its own sign for a space) is
written as byte tokens, so every file survives. One file is one document: token 0 is the document marker and not coded.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int, UInt16, UInt32
from torch import Tensor

from fairway.base.errors import ArtifactError, DataError
from fairway.base.log import logger
from fairway.config import ARTIFACT_PASSES, PassName
from fairway.data.tokenizer import BOS, Tokenizer
from fairway.score.codec import Progress, decode, encode, silent
from fairway.score.coded_file import CodedFile, arithmetic, digest, identity
from fairway.score.ledger import Ledger
from fairway.score.load import PackedModel
from fairway.score.passes import Plan, build_pass, count_documents
from fairway.score.predictor import Predictor, Revealed, WindowBatch
from fairway.train.machine import Machine

Maker = Callable[[PassName, int, int], tuple[Predictor, Plan]]
"""Fresh predictor and plan of a pass over so many targets in so many documents."""


@dataclass(frozen=True)
class Coder:
    """What coding and decoding must have in common."""

    make: Maker
    """Where predictors come from."""
    tokenizer: Tokenizer
    """The tokenizer of the artifact."""
    artifact: bytes
    """Which artifact it is, as `identity` says."""
    machine: Machine
    """Where the predictors compute."""

    @classmethod
    def of(cls, packed: PackedModel, machine: Machine, tokenizer: Tokenizer) -> "Coder":
        """The predictors of an artifact, each on a fresh network."""

        def make(name: PassName, targets: int, documents: int) -> tuple[Predictor, Plan]:
            return build_pass(name, packed.build(machine), targets, packed.score, tokenizer=tokenizer, documents=documents)

        return cls(make, tokenizer, identity(packed.path), machine)


@dataclass(frozen=True)
class EncodedStream:
    """What the encoder made of a stream."""

    words: UInt32[np.ndarray, " words"]
    """What the range coder wrote."""
    ledger: Ledger
    """What the targets should cost."""
    blocks: int
    """Blocks of the plan: times that text was revealed to the predictor."""


class Counting:
    """A predictor that counts how often text is revealed to it."""

    def __init__(self, inner: Predictor) -> None:
        """Args: inner: What is asked."""
        self.inner, self.blocks = inner, 0

    @property
    def vocab_size(self) -> int:
        """Entries of a distribution."""
        return self.inner.vocab_size

    def predict(self, batch: WindowBatch) -> Float[Tensor, "rows scored vocab"]:
        """What the inner predictor says."""
        return self.inner.predict(batch)

    def observe(self, block: Revealed) -> None:
        """Hand the block on."""
        self.blocks += 1
        self.inner.observe(block)


def text_to_tokens(content: bytes, tokenizer: Tokenizer) -> tuple[list[int], int]:
    """Tokens that decode to ``content`` exactly, once freed of the returned number of leading bytes.

    Where the tokenizer transforms text, the surfaces of the tokens are the transformed content; undoing that is lossless.
    """
    content, tokenizer = tokenizer.transform_bytes(content), tokenizer.plain
    whole = _utf8(content)
    if whole is not None:
        ids = tokenizer.encode(whole).tolist()
        surface = tokenizer.decode_bytes(ids)
        for dropped in (0, 1):
            if surface[dropped:] == content and surface[:dropped] in (b"", b" "):
                return ids, dropped
    ids = []
    for stretch in _stretches(content, tokenizer):
        ids += stretch
    return ids, 0


def compress(content: bytes, coder: Coder, pass_name: PassName, progress: Progress = silent) -> CodedFile:
    """Code ``content``.

    Args:
        content: Any bytes.
        coder: The artifact and its surroundings.
        pass_name: The predictor to code with.
        progress: Called with the number of tokens coded so far.
    """
    ids, dropped = text_to_tokens(content, coder.tokenizer)
    tokens = torch.tensor([BOS, *ids], dtype=torch.int64)
    words = encode_stream(tokens, np.zeros(len(ids), dtype=np.uint16), coder.make, pass_name, progress).words
    return CodedFile(
        coder.artifact,
        digest(content),
        pass_name,
        len(ids),
        count_documents(tokens),
        len(content),
        dropped,
        arithmetic(coder.machine),
        words,
    )


def encode_stream(
    tokens: Int[Tensor, " targets_plus_1"],
    byte_costs: UInt16[np.ndarray, " targets"],
    make: Maker,
    pass_name: PassName,
    progress: Progress = silent,
) -> EncodedStream:
    """Code the targets of ``tokens``; token 0 is given."""
    ledger = Ledger(byte_costs)
    if len(tokens) < 2:
        return EncodedStream(np.zeros(0, dtype=np.uint32), ledger, 0)
    predictor, plan = make(pass_name, len(tokens) - 1, count_documents(tokens))
    counting = Counting(predictor)
    return EncodedStream(encode(counting, tokens, ledger, plan, progress), ledger, counting.blocks)


def decompress(coded: CodedFile, coder: Coder, progress: Progress = silent) -> tuple[bytes, Int[Tensor, " targets_plus_1"]]:
    """The text of a coded file, and its tokens.

    Raises:
        ArtifactError: it was coded with another artifact, or does not decode to the text that was coded.
    """
    if coded.artifact != coder.artifact:
        known, given = coded.artifact.hex(), coder.artifact.hex()
        raise ArtifactError(f"the text was coded with artifact {known}, not with this one ({given}); give that artifact")
    here = arithmetic(coder.machine)
    if here != coded.arithmetic:
        logger.warning(f"the text was coded on [{coded.arithmetic}], this is [{here}]; decoding needs equal arithmetic")
    logger.info(f"decoding {coded.targets:,} tokens with the {coded.pass_name} predictor")
    tokens = torch.tensor([BOS], dtype=torch.int64)
    if coded.targets:
        predictor, plan = coder.make(coded.pass_name, coded.targets, coded.documents)
        tokens = decode(predictor, coded.words, BOS, coded.targets, plan, progress)
    content = coder.tokenizer.decode_bytes(tokens.tolist())[coded.dropped :]
    if len(content) != coded.size or digest(content) != coded.content:
        raise ArtifactError(
            f"the decoded text is not the one that was coded (coded on [{coded.arithmetic}], decoded on [{here}]); "
            "nothing was written: decode it with the same torch, device and number of threads"
        )
    return content, tokens


def checked_pass(name: str | None, packed: PackedModel, purpose: str = "code text") -> PassName:
    """A named pass of the artifact, or the one that gives its result.

    Args:
        name: The pass, if one was named.
        packed: The artifact.
        purpose: What it is asked to do, for the message.

    Raises:
        DataError: the pass needs more than the artifact.
    """
    name = name or packed.score.passes[-1]
    if name not in ARTIFACT_PASSES:
        raise DataError(f"--pass {name} cannot {purpose}; passes that need the artifact alone: {', '.join(ARTIFACT_PASSES)}")
    return name


def _utf8(content: bytes) -> str | None:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return None


def _stretches(content: bytes, tokenizer: Tokenizer) -> Iterator[list[int]]:
    """Tokens of alternating stretches: text that the tokenizer gives back, and what it does not, byte by byte."""
    text = content.decode("utf-8", "surrogateescape")
    lost = {c for c in set(text) if "\udc80" <= c <= "\udcff" or not _survives(c, tokenizer)}
    pattern = "([" + "".join(re.escape(c) for c in sorted(lost)) + "]+)" if lost else "(?!)"
    for piece in re.split(pattern, text):
        ids = [] if lost.intersection(piece) else tokenizer.encode(piece).tolist()
        raw = piece.encode("utf-8", "surrogateescape")
        yield ids if tokenizer.decode_bytes(ids) == raw else [tokenizer.byte_ids[byte] for byte in raw]


def _survives(character: str, tokenizer: Tokenizer) -> bool:
    """Whether the tokenizer gives a character back, alone or after the space that it may put in front."""
    return tokenizer.decode_bytes(tokenizer.encode(character)).removeprefix(b" ") == character.encode("utf-8").removeprefix(
        b" "
    )

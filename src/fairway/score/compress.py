"""Text compression with an artifact: any file to coded text and back, under the artifact's own predictor.

Text is tokenized; whatever the tokenizer cannot give back exactly (bytes that are no UTF-8, its own sign for a space) is
written as byte tokens, so every file survives. One file is one document: token 0 is the document marker and not coded.
"""

import re
from collections.abc import Callable, Iterator

import numpy as np
import torch
from jaxtyping import Int, UInt16, UInt32
from torch import Tensor

from fairway.base.errors import ArtifactError, DataError
from fairway.base.log import logger
from fairway.config import PassName
from fairway.data.tokenizer import BOS, Tokenizer
from fairway.score.codec import Progress, decode, encode, silent
from fairway.score.coded_file import CodedFile, arithmetic, digest
from fairway.score.ledger import Ledger
from fairway.score.load import PackedModel
from fairway.score.passes import build_pass
from fairway.score.plan import Block
from fairway.score.predictor import Predictor
from fairway.train.machine import Machine

Maker = Callable[[PassName, int], tuple[Predictor, list[Block]]]
"""Fresh predictor and plan of a pass over so many targets."""


def maker(packed: PackedModel, machine: Machine, tokenizer: Tokenizer) -> Maker:
    """Predictors of an artifact, each on a fresh network."""

    def make(name: PassName, targets: int) -> tuple[Predictor, list[Block]]:
        return build_pass(name, packed.build(machine), targets, packed.score, tokenizer=tokenizer)

    return make


def text_to_tokens(content: bytes, tokenizer: Tokenizer) -> tuple[list[int], int]:
    """Tokens whose surfaces, joined and freed of the returned number of leading bytes, are ``content`` exactly."""
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


def compress(
    content: bytes,
    make: Maker,
    pass_name: PassName,
    *,
    tokenizer: Tokenizer,
    artifact: bytes,
    machine: Machine,
    progress: Progress = silent,
) -> CodedFile:
    """Code ``content``.

    Args:
        content: Any bytes.
        make: Where predictors come from.
        pass_name: The predictor to code with.
        tokenizer: The tokenizer of the artifact.
        artifact: First 8 bytes of its SHA-256.
        machine: Where the predictor computes.
        progress: Called with the number of tokens coded so far.
    """
    ids, dropped = text_to_tokens(content, tokenizer)
    tokens = torch.tensor([BOS, *ids], dtype=torch.int64)
    words, _ = encode_stream(tokens, np.zeros(len(ids), dtype=np.uint16), make, pass_name, progress)
    return CodedFile(artifact, digest(content), pass_name, len(ids), len(content), dropped, arithmetic(machine), words)


def encode_stream(
    tokens: Int[Tensor, " targets_plus_1"],
    byte_costs: UInt16[np.ndarray, " targets"],
    make: Maker,
    pass_name: PassName,
    progress: Progress = silent,
) -> tuple[UInt32[np.ndarray, " words"], Ledger]:
    """Words of the range coder for the targets of ``tokens``, and the ledger of what they should cost."""
    ledger = Ledger(byte_costs)
    if len(tokens) < 2:
        return np.zeros(0, dtype=np.uint32), ledger
    predictor, plan = make(pass_name, len(tokens) - 1)
    return encode(predictor, tokens, ledger, plan, progress), ledger


def decompress(
    coded: CodedFile, make: Maker, *, tokenizer: Tokenizer, artifact: bytes, machine: Machine, progress: Progress = silent
) -> tuple[bytes, Int[Tensor, " targets_plus_1"]]:
    """The text of a coded file, and its tokens.

    Raises:
        ArtifactError: it was coded with another artifact, or does not decode to the text that was coded.
    """
    if coded.artifact != artifact:
        raise ArtifactError(
            f"the text was coded with artifact {coded.artifact.hex()}, not with this one ({artifact.hex()}); give that artifact"
        )
    here = arithmetic(machine)
    if here != coded.arithmetic:
        logger.warning(f"the text was coded on [{coded.arithmetic}], this is [{here}]; decoding needs equal arithmetic")
    tokens = torch.tensor([BOS], dtype=torch.int64)
    if coded.targets:
        predictor, plan = make(coded.pass_name, coded.targets)
        tokens = decode(predictor, coded.words, BOS, coded.targets, plan, progress)
    content = tokenizer.decode_bytes(tokens.tolist())[coded.dropped :]
    if len(content) != coded.size or digest(content) != coded.content:
        raise ArtifactError(
            f"the decoded text is not the one that was coded (coded on [{coded.arithmetic}], decoded on [{here}]); "
            "nothing was written: decode it with the same torch, device and number of threads"
        )
    return content, tokens


def checked_pass(name: str | None, packed: PackedModel) -> PassName:
    """The pass to code with: a named one, or the one that gives the artifact's result.

    Raises:
        DataError: the pass needs more than the artifact.
    """
    name = name or packed.score.passes[-1]
    if name not in ("plain", "sliding", "adapted", "tilted"):
        raise DataError(f"--pass {name} cannot code text; passes that need the artifact alone: plain, sliding, adapted, tilted")
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

"""Proof by decoding: code a stretch of text, throw it away, and let fresh processes bring it back from the bytes.

A decoder gets three things: the artifact, the coded bytes, and this package. If it returns the text, then on that stretch
every prediction was causal, normalised and made before its target was known, in one pass, whatever the predictor does inside.
"""

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64

from fairway.base.errors import ValidityError
from fairway.base.files import write_bytes
from fairway.base.log import logger
from fairway.config import PassName
from fairway.data.dataset import Dataset
from fairway.data.tokenizer import BOS
from fairway.score.codec import Progress, silent
from fairway.score.coded_file import CodedFile, arithmetic, digest
from fairway.score.compress import Coder, encode_stream
from fairway.score.load import PackedModel
from fairway.score.passes import count_documents
from fairway.score.result import summarise
from fairway.train.machine import Machine, limited_threads

CODED, ARTIFACT, TOKENIZER, TEXT, TOKENS = "text.fwc", "model.fwz", "tokenizer.model", "text.bin", "tokens.npy"


@dataclass(frozen=True)
class Proof:
    """What was coded, what it took, and that it came back."""

    pass_name: PassName
    targets: int
    text_bytes: int
    blocks: int
    """Times that text was revealed to the predictor on the way; an adapted one changes its weights each time but the last."""
    nats: float
    """Sum of the targets' costs as scored."""
    coded_bytes: int
    """Length of the coded file."""
    overhead_bytes: int
    """Part of the coded file that is header and checksum."""
    encode_seconds: float
    decode_seconds: list[float] = field(default_factory=list)
    """Seconds of each fresh process that brought the text back exactly, its start included."""
    arithmetic: str = ""

    @property
    def scored_bits_per_byte(self) -> float:
        """``nats / (ln 2 * bytes)``."""
        return self.nats / np.log(2.0).item() / max(self.text_bytes, 1)

    @property
    def coded_bits_per_byte(self) -> float:
        """``8 * (coded file - overhead) / bytes``."""
        return 8 * (self.coded_bytes - self.overhead_bytes) / max(self.text_bytes, 1)

    def to_dict(self) -> dict[str, Any]:
        """The content of ``proof.json``."""
        rates = {"scored_bits_per_byte": self.scored_bits_per_byte, "coded_bits_per_byte": self.coded_bits_per_byte}
        return {**asdict(self), **rates, "decoded_exactly": len(self.decode_seconds)}


def prove(
    packed: PackedModel,
    dataset: Dataset,
    *,
    pass_name: PassName,
    targets: int,
    machine: Machine,
    keep: Path | None = None,
    decodings: int = 2,
    progress: Progress = silent,
) -> Proof:
    """Code the first ``targets`` targets of the validation stream and decode them in fresh processes.

    Args:
        packed: The artifact.
        dataset: Where the text is.
        pass_name: The predictor to prove.
        targets: Number of targets; fewer if the split is shorter.
        machine: Where to compute; the decoders are told the same.
        keep: Where to leave the coded file.
        decodings: Number of fresh processes, each of which must return the text.
        progress: Called with the number of targets coded so far.

    Raises:
        ValidityError: a decoder did not bring the text back.
        DataError: the artifact was made for another tokenizer.
    """
    packed.require_tokenizer(dataset.tokenizer.sha256, str(dataset.folder))
    stream = dataset.validation()
    tokens = torch.from_numpy(stream.tokens[: targets + 1].astype(np.int64))
    assert int(tokens[0]) == BOS, "streams begin with a document marker"
    costs = np.ascontiguousarray(stream.byte_costs[1 : len(tokens)])
    coder = Coder.of(packed, machine, dataset.tokenizer)
    with limited_threads(max(1, torch.get_num_threads() // decodings)):
        began = time.monotonic()
        encoded = encode_stream(tokens, costs, coder.make, pass_name, progress)
        encoding = time.monotonic() - began
        text = dataset.tokenizer.decode_bytes(tokens.tolist())
        coded = CodedFile(
            coder.artifact,
            digest(text),
            pass_name,
            len(costs),
            count_documents(tokens),
            len(text),
            0,
            arithmetic(machine),
            encoded.words,
        )
        if keep is not None:
            write_bytes(keep, coded.to_bytes())
        with tempfile.TemporaryDirectory(prefix="fairway-proof-") as folder:
            places = [Path(folder) / str(number) for number in range(decodings)]
            with ExitStack() as stack:
                running = [stack.enter_context(_decoder(place, coded, packed, dataset, machine)) for place in places]
                seconds = [_finish(one, place, tokens.numpy(), text) for one, place in zip(running, places, strict=True)]
    result = summarise(encoded.ledger, encoding)
    return Proof(
        pass_name=pass_name,
        targets=len(costs),
        text_bytes=result.bytes,
        blocks=encoded.blocks,
        nats=result.nats,
        coded_bytes=len(coded.to_bytes()),
        overhead_bytes=coded.overhead,
        encode_seconds=encoding,
        decode_seconds=seconds,
        arithmetic=coded.arithmetic,
    )


@contextmanager
def _decoder(
    place: Path, coded: CodedFile, packed: PackedModel, dataset: Dataset, machine: Machine
) -> Iterator[tuple[float, subprocess.Popen[str]]]:
    """Begin a decoder in a folder that holds the artifact and the coded text, and nothing else; it ends with the block."""
    write_bytes(place / CODED, coded.to_bytes())
    shutil.copyfile(packed.path, place / ARTIFACT)
    options = ["--machine.device", machine.device.type, "--machine.threads", str(torch.get_num_threads())]
    options += ["--machine.precision", str(machine.activations).removeprefix("torch.")]
    if packed.tokenizer is None:
        dataset.tokenizer.save(place / TOKENIZER)
        options += ["--tokenizer", TOKENIZER]
    command = [sys.executable, "-m", "fairway", "decompress", CODED, "-m", ARTIFACT, "-o", TEXT, "--tokens", TOKENS, *options]
    logger.info(f"decoding in a fresh process: {' '.join(command[2:])}")
    with subprocess.Popen(command, cwd=place, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            yield time.monotonic(), process
        finally:
            process.kill()


def _finish(
    started: tuple[float, subprocess.Popen[str]], place: Path, tokens: Int64[np.ndarray, " targets_plus_1"], text: bytes
) -> float:
    """Wait for a decoder, compare what it wrote, token by token and byte by byte, and return its seconds."""
    began, process = started
    output, _ = process.communicate()
    seconds = time.monotonic() - began
    if process.returncode:
        raise ValidityError(f"a fresh process could not decode the text: {_last_line(output)}")
    decoded = np.load(place / TOKENS, allow_pickle=False)
    if not np.array_equal(decoded, tokens) or (place / TEXT).read_bytes() != text:
        wrong = int(np.argmax(decoded != tokens)) if decoded.shape == tokens.shape else min(len(decoded), len(tokens))
        raise ValidityError(f"the decoded text differs from the coded text, first at token {wrong}; the score is not valid")
    return seconds


def _last_line(output: str) -> str:
    lines = output.strip().splitlines()
    return lines[-1] if lines else "it said nothing"

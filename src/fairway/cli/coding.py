"""``fairway prove``, ``compress`` and ``decompress``."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from fairway.base.errors import DataError
from fairway.base.files import write_bytes, write_json, write_with
from fairway.base.runs import RunFolder, artifact_and_folder
from fairway.cli.parse import Switch, emit, parse
from fairway.config import MachineConfig

if TYPE_CHECKING:
    from fairway.score.compress import Coder
    from fairway.score.load import PackedModel


def _one_thread() -> MachineConfig:
    """Coder and decoder need equal arithmetic, which one thread gives on machines with any number of cores."""
    return MachineConfig(threads=1)


@contextmanager
def _progress(what: str) -> Iterator[Callable[[int], None]]:
    """A count of tokens on a terminal, nothing elsewhere."""
    from tqdm import tqdm

    with tqdm(desc=what, unit="token", unit_scale=True, disable=None) as bar:

        def show(done: int) -> None:
            bar.update(done - bar.n)

        yield show


@dataclass(frozen=True, kw_only=True)
class ProveArguments:
    """Code a stretch of the validation text, and decode it in fresh processes that have only the artifact and the bytes."""

    artifact: Annotated[Path, tyro.conf.Positional]
    """The artifact, or a run folder."""
    data: Path | None = None
    """Folder with the validation text; by default the one that the run was trained on."""
    tokens: int = 4096
    """Targets to code. Decoding takes one forward pass per target."""
    pass_name: Annotated[str | None, tyro.conf.arg(name="pass")] = None
    """Predictor: plain, sliding, adapted, tilted, documents or documents_tilted; by default the artifact's result."""
    out: Path | None = None
    """Folder for proof.json and proof.fwc; by default the run's."""
    json: Switch = False
    """Print one JSON document instead of a sentence."""
    machine: MachineConfig = field(default_factory=MachineConfig)


def prove(argv: Sequence[str]) -> int:
    """Prove a score by decoding; 1 when the text does not come back."""
    arguments = parse(ProveArguments, argv, "prove")
    if arguments.tokens < 1:
        raise DataError(f"--tokens {arguments.tokens} must be at least 1")
    from fairway.data.dataset import Dataset
    from fairway.report.load import read_proof
    from fairway.report.page import refresh_report
    from fairway.report.table import proof_sentence
    from fairway.score.compress import checked_pass
    from fairway.score.load import load_packed
    from fairway.score.prove import prove as prove_text
    from fairway.train.machine import choose

    path, folder = artifact_and_folder(arguments.artifact)
    packed = load_packed(path)
    out = RunFolder(arguments.out or folder.root)
    with _progress("encode") as progress:
        proof = prove_text(
            packed,
            Dataset.open(folder.data_folder(arguments.data)),
            pass_name=checked_pass(arguments.pass_name, packed),
            targets=arguments.tokens,
            machine=choose(arguments.machine),
            keep=out.coded,
            progress=progress,
        )
    write_json(out.proof, proof.to_dict())
    refresh_report(out.root)
    emit(proof.to_dict(), proof_sentence(read_proof(out.proof)), as_json=arguments.json)
    return 0


@dataclass(frozen=True, kw_only=True)
class CoderArguments:
    """What coding and decoding must have in common."""

    artifact: Annotated[Path, tyro.conf.arg(aliases=("-m",))]
    """The artifact that predicts the text; decoding needs the one that it was coded with."""
    tokenizer: Path | None = None
    """SentencePiece model; only for artifacts that do not carry theirs."""
    machine: MachineConfig = field(default_factory=_one_thread)
    json: Switch = False
    """Print one JSON document instead of a sentence."""


def _open(arguments: CoderArguments) -> "tuple[PackedModel, Coder]":
    from fairway.score.compress import Coder
    from fairway.score.generate import read_tokenizer
    from fairway.score.load import load_packed
    from fairway.train.machine import choose

    packed = load_packed(arguments.artifact)
    return packed, Coder.of(packed, choose(arguments.machine), read_tokenizer(packed, arguments.tokenizer))


@dataclass(frozen=True, kw_only=True)
class CompressArguments(CoderArguments):
    """Compress a file with an artifact; any bytes survive, text shrinks."""

    file: Annotated[Path, tyro.conf.Positional]
    """The file to compress."""
    out: Annotated[Path, tyro.conf.arg(aliases=("-o",))]
    """The coded file, ending in .fwc by custom."""
    pass_name: Annotated[str | None, tyro.conf.arg(name="pass")] = None
    """Predictor: plain, sliding, adapted, tilted, documents or documents_tilted; by default the artifact's result."""


def compress(argv: Sequence[str]) -> int:
    """Write a coded file."""
    arguments = parse(CompressArguments, argv, "compress")
    content = _read(arguments.file)
    from fairway.score.compress import checked_pass
    from fairway.score.compress import compress as compress_bytes

    packed, coder = _open(arguments)
    with _progress("encode") as progress:
        coded = compress_bytes(content, coder, checked_pass(arguments.pass_name, packed), progress)
    data = coded.to_bytes()
    write_bytes(arguments.out, data)
    document = {"bytes": len(content), "coded_bytes": len(data), "tokens": coded.targets, "out": str(arguments.out)}
    share = f" ({8 * len(data) / len(content):.3f} bits per byte)" if content else ""
    emit(document, f"{len(content):,} bytes became {len(data):,}{share} in {arguments.out}", as_json=arguments.json)
    return 0


@dataclass(frozen=True, kw_only=True)
class DecompressArguments(CoderArguments):
    """Bring a file back from coded text; nothing is written unless it is exactly what was coded."""

    file: Annotated[Path, tyro.conf.Positional]
    """The coded file."""
    out: Annotated[Path, tyro.conf.arg(aliases=("-o",))]
    """Where the text goes."""
    tokens: Path | None = None
    """Also write the token ids, as a .npy file."""


def decompress(argv: Sequence[str]) -> int:
    """Write the text of a coded file."""
    arguments = parse(DecompressArguments, argv, "decompress")
    data = _read(arguments.file)
    from fairway.score.coded_file import CodedFile
    from fairway.score.compress import decompress as decompress_file

    coded = CodedFile.from_bytes(data, str(arguments.file))
    _, coder = _open(arguments)
    with _progress("decode") as progress:
        content, tokens = decompress_file(coded, coder, progress)
    if arguments.tokens is not None:
        import numpy as np

        write_with(arguments.tokens, lambda file: np.save(file, tokens.numpy(), allow_pickle=False))
    write_bytes(arguments.out, content)
    document = {"bytes": len(content), "coded_bytes": len(data), "tokens": coded.targets, "out": str(arguments.out)}
    emit(document, f"{len(data):,} bytes became {len(content):,} in {arguments.out}", as_json=arguments.json)
    return 0


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); check the path") from None

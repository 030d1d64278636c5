"""``fairway inspect`` and ``fairway generate``."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from fairway.base.errors import DataError
from fairway.cli.parse import Switch, emit, parse, table
from fairway.config import MachineConfig


@dataclass(frozen=True, kw_only=True)
class InspectArguments:
    """Show tensors, shapes, bits per weight, entropy and bytes of an artifact."""

    artifact: Annotated[Path, tyro.conf.Positional]
    """The file, ending in .fwz by custom."""
    json: Switch = False
    """Print one JSON document instead of a table."""


def inspect(argv: Sequence[str]) -> int:
    """Show where the bytes went."""
    arguments = parse(InspectArguments, argv, "inspect")
    from fairway.artifact.inspect import inspect as look

    found = look(arguments.artifact)
    rows = [
        (
            line.name,
            line.scheme,
            "x".join(map(str, line.shape)),
            line.coded,
            line.entropy or "",
            round(line.bytes),
        )
        for line in found.tensors
    ]
    text = [
        table(rows, ("tensor", "scheme", "shape", "bits/weight", "entropy", "bytes")),
        "",
        table(list(found.parts.items()), ("part", "bytes")),
        "",
        f"{found.total_bytes:,} bytes, {found.weights:,} weights, {found.bits_per_weight:.4f} bits per weight",
    ]
    emit(found.to_dict(), "\n".join(text), as_json=arguments.json)
    return 0


@dataclass(frozen=True, kw_only=True)
class GenerateArguments:
    """Write text with an artifact."""

    artifact: Annotated[Path, tyro.conf.Positional]
    """The file, ending in .fwz by custom."""
    prompt: str = ""
    """Text to continue."""
    tokens: int = 200
    """Tokens to write at most; a document's end stops earlier."""
    temperature: float = 0.8
    """Divides the logits; 0 takes the likeliest token."""
    seed: int = 0
    """Seed of the draws."""
    tokenizer: Path | None = None
    """SentencePiece model; only for artifacts that do not carry theirs."""
    machine: MachineConfig = field(default_factory=MachineConfig)
    json: Switch = False
    """Print one JSON document instead of the text."""


def generate(argv: Sequence[str]) -> int:
    """Sample a continuation of a prompt."""
    arguments = parse(GenerateArguments, argv, "generate")
    from fairway.data.tokenizer import BOS
    from fairway.score.generate import Sampling, read_tokenizer, sample
    from fairway.score.load import load_packed
    from fairway.train.machine import choose

    sampling = Sampling(tokens=arguments.tokens, temperature=arguments.temperature, seed=arguments.seed)
    packed = load_packed(arguments.artifact)
    tokenizer = read_tokenizer(packed, arguments.tokenizer)
    if not arguments.prompt.isprintable() and "\x00" in arguments.prompt:
        raise DataError("the prompt holds a NUL character; leave it out")
    ids = [BOS, *tokenizer.encode(arguments.prompt).tolist()]
    written = sample(packed.build(choose(arguments.machine)), ids, sampling, context=packed.score.context, stop=BOS)
    text = tokenizer.decode([*ids, *written])
    emit({"prompt": arguments.prompt, "text": text, "tokens": len(written)}, text, as_json=arguments.json)
    return 0

"""Scorers that are not ours: a Python function, or a command that reads tokens and writes nats."""

import importlib
import json
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import numpy as np
from jaxtyping import Int64

from fairway.audit.scorer import Meta, SideInformation
from fairway.base.errors import FairwayError
from fairway.base.values import suggest
from fairway.data.shards import write_shard

LARGEST_ID = 65535
"""Token shards hold uint16."""
COMMAND_SECONDS = 600


def declared(names: str) -> frozenset[SideInformation]:
    """Side information from a list such as ``targets,documents``; empty for an empty string.

    Raises:
        FairwayError: a name is not known.
    """
    known: tuple[SideInformation, ...] = get_args(SideInformation)
    found = [name.strip() for name in names.split(",") if name.strip()]
    for name in found:
        if name not in known:
            raise FairwayError(f"--declares {name!r} is not one of {', '.join(known)}{suggest(name, known)}")
    return frozenset(name for name in known if name in found)


def load_function(reference: str) -> Callable[..., Any]:
    """The function that ``module:function`` names; modules of the current folder are found too.

    Raises:
        FairwayError: the module cannot be imported, or has no such function.
    """
    module, _, name = reference.partition(":")
    if not module or not name:
        raise FairwayError(f"{reference!r} does not name a function; write module:function, such as examples.scorer:score")
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        found = importlib.import_module(module)
    except Exception as error:
        raise FairwayError(f"module {module} cannot be imported: {_said(error)}") from None
    if not callable(getattr(found, name, None)):
        raise FairwayError(f"module {module} has no function {name!r}{suggest(name, dir(found))}")
    return getattr(found, name)


def _said(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


def plain_meta(meta: Meta, vocab_size: int) -> dict[str, Any]:
    """Side information as a dictionary that needs no class of ours."""
    return {"targets": meta.targets, "document_starts": list(meta.document_starts), "vocab_size": vocab_size}


@dataclass
class CallableScorer:
    """``function(tokens, meta) -> nats per target``, where ``meta`` is a dictionary."""

    name: str
    vocab_size: int
    function: Callable[..., Any]
    declares: frozenset[SideInformation] = field(default_factory=frozenset)
    documents_independent: bool = False
    """Whether it claims to score every document as if no other existed."""

    def score(self, tokens: Int64[np.ndarray, " targets_plus_1"], meta: Meta) -> np.ndarray:
        """Nats of every target, unchecked.

        Raises:
            FairwayError: the function failed; one line with its name and what it said.
        """
        return self._call(self.function, tokens, meta)

    def _call(self, function: Callable[..., Any], tokens: np.ndarray, meta: Meta, *more: np.ndarray) -> np.ndarray:
        try:
            return np.asarray(function(tokens, plain_meta(meta, self.vocab_size), *more), dtype=np.float64)
        except Exception as error:
            where = f"on {len(tokens) - 1} targets"
            raise FairwayError(f"scorer {self.name} failed {where}: {_said(error)}") from error


@dataclass
class HookedScorer(CallableScorer):
    """With ``hook(tokens, meta, entries) -> log-probabilities [entries, vocab]`` beside it."""

    hook: Callable[..., Any] = field(kw_only=True)

    def distributions(
        self, tokens: Int64[np.ndarray, " targets_plus_1"], meta: Meta, targets: Int64[np.ndarray, " probes"]
    ) -> np.ndarray:
        """Natural-log probabilities at the entries, unchecked.

        Raises:
            FairwayError: the hook failed.
        """
        return self._call(self.hook, tokens, meta, targets)


def callable_scorer(
    reference: str, vocab_size: int, *, hook: str = "", declares: str = "", independent: bool = False
) -> CallableScorer:
    """A scorer from ``module:function``, with a hook if one is named.

    Raises:
        FairwayError: a name cannot be resolved.
    """
    function, names = load_function(reference), declared(declares)
    if not hook:
        return CallableScorer(reference, vocab_size, function, names, independent)
    return HookedScorer(reference, vocab_size, function, names, independent, hook=load_function(hook))


@dataclass
class CommandScorer:
    """A program, started anew for every stream: it reads a token shard and a JSON file and writes nats as ``.npy``."""

    template: str
    """Command with ``{tokens}``, ``{meta}`` and ``{out}`` where the paths of the three files go."""
    vocab_size: int
    declares: frozenset[SideInformation] = field(default_factory=frozenset)
    documents_independent: bool = False
    """Whether it claims to score every document as if no other existed."""

    def __post_init__(self) -> None:
        missing = [name for name in ("{tokens}", "{out}") if name not in self.template]
        if missing:
            raise FairwayError(
                f"--command {self.template!r} lacks {' and '.join(missing)}; "
                'write it like "prog {tokens} {meta} {out}", each replaced by a path'
            )
        if self.vocab_size > LARGEST_ID + 1:
            raise FairwayError(f"--vocab {self.vocab_size} is more than token shards hold; at most {LARGEST_ID + 1}")

    @property
    def name(self) -> str:
        """The command."""
        return self.template

    def score(self, tokens: Int64[np.ndarray, " targets_plus_1"], meta: Meta) -> np.ndarray:
        """Nats of every target, unchecked.

        Raises:
            FairwayError: the program cannot be started, fails, takes too long or writes no array.
        """
        with tempfile.TemporaryDirectory(prefix="fairway-audit-") as folder:
            paths = {
                name: Path(folder) / f"{name}{end}" for name, end in (("tokens", ".bin"), ("meta", ".json"), ("out", ".npy"))
            }
            write_shard(paths["tokens"], tokens.astype(np.uint16))
            paths["meta"].write_text(json.dumps(plain_meta(meta, self.vocab_size)))
            words = [_filled(word, paths) for word in shlex.split(self.template)]
            self._run(words)
            try:
                return np.load(paths["out"], allow_pickle=False).astype(np.float64)
            except (OSError, ValueError) as error:
                raise FairwayError(f"scorer {words[0]} wrote no array of nats to {{out}}: {_said(error)}") from None

    def _run(self, words: list[str]) -> None:
        try:
            done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=COMMAND_SECONDS)
        except OSError as error:
            raise FairwayError(f"scorer {words[0]} cannot be started: {error.strerror}") from None
        except subprocess.TimeoutExpired:
            raise FairwayError(f"scorer {words[0]} took more than {COMMAND_SECONDS} seconds for one stream") from None
        if done.returncode:
            last = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()[-1]
            raise FairwayError(f"scorer {words[0]} ended with code {done.returncode}: {last}")


def _filled(word: str, paths: dict[str, Path]) -> str:
    for name, path in paths.items():
        word = word.replace(f"{{{name}}}", str(path))
    return word

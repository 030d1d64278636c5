"""The n-gram scan: for every token of a stream, which token its past suggests next, and how strongly.

The hint for the next token depends on the tokens pushed so far and on nothing else. What is counted, and how, is defined by
the plain scan in ``hints_plain.py``; the native scan computes the same, integer for integer.

The state of a scan is the text that it has read: the tables are a function of it. So a saved state takes 2 bytes per token
instead of 14 to 270, fits the native and the plain scan alike, and holds nothing that could mislead native code; loading it
counts the text again, at the speed of a scan.
"""

import math
from typing import Literal

import numpy as np
from jaxtyping import Float64, Int32, UInt16

from fairway.base.errors import DataError, RecipeError
from fairway.config import TiltConfig
from fairway.score.hints_flags import TokenFlags, checked_flags
from fairway.score.hints_native import LIBRARIES, BoundedScan, ExactScan, HashedScan, scan_library
from fairway.score.hints_plain import PlainScan

Native = Literal["auto", "always", "never"]
"""auto: native where a C compiler is found, else plain with one log line; always: an error instead; never: plain."""

MOST_BITS = 26
"""Logarithm of the slots of a published table. PR #1557."""
PUBLISHED_LOAD = 0.35
"""Expected share of slots in use below that size; so full, PR #1557's tables lose next to nothing."""


class HintScanner:
    """A scan that is fed block by block; cutting the stream elsewhere changes nothing."""

    def __init__(
        self,
        config: TiltConfig,
        *,
        targets: int,
        vocab_size: int,
        flags: TokenFlags | None = None,
        native: Native = "auto",
        table_bits: int | None = None,
        primer: int | None = None,
        resumes: bool = False,
    ) -> None:
        """Start before the first token.

        Args:
            config: What is counted, and when it speaks.
            targets: Length of the stream: memory to set aside and, for pr1557, the size of its tables; side information
                like the length that a plan is made for.
            vocab_size: Token ids lie in ``[0, vocab_size)``.
            flags: Facts about tokens, for the word experts.
            native: Whether native code may or must be used.
            table_bits: Logarithm of the slots per table, for pr1557 only; by default enough for ``targets``, 26 at most.
            primer: Token that stands in for the first one in every context. PR #2140 puts the first target there, which
                no decoder knows in time; None, the valid choice, leaves the stream as it is.
            resumes: Whether `resume` will be called, for which pr1557 has no native code.

        Raises:
            RecipeError: word experts without flags, or with a counting that has none.
            DataError: flags of another vocabulary, or ids that 16 bits do not hold.
            MachineError: native code is required and cannot be had, or memory is short.
        """
        if not 1 <= vocab_size <= 1 << 16:
            raise DataError(f"an n-gram scan of {vocab_size} token ids; ids have 16 bits, so at most 65536 are possible")
        self.config, self.vocab_size, self.primer = config, vocab_size, primer
        self.flags = checked_flags(config, flags, vocab_size)
        self.targets, self.native, self.resumes = targets, native, resumes
        self.resumed = False
        self.table_bits = table_bits or _published_bits(targets)
        self.scan = self._fresh()

    def _fresh(self) -> PlainScan | ExactScan | HashedScan | BoundedScan:
        kind = LIBRARIES[self.config.counting]
        library = None if self.native == "never" else scan_library(kind, required=self.native == "always")
        if library is None or (self.resumes and self.config.counting == "pr1557"):
            return PlainScan(self.config, self.flags, self.table_bits)
        if self.config.counting == "pr1557":
            return BoundedScan(library, self.config, self.flags, self.table_bits)
        if self.config.counting == "pr2140":
            return HashedScan(library, self.config, self.targets)
        return ExactScan(library, self.config, self.flags, self.targets)

    @property
    def position(self) -> int:
        """Number of tokens pushed; the next hint is for the token at this position of the stream."""
        return self.scan.position

    def push(
        self, tokens: UInt16[np.ndarray, " pushed"]
    ) -> tuple[Int32[np.ndarray, " pushed"], Float64[np.ndarray, " pushed"]]:
        """Read tokens; for each, the hint for the token after it and its strength in nats, -1 and 0 where nothing speaks.

        Raises:
            DataError: an id outside the vocabulary, or more than 2^31 - 1 tokens.
        """
        if self.primer is not None and self.position == 0 and len(tokens):
            tokens = np.concatenate([np.array([self.primer], np.uint16), tokens[1:]])
        if len(tokens) and int(tokens.max()) >= self.vocab_size:
            raise DataError(f"token {int(tokens.max())} is outside the vocabulary of {self.vocab_size}; use its own tokenizer")
        return self.scan.push(tokens)

    def resume(self, context: UInt16[np.ndarray, " context"]) -> tuple[int, float]:
        """Go on after another context, which is not counted; hint and strength for the token after it, -1 and 0 for none.

        Contexts that would reach back before its first token are silent until enough tokens follow it.

        Raises:
            RecipeError: word experts, which read one text from its beginning.
        """
        if self.flags is not None:
            raise RecipeError(
                "word experts cannot take turns between documents; set score.tilt.agreement, within_word_strength and "
                "word_start_strength to 0"
            )
        assert self.resumes, "say that the scan resumes when it is made"
        self.resumed = True
        return self.scan.resume(context)

    def state_dict(self) -> dict[str, np.ndarray]:
        """What `load_state_dict` needs: the tokens read so far.

        Raises:
            DataError: the scan took up other contexts, so that its tokens do not say what was counted.
        """
        if self.resumed:
            raise DataError("a scan that took turns between documents has no state to save; scan the text again")
        return {"tokens": self.scan.text.copy()}

    def load_state_dict(self, state: dict[str, np.ndarray]) -> None:
        """Go to the state of a scan with the same settings.

        Raises:
            DataError: this is not the state of a scan, or of another vocabulary.
        """
        tokens = state.get("tokens")
        if set(state) != {"tokens"} or tokens is None or tokens.dtype != np.uint16 or tokens.ndim != 1:
            raise DataError(f"the state of an n-gram scan is one array of uint16 tokens, not {sorted(state)}; save it again")
        self.scan = self._fresh()
        self.push(tokens)


def build_hints(
    tokens: UInt16[np.ndarray, " targets_plus_1"],
    config: TiltConfig,
    *,
    vocab_size: int,
    flags: TokenFlags | None = None,
    native: Native = "auto",
    table_bits: int | None = None,
    primer: int | None = None,
) -> tuple[Int32[np.ndarray, " targets"], Float64[np.ndarray, " targets"]]:
    """Hint and strength of every target of a stream: entry ``t`` is about ``tokens[t + 1]`` and depends on ``tokens[: t + 1]``.

    Args: as for `HintScanner`, with the number of targets taken from ``tokens``.
    """
    targets = len(tokens) - 1
    scanner = HintScanner(
        config,
        targets=targets,
        vocab_size=vocab_size,
        flags=flags,
        native=native,
        table_bits=table_bits,
        primer=primer,
    )
    return scanner.push(tokens[:targets])


def _published_bits(targets: int) -> int:
    return min(MOST_BITS, max(10, math.ceil(math.log2(max(1, targets) / PUBLISHED_LOAD))))

"""What the word experts of the n-gram tilt must know about tokens: which open a word, and which belong to none."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool

from fairway.base.errors import DataError, RecipeError
from fairway.config import TiltConfig
from fairway.data.tokenizer import SPACE, Tokenizer


@dataclass(frozen=True)
class TokenFlags:
    """Two facts about every token id."""

    leading_space: Bool[np.ndarray, " vocab"]
    """The piece begins with a space, so it opens a word."""
    boundary: Bool[np.ndarray, " vocab"]
    """The token stands for no text (BOS and its like), so words end before it."""

    @property
    def opens(self) -> Bool[np.ndarray, " vocab"]:
        """Whether a token opens a word by its space."""
        return self.leading_space & ~self.boundary


def token_flags(tokenizer: Tokenizer) -> TokenFlags:
    """The flags of a tokenizer's pieces: control, unknown and unused ids are boundaries (PR #1557)."""
    text = np.array([kind == "text" for kind in tokenizer.kinds])
    spaced = np.array([piece.startswith(SPACE) for piece in tokenizer.pieces])
    boundary = np.array([kind not in ("text", "byte") for kind in tokenizer.kinds])
    return TokenFlags(text & spaced, boundary)


def uses_words(config: TiltConfig) -> bool:
    """Whether a tilt runs the word experts, which need token flags."""
    return config.agreement > 0 or config.within_word_strength > 0 or config.word_start_strength > 0


def checked_flags(config: TiltConfig, flags: TokenFlags | None, vocab_size: int) -> TokenFlags | None:
    """The flags that a scan with ``config`` uses: None without word experts.

    Raises:
        RecipeError: word experts with a counting that has none, or without flags.
        DataError: flags of another vocabulary.
    """
    if not uses_words(config):
        return None
    if config.counting == "pr2140":
        raise RecipeError(
            f"score.tilt.agreement={config.agreement}, within_word_strength={config.within_word_strength} and "
            f"word_start_strength={config.word_start_strength} must be 0 with counting=pr2140, whose word experts looked at "
            "the token being predicted; use exact or pr1557"
        )
    if flags is None:
        raise RecipeError(
            "score.tilt runs word experts (agreement or a word strength is above 0) without token flags; give the tokenizer's "
            "flags, or set agreement, within_word_strength and word_start_strength to 0"
        )
    for name in ("leading_space", "boundary"):
        found = len(getattr(flags, name))
        if found != vocab_size:
            raise DataError(f"token flags {name} cover {found} ids, the vocabulary has {vocab_size}; use its own tokenizer")
    return flags

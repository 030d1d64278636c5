"""A stream of tokens as the text that passes score."""

import numpy as np
import torch
from torch import Tensor

from fairway.score.lanes import document_starts
from fairway.score.passes import ScoredText


def scored_text(tokens: Tensor) -> ScoredText:
    """One byte per target; documents begin at the markers."""
    costs = np.ones(len(tokens) - 1, dtype=np.uint16)
    return ScoredText(tokens, costs, torch.from_numpy(document_starts(tokens)), partial=False)

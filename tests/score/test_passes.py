"""Which text a result is about."""

import numpy as np
import pytest

from fairway.base.errors import DataError
from fairway.config import ScoreConfig
from fairway.data.dataset import Stream
from fairway.score.passes import select_text


def stream(lengths: list[int]) -> Stream:
    """Documents of the given numbers of tokens, each behind its marker."""
    tokens = np.concatenate([[1, *range(4, 4 + length)] for length in lengths]).astype(np.uint16)
    costs = np.where(tokens == 1, 0, 2).astype(np.uint16)
    return Stream(tokens, costs, np.flatnonzero(tokens == 1).astype(np.int64), "sidecar")


def test_all_text_is_scored_by_default() -> None:
    text = select_text(stream([5, 3, 4]), ScoreConfig(context=4, stride=4))
    assert (text.targets, int(text.byte_costs.sum()), text.partial) == (14, 24, False)
    assert text.documents.tolist() == [0, 6, 10]


@pytest.mark.parametrize(("limit", "targets"), [(14, 14), (13, 9), (9, 9), (8, 5), (5, 5), (4, 4), (99, 14)])
def test_a_limit_cuts_after_a_whole_document_if_one_fits(limit: int, targets: int) -> None:
    text = select_text(stream([5, 3, 4]), ScoreConfig(context=4, stride=4, max_tokens=limit))
    assert text.targets == targets
    assert text.partial == (targets < 14)


def test_dropping_the_tail_leaves_whole_rows() -> None:
    text = select_text(stream([5, 3, 4]), ScoreConfig(context=4, stride=4, keep_tail=False))
    assert (text.targets, text.partial) == (12, False)
    with pytest.raises(DataError, match=r"14 targets, which is less than score\.context=16"):
        select_text(stream([5, 3, 4]), ScoreConfig(context=16, stride=4, keep_tail=False))

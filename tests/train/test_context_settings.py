"""Settings of progressive context: what is refused, and how the command line gives them."""

import pytest

from fairway.base.errors import RecipeError
from fairway.base.values import from_dict, to_dict, with_fields
from fairway.config import Recipe, TrainConfig
from fairway.recipes import recipe

PACKED = {"loader": "packed_documents", "batch_tokens": 8 * 96, "context": 48}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"context_lengths": (16, 32), "context_until": (0.5,)}, ["train.context_lengths=16,32", "rise to train.context=48"]),
        ({"context_lengths": (32, 16, 48), "context_until": (0.1, 0.2)}, ["32,16,48", "must rise"]),
        ({"context_lengths": (0, 48), "context_until": (0.1,)}, ["0,48", "must rise"]),
        ({"context_lengths": (16, 48)}, ["train.context_until=()", "0 entries for the 2"]),
        ({"context_lengths": (16, 48), "context_until": (0.1, 1.0)}, ["2 entries for the 2", "each stage but the last"]),
        ({"context_until": (0.1,)}, ["1 entries for the 0"]),
        ({"context_lengths": (16, 48), "context_until": (1.0,)}, ["train.context_until=1", "below 1"]),
        ({"context_lengths": (16, 48), "context_until": (0.0,)}, ["above 0"]),
        ({"context_lengths": (16, 32, 48), "context_until": (0.7, 0.1)}, ["0.7,0.1", "must rise"]),
        ({"context_lengths": (36, 48), "context_until": (0.5,)}, ["36", "does not divide 96", "packed row"]),
        ({"context_rewarm_steps": -1}, ["train.context_rewarm_steps=-1 is negative"]),
        ({"context": 36}, ["batch_tokens=768 is not a multiple"]),
        (
            {"loader": "random_windows", "context_lengths": (32, 48), "context_until": (0.5,)},
            ["32", "does not divide 48", "cut into shorter"],
        ),
    ],
)
def test_impossible_stages_are_refused(changes, words):
    with pytest.raises(RecipeError) as caught:
        TrainConfig(**{**PACKED, **{"context_lengths": (), **changes}})
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_possible_stages_are_kept():
    for lengths, until in (((), ()), ((48,), ()), ((16, 32, 48), (0.1, 0.7))):
        train = TrainConfig(**PACKED, context_lengths=lengths, context_until=until)
        assert from_dict(TrainConfig, to_dict(train)) == train
    TrainConfig(**{**PACKED, "loader": "random_windows"}, context_lengths=(16, 48), context_until=(0.5,))


def test_the_command_line_gives_them():
    from fairway.cli.parse import parse

    names = ["--train.context-lengths", "64", "128", "256", "--train.context-until", "0.1", "0.7"]
    found = parse(Recipe, names, "run tiny", recipe("tiny"))
    changes = {"train.context_lengths": (64, 128, 256), "train.context_until": (0.1, 0.7)}
    assert found == with_fields(recipe("tiny"), changes)

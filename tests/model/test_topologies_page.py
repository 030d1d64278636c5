"""docs/topologies.md is true: its figures are those of the recipes, its equations are tested in test_residual.py."""

from pathlib import Path

import pytest
import torch

from fairway.model.gpt import GPT
from fairway.model.residual import TOPOLOGIES
from fairway.recipes import recipe

PAGE = Path(__file__).parents[2] / "docs" / "topologies.md"


def table() -> dict[str, dict[str, str]]:
    """Column of a topology -> row -> cell."""
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("|")]
    head, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {name.strip("`"): {row[0]: row[column] for row in rows} for column, name in enumerate(head) if column}


@pytest.mark.parametrize("topology", ["sequential", "single_stream", "decoupled_lanes", "routed_lanes"])
def test_a_column_describes_the_published_network(topology):
    column = table()[topology]
    config = recipe(column["source"].replace("PR #", "pr")).model
    with torch.device("meta"):
        model = GPT(config)
    own = dict(model.residual.named_parameters())
    assert topology == config.residual.topology
    assert isinstance(model.residual, TOPOLOGIES[topology])
    assert column["parameters, as published"] == f"{sum(value.numel() for value in model.parameters()):,}"
    assert column["own parameters"] == str(sum(value.numel() for value in own.values()))
    assert column["names"] == (", ".join(f"`{name}`" for name in own) or "-")
    initial = [value for part in column["initial values"].split(";") for value in part.split(",")[:1]]
    assert [float(value) for value in initial if value != "-"] == list(TOPOLOGIES[topology].initial.values())
    assert column["block applications"] == str(model.schedules[True].applications)
    assert column["rows of the skips"] == str(len(model.skips.weight))
    if topology != "sequential":
        assert column["first parallel layer, as published"] == str(config.residual.parallel_from)

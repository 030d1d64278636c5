"""The treemap: areas are exact, fill the square, do not overlap, and stay close to square."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.report import load_run
from fairway.report.figures import all_plots, render
from fairway.report.treemap import CODE, CONTAINER, Share, layout, shares, squarified


@given(st.lists(st.floats(1e-3, 1e6), min_size=1, max_size=40), st.floats(0.3, 3.0))
def test_rectangles_fill_the_square_with_the_areas_asked_for(areas, aspect):
    areas = sorted(areas, reverse=True)
    placed = squarified(areas, aspect)
    for area, item in zip(areas, placed, strict=True):
        assert item.width * item.height == pytest.approx(area / sum(areas), rel=1e-6, abs=1e-12)
        assert -1e-6 <= item.x <= item.x + item.width <= 1 + 1e-6
        assert -1e-6 <= item.y <= item.y + item.height <= 1 + 1e-6
    for index, first in enumerate(placed):
        for second in placed[:index]:
            wide = min(first.x + first.width, second.x + second.width) - max(first.x, second.x)
            high = min(first.y + first.height, second.y + second.height) - max(first.y, second.y)
            assert min(wide, high) <= 1e-6


def test_equal_areas_become_squares():
    for item in squarified([1.0] * 9):
        assert item.width == pytest.approx(item.height) == pytest.approx(1 / 3)
    # On a place twice as wide as high, a rectangle that is square there is half as wide in the unit square.
    assert all(2 * item.width == pytest.approx(item.height) for item in squarified([1.0] * 8, aspect=2.0))


def test_members_lie_in_their_class():
    data = [Share("a", "a1", 5.0), Share("a", "a2", 3.0), Share("b", "b1", 9.0), Share("c", "c1", 0.5)]
    placed = layout(data, 1.5)
    assert [group for group, _, _ in placed] == ["b", "a", "c"]
    for _, place, members in placed:
        for item, part in members:
            assert part.width * part.height == pytest.approx(item.bytes / 17.5)
            assert place.x - 1e-9 <= part.x
            assert part.x + part.width <= place.x + place.width + 1e-9


def test_every_byte_of_a_run_is_in_it(full_source):
    data = load_run(full_source)
    found = shares(data.tensors, artifact_bytes=data.score.artifact_bytes, code_bytes=data.score.code_bytes)
    assert sum(item.bytes for item in found) == pytest.approx(data.score.total_bytes)
    assert {CONTAINER, CODE} <= {item.group for item in found}
    assert CODE not in {item.group for item in shares(data.tensors, artifact_bytes=data.score.artifact_bytes, code_bytes=0)}
    (plot,) = [plot for plot in all_plots(data) if plot.name == "bytes"]
    drawing = render(plot)
    largest = max(found, key=lambda item: sum(other.bytes for other in found if other.group == item.group))
    assert drawing.title.startswith(largest.group)

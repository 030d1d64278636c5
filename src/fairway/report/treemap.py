"""Where the bytes went, as areas: a rectangle per tensor inside one per class, with the container and the code beside."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fairway.report.look import COLOURS, plot_label, short_count
from fairway.report.records import TensorRecord

if TYPE_CHECKING:
    import matplotlib.axes

AXES_INCHES = (4.8, 3.6)
"""Size of the axes; the shape of rectangles and the room for labels follow from it."""
LETTER_INCHES, LINE_INCHES = 0.083, 0.17
"""Room that a letter and a line of 9 points need."""
HUES = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442", "#7f7f7f")
"""Of Okabe and Ito, for the classes from the largest to the smallest; the last serves all others."""
CONTAINER, CODE = "container", "code"


@dataclass(frozen=True)
class Share:
    """Bytes of one thing: a tensor, what the container adds, or the code."""

    group: str
    name: str
    bytes: float


@dataclass(frozen=True)
class Rectangle:
    """A place in the unit square."""

    x: float
    y: float
    width: float
    height: float

    def inside(self, outer: "Rectangle") -> "Rectangle":
        """The same place in ``outer`` in place of the unit square."""
        return Rectangle(
            outer.x + self.x * outer.width,
            outer.y + self.y * outer.height,
            self.width * outer.width,
            self.height * outer.height,
        )


def shares(tensors: Sequence[TensorRecord], *, artifact_bytes: int, code_bytes: int) -> list[Share]:
    """Everything that counts against the cap: tensors, what the container adds to them, and the code.

    Args:
        tensors: With their bytes in the artifact.
        artifact_bytes: Length of the artifact.
        code_bytes: Length of the code, 0 to leave it out.
    """
    found = [Share(record.group, record.name, float(record.bytes)) for record in tensors]
    found.append(Share(CONTAINER, CONTAINER, artifact_bytes - sum(item.bytes for item in found)))
    found.append(Share(CODE, CODE, float(code_bytes)))
    return [item for item in found if item.bytes > 0]


def squarified(areas: Sequence[float], aspect: float = 1.0) -> list[Rectangle]:
    """Rectangles of the given areas that fill the unit square, as square as greed makes them; the squarified treemap.

    Rows are laid along the shorter side, each as long as that keeps its worst rectangle from becoming more oblong.

    Args:
        areas: Positive, falling.
        aspect: Width over height of the place that the unit square stands for.

    Source: Bruls, Huizing and van Wijk, "Squarified treemaps" (2000).
    """
    scale = aspect / sum(areas)
    rest, free = [area * scale for area in areas], Rectangle(0.0, 0.0, aspect, 1.0)
    placed: list[Rectangle] = []
    while rest:
        side = min(free.width, free.height)
        count = 1
        while count < len(rest) and _oblong(rest[: count + 1], side) <= _oblong(rest[:count], side):
            count += 1
        row, rest = rest[:count], rest[count:]
        depth, offset = sum(row) / side, 0.0
        for area in row:
            length = area / depth
            if free.width >= free.height:
                placed.append(Rectangle(free.x, free.y + offset, depth, length))
            else:
                placed.append(Rectangle(free.x + offset, free.y, length, depth))
            offset += length
        if free.width >= free.height:
            free = Rectangle(free.x + depth, free.y, free.width - depth, free.height)
        else:
            free = Rectangle(free.x, free.y + depth, free.width, free.height - depth)
    return [Rectangle(item.x / aspect, item.y, item.width / aspect, item.height) for item in placed]


def _oblong(row: Sequence[float], side: float) -> float:
    """Worst ratio of the longer to the shorter side in a row of these areas along ``side``."""
    depth = sum(row) / side
    return max(max(depth * depth / area, area / (depth * depth)) for area in row)


def layout(data: Sequence[Share], aspect: float = 1.0) -> list[tuple[str, Rectangle, list[tuple[Share, Rectangle]]]]:
    """Classes from the largest to the smallest, with their place and the places of their members.

    Args:
        data: At least one share.
        aspect: Width over height of the whole picture.
    """
    groups: dict[str, list[Share]] = {}
    for item in sorted(data, key=lambda item: (-item.bytes, item.name)):
        groups.setdefault(item.group, []).append(item)
    ordered = sorted(groups.items(), key=lambda pair: (-sum(item.bytes for item in pair[1]), pair[0]))
    outer = squarified([sum(item.bytes for item in members) for _, members in ordered], aspect)
    result = []
    for (group, members), place in zip(ordered, outer, strict=True):
        inner = squarified([item.bytes for item in members], aspect * place.width / place.height)
        result.append((group, place, [(item, part.inside(place)) for item, part in zip(members, inner, strict=True)]))
    return result


def plot_bytes(data: Sequence[Share], axes: "matplotlib.axes.Axes") -> None:
    """A treemap: the area of a rectangle is its share of all bytes; one colour per class, thin lines between tensors.

    Args:
        data: At least one share.
        axes: Axes to draw on, of `AXES_INCHES`.
    """
    from matplotlib.patches import Rectangle as Patch

    total = sum(item.bytes for item in data)
    placed = layout(data, AXES_INCHES[0] / AXES_INCHES[1])
    for index, (group, place, members) in enumerate(placed):
        for _, part in members:
            axes.add_patch(
                Patch(
                    (part.x, part.y),
                    part.width,
                    part.height,
                    facecolor=HUES[min(index, len(HUES) - 1)],
                    edgecolor=COLOURS.paper,
                    linewidth=0.5,
                    alpha=0.55,
                )
            )
        axes.add_patch(Patch((place.x, place.y), place.width, place.height, fill=False, edgecolor=COLOURS.ink, linewidth=0.8))
        bytes_here = sum(item.bytes for item, _ in members)
        _label(axes, place, (plot_label(group, 20), f"{bytes_here / total:.1%}", short_count(bytes_here)))
    axes.set_xlim(0.0, 1.0)
    axes.set_ylim(1.0, 0.0)
    axes.set_axis_off()
    group, _, members = placed[0]
    largest = sum(item.bytes for item, _ in members)
    axes.set_title(f"{plot_label(group, 22)} takes {largest / total:.0%} of {short_count(total)} bytes")


def _label(axes: "matplotlib.axes.Axes", place: Rectangle, lines: Sequence[str]) -> None:
    """As many of the lines as fit, upright where the place is; none where not even the first fits."""
    width, height = (place.width * AXES_INCHES[0], place.height * AXES_INCHES[1])
    upright = height > 1.6 * width
    along, across = (height, width) if upright else (width, height)
    fitting = [line for line in lines if len(line) * LETTER_INCHES <= along]
    shown = fitting[: int(across / LINE_INCHES)]
    if shown and shown[0] == lines[0]:
        axes.text(
            place.x + place.width / 2,
            place.y + place.height / 2,
            "\n".join(shown),
            ha="center",
            va="center",
            rotation=90 if upright else 0,
            fontsize=9,
            bbox={"facecolor": COLOURS.paper, "alpha": 0.75, "linewidth": 0, "pad": 1.0},
        )

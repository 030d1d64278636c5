"""Streams of codes back to matrices, whichever coder holds them."""

from collections.abc import Sequence

import numpy as np

from fairway.artifact.code_tensors import Trace
from fairway.artifact.entropy import unpack_static
from fairway.artifact.level_codes import unpack_level_codes
from fairway.artifact.lockstep import Shape, unpack_lockstep
from fairway.artifact.manifest import Entry
from fairway.artifact.shapes import AnyTable
from fairway.artifact.streams import GRID_PLANES, Coder, Plane, Stream
from fairway.artifact.wire import damaged


def stream_shapes(stream: Stream, entries: Sequence[Entry]) -> tuple[Plane, list[tuple[tuple[int, ...], np.dtype]], str]:
    """Plane of a stream, shape and element type of its arrays, and its name in messages.

    Raises:
        ArtifactError: its arrays are of several planes or types, or there are none.
    """
    shapes = [entries[part.tensor].planes()[part.plane] for part in stream.parts]
    names = [entries[part.tensor].name for part in stream.parts]
    if not shapes or len({dtype for _, dtype in shapes}) != 1 or len({part.plane for part in stream.parts}) != 1:
        raise damaged(f"a stream mixes arrays of different types, or has none: {', '.join(names) or 'no tensor'}")
    plane = stream.parts[0].plane
    return plane, shapes, f"{plane.name.lower()} of {names[0]}" + (f" and {len(names) - 1} more" if len(names) > 1 else "")


def unpack_codes(
    stream: Stream, entries: Sequence[Entry], pool: Sequence[AnyTable], budget: int, trace: Trace | None = None
) -> tuple[list[np.ndarray], int]:
    """Codes of every part of a stream, int8 or with a trellis int16, and the calls of a walk that it took.

    Args:
        stream: Of one of the coders of codes.
        entries: Tensors of the manifest.
        pool: Tables of the artifact.
        budget: Calls that are left to walks.
        trace: Notes which table each code had.

    Raises:
        ArtifactError: the stream does not fit its tensors, or does not decode to exactly their codes.
    """
    plane, shapes, what = stream_shapes(stream, entries)
    if plane not in GRID_PLANES:
        raise damaged(f"a stream of codes carries {len(shapes)} arrays, the first of them {plane.name.lower()}")
    grids = {(entries[part.tensor].trellis, entries[part.tensor].grid_bits(plane)) for part in stream.parts}
    trellis, bits = next(iter(grids))
    walk = stream.coder is Coder.LOCKSTEP_CODES
    alone = len(shapes) == 1 and not trellis
    alike = len({states or width for states, width in grids}) == 1 and len({shape[0] for shape, _ in shapes}) == 1
    if not (alike if walk else alone):
        raise damaged(f"a stream of codes carries {len(shapes)} arrays that its coder does not hold together: {what}")
    if walk:
        shape = Shape(shapes[0][0][0], [shape[1] for shape, _ in shapes], trellis, bits, what)
        return unpack_lockstep(stream, shape, pool, budget, trace)
    name = entries[stream.parts[0].tensor].name
    if stream.coder is Coder.LEVEL_CODES:
        return [unpack_level_codes(stream, shapes[0][0], bits, pool, name, trace)], 0
    return [unpack_static(stream, shapes[0][0], bits, pool, name, trace)], 0

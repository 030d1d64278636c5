"""What surrounds one application of a block: everything it needs besides the stream and its own weights."""

from collections.abc import Callable
from typing import Literal, NamedTuple

from jaxtyping import Float
from torch import Tensor

from fairway.kernels.attention import Segments
from fairway.model.rotary import Rotation

Site = Literal["query", "key", "value", "output", "mlp", "head"]
"""A map to whose output an adapter may add something."""

Adapt = Callable[[Site, Tensor, Tensor], Tensor]
"""``(site, input, output) -> output``: what test-time training makes of the output of a map in one block application. The
input is that of the whole branch: the normalised stream, for ``output`` and ``mlp`` too."""


def unchanged(site: Site, x: Tensor, y: Tensor) -> Tensor:
    """No adapter."""
    return y


def nothing(x: Float[Tensor, "batch time width"]) -> Float[Tensor, "batch time width"]:
    """Bring no skip: the stream itself."""
    return x


class Step(NamedTuple):
    """What one block application needs besides the stream or the lanes."""

    first: Tensor
    """Normalised embedding ``x0`` of the row's tokens."""
    rotation: Rotation
    """Rotary tables of the row's positions."""
    bring: Callable[[Tensor], Tensor] = nothing
    """Adds the U-Net skip of this step to a lane."""
    segments: Segments | None = None
    """Segments of a packed row, inside which attention stays."""
    adapt: Adapt = unchanged
    """Adapter of this application."""

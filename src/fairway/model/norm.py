"""Root-mean-square normalisation without learned weights."""

from jaxtyping import Float
from torch import Tensor

from fairway.kernels.normalize import normalize_rows

EPSILON = 2.0**-23
"""Added to the mean square: the spacing of float32 at 1, for every dtype. Source: PR #1394 (torch's default there)."""


def rms_norm(x: Float[Tensor, "... channels"], scale: float = 1.0) -> Float[Tensor, "... channels"]:
    """Scale rows to root mean square ``scale``: ``scale * x / sqrt(mean(x**2) + 2**-23)``.

    The arithmetic is float32 or wider and the result has the dtype of ``x``, inside and outside autocast: torch's own
    rms_norm changed its autocast rule between versions, which silently widens the residual stream.

    Args:
        x: Rows to normalise over the last axis.
        scale: Constant factor, such as the depth scale of a layer.

    Source: arXiv 1910.07467.
    """
    return normalize_rows(x, scale, EPSILON)

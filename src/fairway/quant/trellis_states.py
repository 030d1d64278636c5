"""The trellis of trellis-coded quantization: which codes may follow which. NumPy only, so that a file is read without torch.

The codes j of a path are integers on one grid. A state of ``nu`` bits allows either all even or all odd codes, and the code
that is taken tells the next state. With the input bit b and ``e = 2 s + b``:

    j mod 4    = 2 parity(e & h0) + parity(e & h1)
    next state = e mod 2**nu

``h0`` is odd and ``h1`` is even, so the state alone decides whether j is even, and b decides between the two halves of those.
A path starts in state 0.

Source: convolutional codes of trellis-coded quantization in feedback-free form, entropy coded as in the dependent
quantization of video coding (VVC) and of ISO/IEC 15938-17.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from jaxtyping import Int16, Int64, UInt8

GENERATORS = {4: (0o5, 0o2), 8: (0o13, 0o4), 16: (0o23, 0o4), 64: (0o103, 0o24), 256: (0o515, 0o362)}
"""``(h0, h1)`` by number of states."""


@dataclass(frozen=True, eq=False)
class Trellis:
    """The tables of one trellis.

    Attributes:
        states: Number of states.
        parity: Whether a state allows odd codes (1) or even ones (0).
        flip: ``parity(2 s & h0)``: the input bit of a code j from state s is ``(j >> 1 & 1) ^ flip[s]``.
    """

    states: int
    parity: UInt8[np.ndarray, "states"]
    flip: UInt8[np.ndarray, "states"]

    def step(self, state: Int64[np.ndarray, "paths"], codes: Int16[np.ndarray, "paths"]) -> Int64[np.ndarray, "paths"]:
        """State after each path took its code."""
        return (2 * state + ((codes >> 1 & 1) ^ self.flip[state])) % self.states


@cache
def trellis(states: int) -> Trellis:
    """The trellis of 4, 8, 16, 64 or 256 states."""
    h0, h1 = GENERATORS[states]
    doubled = [2 * state for state in range(states)]
    parity = np.array([(edge & h1).bit_count() & 1 for edge in doubled], np.uint8)
    flip = np.array([(edge & h0).bit_count() & 1 for edge in doubled], np.uint8)
    return Trellis(states, parity, flip)


def path_parities(codes: Int16[np.ndarray, "rows columns"], states: int) -> UInt8[np.ndarray, "rows columns"] | None:
    """Parity class of the state in which each code was taken, or None where a code has the other parity than its state allows.

    Args:
        codes: One path per column, from the first row to the last.
        states: Number of states of the trellis.
    """
    machine = trellis(states)
    state = np.zeros(codes.shape[1], np.int64)
    parities = np.empty(codes.shape, np.uint8)
    for row, taken in enumerate(codes):
        parities[row] = machine.parity[state]
        state = machine.step(state, taken)
    return parities if np.array_equal(parities, codes & 1) else None

"""Causal grouped-query attention: one dispatch over the kernels that a machine may have; ``choose`` says which, and why.

- ``segments``: which stretches of a packed row attend among themselves;
- ``plain``: the meaning, written out; every other back end is compared with it;
- ``sdpa``, ``flash``, ``flex``: the back ends;
- ``facts``: what the machine offers, as a value, so that the choice can be tested without the machine;
- ``choice``: what each back end needs, which one runs, and why the others do not.
"""

from fairway.kernels.attention.choice import BACKENDS, Backend, Choice, Task, causal_attention, choose, survey
from fairway.kernels.attention.facts import Facts, look
from fairway.kernels.attention.plain import plain_causal_attention
from fairway.kernels.attention.segments import Segments

__all__ = [
    "BACKENDS",
    "Backend",
    "Choice",
    "Facts",
    "Segments",
    "Task",
    "causal_attention",
    "choose",
    "look",
    "plain_causal_attention",
    "survey",
]

"""Residual topologies: what attention and MLP of a layer read from the residual stream, and where they write.

The network holds one topology and calls ``step`` once per block application. ``lanes`` is what travels from layer to layer:
one stream ``(x,)``, or an attention lane and an MLP lane ``(a, m)``. With ``A = block.attend`` and ``M = block.feed``, ``x0``
the normalised embedding, ``bring`` what adds the U-Net skip of this step (the identity where there is none) and ``mix`` the
blend with ``x0``, a sequential step is ``u = mix(bring(x))``, ``y = u + A(u)``, ``x <- y + M(y)``.
"""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fairway.config import ModelConfig
from fairway.model.block import Block
from fairway.model.step import Step

Lanes = tuple[Tensor, ...]
"""The stream, or the attention lane and the MLP lane; each of shape (batch, time, width)."""


class Sequential(nn.Module):
    """Attention, then the MLP, on one stream; in every layer. The base of the other topologies. PR #1394."""

    initial: ClassVar[dict[str, float]] = {}
    """Initial value of every parameter of the topology, by name. They are trained as scalars and stored as float16."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.parallel_from = config.residual.parallel_from

    def step(self, block: Block, lanes: Lanes, step: Step) -> Lanes:
        """Apply one layer to the lanes."""
        (x,) = lanes
        x = block.mix(step.bring(x), step.first)
        x = x + block.attend(x, step)
        return (x + block.feed(x, step),)

    def merge(self, lanes: Lanes) -> Float[Tensor, "batch time width"]:
        """The stream that the output head reads."""
        (x,) = lanes
        return x


class SingleStream(Sequential):
    """From layer ``parallel_from`` on, attention and MLP read the same input: ``u = mix(bring(x))``, ``x <- u + A(u) + M(u)``.

    No parameters. Source: PR #1776; the form of GPT-J.
    """

    def step(self, block: Block, lanes: Lanes, step: Step) -> Lanes:
        """Apply one layer to the stream."""
        if block.layer < self.parallel_from:
            return super().step(block, lanes, step)
        (x,) = lanes
        x = block.mix(step.bring(x), step.first)
        return (x + block.attend(x, step) + block.feed(x, step),)


class Lanewise(Sequential, ABC):
    """Two lanes from layer ``parallel_from`` to the head; the base of the topologies that differ in what is written where.

    The first of these layers opens both as copies of the stream. Its skip reaches both, or by ``opening_skip`` the attention
    lane alone (PR #2140), as all later skips do.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.opens_with_skip = config.residual.opening_skip == "both_lanes"

    def step(self, block: Block, lanes: Lanes, step: Step) -> Lanes:
        """Apply one layer; open the lanes at the first parallel one."""
        if block.layer < self.parallel_from:
            return super().step(block, lanes, step)
        attention_lane = step.bring(lanes[0])
        opening = attention_lane if self.opens_with_skip else lanes[0]
        mlp_lane = lanes[1] if len(lanes) == 2 else opening
        return self.write(block, attention_lane, mlp_lane, step)

    @abstractmethod
    def write(self, block: Block, attention_lane: Tensor, mlp_lane: Tensor, step: Step) -> Lanes:
        """Attention reads the first lane, mixed with ``x0``; the MLP reads the second."""


class DecoupledLanes(Lanewise):
    """Two lanes that do not see each other: ``u = mix(a)``, ``a <- u + A(u)``, ``m <- m + M(m)``.

    The head reads ``balance * a + (1 - balance) * m`` with one learned number. Source: PR #1533.
    """

    initial: ClassVar[dict[str, float]] = {"balance": 0.5}

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.balance = nn.Parameter(torch.zeros(()))

    def write(self, block: Block, attention_lane: Tensor, mlp_lane: Tensor, step: Step) -> Lanes:
        """Each branch writes to its own lane."""
        mixed = block.mix(attention_lane, step.first)
        return mixed + block.attend(mixed, step), mlp_lane + block.feed(mlp_lane, step)

    def merge(self, lanes: Lanes) -> Float[Tensor, "batch time width"]:
        """The learned blend of the lanes."""
        attention_lane, mlp_lane = lanes
        return torch.lerp(mlp_lane, attention_lane, self.balance.to(mlp_lane.dtype))


class RoutedLanes(Lanewise):
    """Two lanes into which both branches write.

    With ``y = A(mix(a))`` and ``z = M(m)`` of the old lanes,

        a <- keep[i, 0] a + write[i, 0, 0] y + write[i, 1, 0] z
        m <- keep[i, 1] m + write[i, 0, 1] y + write[i, 1, 1] z

    The residual is the lane itself, not the mixed input of attention. ``write[i, source, lane]`` and ``keep[i, lane]`` have a
    row for every physical layer ``i``, though rows before ``parallel_from`` are never read, as published. The head reads
    the mean of the lanes. Source: PR #1557, with the formulation of PR #1529.
    """

    initial: ClassVar[dict[str, float]] = {"write_weight": 1.0, "keep_weight": 1.1}

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.write_weight = nn.Parameter(torch.zeros(config.layers, 2, 2))
        self.keep_weight = nn.Parameter(torch.zeros(config.layers, 2))

    def write(self, block: Block, attention_lane: Tensor, mlp_lane: Tensor, step: Step) -> Lanes:
        """Each branch writes to both lanes."""
        dtype = attention_lane.dtype
        attended = block.attend(block.mix(attention_lane, step.first), step)
        fed = block.feed(mlp_lane, step)
        keep = self.keep_weight[block.layer].to(dtype).unbind()
        from_attention, from_mlp = (row.unbind() for row in self.write_weight[block.layer].to(dtype))
        return tuple(
            keep[lane] * stream + from_attention[lane] * attended + from_mlp[lane] * fed
            for lane, stream in enumerate((attention_lane, mlp_lane))
        )

    def merge(self, lanes: Lanes) -> Float[Tensor, "batch time width"]:
        """The mean of the lanes."""
        attention_lane, mlp_lane = lanes
        return 0.5 * (attention_lane + mlp_lane)


TOPOLOGIES: dict[str, type[Sequential]] = {
    "sequential": Sequential,
    "single_stream": SingleStream,
    "decoupled_lanes": DecoupledLanes,
    "routed_lanes": RoutedLanes,
}
"""By the names of ``model.residual.topology``."""

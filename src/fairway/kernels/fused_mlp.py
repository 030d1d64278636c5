"""The MLP with its activation inside the matrix products: ``a = (x Wup^T)``, ``out = phi(a) Wdown^T``.

    forward    the product with ``Wup`` writes ``a`` and ``phi(a)`` from the same registers
    backward   the product of the incoming gradient with ``Wdown`` is multiplied by ``phi'(a)`` before it is written

so that neither activation nor derivative costs a pass over memory of its own. ``phi(a) = a y`` and ``phi'(a) = 2 y`` with
``y = leaky_relu(a, slope**2)``; the slope is the recipe's number in float32, in both directions and in the plain twin alike
(the published kernel rounded it to bfloat16, 0.3 to 0.30078). Source: PR #1557, PR #2140.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from fairway.kernels.activation import leaky_relu_squared
from fairway.kernels.fused import interpreted


def plain_mlp(
    x: Float[Tensor, "... width"], up: Float[Tensor, "hidden width"], down: Float[Tensor, "width hidden"], slope: float
) -> Float[Tensor, "... width"]:
    """``leaky_relu_squared(x up^T, slope) down^T``, one operation after the other: the twin of `fused_mlp`."""
    return nn.functional.linear(leaky_relu_squared(nn.functional.linear(x, up), slope), down)


def fused_mlp(
    x: Float[Tensor, "... width"], up: Float[Tensor, "hidden width"], down: Float[Tensor, "width hidden"], slope: float
) -> Float[Tensor, "... width"]:
    """`plain_mlp` with the activation and its derivative inside two Triton matrix products on a GPU.

    The products of both sides with the kept tensors stay torch's own.

    Args:
        x: Normalised stream.
        up: Weights of the hidden channels, in the type of ``x``.
        down: Weights of the result, in the type of ``x``.
        slope: Slope of the negative side before squaring.
    """
    return _FusedMLP.apply(x.flatten(0, -2), up, down, slope).view(x.shape)  # pyright: ignore[reportOptionalMemberAccess]


class _FusedMLP(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, up: Tensor, down: Tensor, slope: float) -> Tensor:
        before, active = _product_then_activation(x, up, slope)
        ctx.save_for_backward(x, up, down, before, active)
        ctx.slope = slope
        return active @ down.T

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        x, up, down, before, active = ctx.saved_tensors
        (grad,) = grads
        of_x, of_up, of_down, _ = ctx.needs_input_grad
        through = _product_times_derivative(grad, down, before, ctx.slope) if of_x or of_up else before
        return through @ up if of_x else None, through.T @ x if of_up else None, grad.T @ active if of_down else None, None


@torch.library.custom_op("fairway::product_then_activation", mutates_args=(), device_types="cpu")
def _product_then_activation(x: Tensor, up: Tensor, slope: float) -> tuple[Tensor, Tensor]:
    """``a = x up^T`` and ``phi(a)``."""
    if interpreted():
        return _launch_forward(x, up, slope)
    before = x @ up.T
    return before, nn.functional.leaky_relu(before, slope * slope) * before


@_product_then_activation.register_kernel("cuda")
def _launch_forward(x: Tensor, up: Tensor, slope: float) -> tuple[Tensor, Tensor]:
    from fairway.kernels.triton_mlp import launch_forward

    return launch_forward(x, up, slope)


@_product_then_activation.register_fake
def _forward_shapes(x: Tensor, up: Tensor, slope: float) -> tuple[Tensor, Tensor]:
    del slope
    return x.new_empty(len(x), len(up)), x.new_empty(len(x), len(up))


@torch.library.custom_op("fairway::product_times_derivative", mutates_args=(), device_types="cpu")
def _product_times_derivative(grad: Tensor, down: Tensor, before: Tensor, slope: float) -> Tensor:
    """``(grad down) phi'(a)``."""
    if interpreted():
        return _launch_backward(grad, down, before, slope)
    return (grad @ down) * nn.functional.leaky_relu(before, slope * slope).mul_(2)


@_product_times_derivative.register_kernel("cuda")
def _launch_backward(grad: Tensor, down: Tensor, before: Tensor, slope: float) -> Tensor:
    from fairway.kernels.triton_mlp import launch_backward

    return launch_backward(grad, down, before, slope)


@_product_times_derivative.register_fake
def _backward_shapes(grad: Tensor, down: Tensor, before: Tensor, slope: float) -> Tensor:
    del grad, down, slope
    return before.new_empty(before.shape)

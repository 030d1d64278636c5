"""AdamW for the embedding and the scalar parameters: torch's fused kernel, with its state present from the start."""

from collections.abc import Iterable

import torch

from fairway.config import AdamConfig


def adamw(parameters: Iterable[torch.nn.Parameter], config: AdamConfig) -> torch.optim.AdamW:
    """AdamW with decoupled decay for one group: ``w (1 - rate decay) - rate m^ / (sqrt(v^) + eps)``.

    The fused kernel computes a step in float32 and rounds once per stored tensor, so a bfloat16 parameter with bfloat16
    moments behaves as in the published systems; the unfused one rounds in between. Moments and step count exist before
    the first step, so a saved state always has the same names.

    Args:
        parameters: Parameters of the group; moments take their type.
        config: Learning rate, betas, epsilon and decay.

    Source: arXiv 1711.05101.
    """
    optimizer = torch.optim.AdamW(
        parameters,
        lr=config.learning_rate,
        betas=(config.beta1, config.beta2),
        eps=config.epsilon,
        weight_decay=config.weight_decay,
        fused=True,
    )
    for parameter in optimizer.param_groups[0]["params"]:
        optimizer.state[parameter].update(
            step=torch.zeros((), dtype=torch.float32, device=parameter.device),
            exp_avg=torch.zeros_like(parameter),
            exp_avg_sq=torch.zeros_like(parameter),
        )
    return optimizer

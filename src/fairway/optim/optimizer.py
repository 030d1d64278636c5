"""The three optimizers of a network behind one step, one clip and one flat state."""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fairway.base.errors import DataError
from fairway.config import OptimConfig
from fairway.optim.adamw import adamw
from fairway.optim.clip import clip_gradients
from fairway.optim.muon import Muon
from fairway.optim.rules import Group, parameter_groups
from fairway.optim.schedules import ScheduleValues


class Optimizers:
    """Muon for the matrices, AdamW for the embedding and the scalars; build with `build`."""

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        optimizers: Mapping[Group, torch.optim.Optimizer],
        config: OptimConfig,
    ) -> None:
        """Hold optimizers that are made already.

        Args:
            parameters: All parameters by name, in the same order on every rank.
            optimizers: One per group; each parameter is in one of them.
            config: Base learning rates and the gradient clip.
        """
        self.parameters, self.optimizers, self.config = dict(parameters), dict(optimizers), config

    def clip_and_step(self, values: ScheduleValues) -> Float[Tensor, ""]:
        """Clip the averaged gradients jointly, take one step, and return the norm before clipping, still on the device."""
        norm = clip_gradients(self.parameters.values(), self.config.gradient_clip)
        self.step(values)
        return norm

    def step(self, values: ScheduleValues) -> None:
        """One step of all groups with the scheduled multiplier and momentum; gradients stay until `zero_grad`."""
        for group, optimizer in self.optimizers.items():
            settings = optimizer.param_groups[0]
            settings["lr"] = getattr(self.config, group).learning_rate * values.learning_rate
            if isinstance(optimizer, Muon):
                settings["momentum"] = values.momentum
            optimizer.step()

    def zero_grad(self) -> None:
        """Release all gradients."""
        for parameter in self.parameters.values():
            parameter.grad = None

    def state_dict(self) -> dict[str, Tensor]:
        """Every momentum, moment and step count as ``parameter name/kind`` -> tensor, ready for safetensors.

        The names are the same before and after the first step and for any number of ranks. The tensors are the live ones:
        clone them to keep them. Scheduled rates are no part of the state; they follow from progress.
        """
        return {
            f"{name}/{kind}": value
            for name, parameter in self.parameters.items()
            for optimizer in self.optimizers.values()
            for kind, value in optimizer.state.get(parameter, {}).items()
        }

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Copy a state into the live tensors; bit-exact.

        Raises:
            DataError: a name, a shape or a type differs from this network's.
        """
        own = self.state_dict()
        if own.keys() != state.keys():
            odd = sorted(own.keys() ^ state.keys())
            raise DataError(f"optimizer state does not match the network at {odd[0]}; resume with the recipe that wrote it")
        for name, live in own.items():
            saved = state[name]
            if saved.shape != live.shape or saved.dtype != live.dtype:
                raise DataError(
                    f"optimizer state {name} is {saved.dtype} {tuple(saved.shape)}, not {live.dtype} {tuple(live.shape)}; "
                    "resume with the recipe and the precision that wrote it"
                )
        for name, live in own.items():
            live.copy_(state[name])


def build(
    model: nn.Module, config: OptimConfig, *, world_size: int = 1, rank: int = 0, low_precision: bool = False
) -> Optimizers:
    """Give every parameter of ``model`` its optimizer, by name and with exact cover.

    Args:
        model: The raw network (neither compiled nor wrapped), on its device.
        config: Settings of the three groups.
        world_size: Ranks that step together with averaged gradients.
        rank: This rank.
        low_precision: Train in bfloat16: Newton-Schulz runs in it on a GPU, and the embedding with its moments is stored
            in it where ``config.embedding_bfloat16``. The embedding is converted here, in place, before any gradient exists.

    Raises:
        RecipeError: a parameter has no optimizer group or several.
    """
    parameters = dict(model.named_parameters())
    groups = parameter_groups(parameters)
    members: dict[Group, list[nn.Parameter]] = {"matrices": [], "embedding": [], "scalars": []}
    for name, group in groups.items():
        members[group].append(parameters[name])
    if low_precision and config.embedding_bfloat16:
        for embedding in members["embedding"]:
            embedding.data = embedding.data.to(torch.bfloat16)
    matrices = config.matrices
    # A CPU without bfloat16 units multiplies such matrices a hundred times slower than float32 ones.
    low_products = low_precision and members["matrices"][0].is_cuda
    muon = Muon(
        members["matrices"],
        learning_rate=matrices.learning_rate,
        momentum=matrices.momentum_start,
        weight_decay=matrices.weight_decay,
        steps=matrices.newton_schulz_steps,
        row_normalize=matrices.row_normalize,
        dtype=torch.bfloat16 if low_products else torch.float32,
        world_size=world_size,
        rank=rank,
    )
    optimizers: dict[Group, torch.optim.Optimizer] = {
        "matrices": muon,
        "embedding": adamw(members["embedding"], config.embedding),
        "scalars": adamw(members["scalars"], config.scalars),
    }
    return Optimizers(parameters, optimizers, config)

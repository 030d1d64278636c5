"""The three optimizers of a network behind one reduction, one clip, one step and one flat state."""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fairway.base.errors import DataError
from fairway.config import OptimConfig
from fairway.optim.adamw import adamw
from fairway.optim.banked_muon import BankedMuon
from fairway.optim.clip import clip_gradients
from fairway.optim.collectives import sum_gradients_
from fairway.optim.muon import Muon
from fairway.optim.newton_schulz import COEFFICIENTS
from fairway.optim.rules import Group, parameter_groups
from fairway.optim.schedules import ScheduleValues
from fairway.optim.side_stream import SideStream

LAYOUTS: dict[str, type[Muon]] = {"per_matrix": Muon, "banked": BankedMuon}
"""By the names of ``optim.matrices.layout``."""


class Optimizers:
    """Muon for the matrices, AdamW for the embedding and the scalars; build with `build`."""

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        muon: Muon,
        adams: Mapping[Group, torch.optim.AdamW],
        config: OptimConfig,
    ) -> None:
        """Hold optimizers that are made already.

        Args:
            parameters: All parameters by name, in the same order on every rank.
            muon: The optimizer of the matrices; it knows the ranks.
            adams: One optimizer for each other group; each parameter is in one optimizer.
            config: Base learning rates and the gradient clip.
        """
        self.parameters, self.muon, self.adams, self.config = dict(parameters), muon, dict(adams), config
        self.optimizers: dict[Group, torch.optim.Optimizer] = {"matrices": muon, **adams}
        others = [parameter for adam in adams.values() for parameter in adam.param_groups[0]["params"]]
        self.shared = [*muon.shared_gradients(), *others]
        self.side = SideStream(others[0].device)

    def reduce_clip_and_step(self, values: ScheduleValues) -> Float[Tensor, ""]:
        """Sum every rank's gradients, clip them jointly and take one step; the same maths for any layout and any ranks.

        Returns:
            Norm of the summed gradients before clipping, still on the device.
        """
        self.muon.start_reduction()
        if self.muon.world_size > 1:
            sum_gradients_(self.shared)
        shards = self.muon.finish_reduction()
        norm = clip_gradients(self.shared, self.config.gradient_clip, shards, self.muon.world_size)
        self.step(values)
        return norm

    def step(self, values: ScheduleValues) -> None:
        """One step of all groups with the scheduled multiplier and momentum; gradients stay until `zero_grad`."""
        for group, optimizer in self.optimizers.items():
            optimizer.param_groups[0]["lr"] = getattr(self.config, group).learning_rate * values.learning_rate
        self.muon.param_groups[0]["momentum"] = values.momentum
        with self.side.beside():
            for adam in self.adams.values():
                adam.step()
        self.muon.step()
        self.side.join()

    def zero_grad(self) -> None:
        """Release all gradients, or fill them with zeros where they live in a bank."""
        for optimizer in self.optimizers.values():
            optimizer.zero_grad()

    def synchronize(self) -> None:
        """Make `state_dict` whole on every rank. All ranks call it, before one of them saves."""
        self.muon.synchronize()

    def state_dict(self) -> dict[str, Tensor]:
        """Every momentum, moment and step count as ``parameter name/kind`` -> tensor, ready for safetensors.

        The names are the same before and after the first step, for any layout and any number of ranks. The tensors are the
        live ones: clone them to keep them, and call `synchronize` first where there are several ranks. Scheduled rates are
        no part of the state; they follow from progress.
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
        model: The raw network (neither compiled nor wrapped), on its device: banks fix where its matrices are stored.
            Parameters that need no gradient are left alone.
        config: Settings of the three groups.
        world_size: Ranks that step together; each has the gradients of its own rows.
        rank: This rank.
        low_precision: Train in bfloat16: Newton-Schulz runs in it on a GPU, and the embedding with its moments is stored
            in it where ``config.embedding_bfloat16``. The embedding is converted here, in place, before any gradient exists.

    Raises:
        RecipeError: a parameter has no optimizer group or several.
    """
    parameters = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
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
    muon = LAYOUTS[matrices.layout](
        members["matrices"],
        learning_rate=matrices.learning_rate,
        momentum=matrices.momentum_start,
        weight_decay=matrices.weight_decay,
        steps=matrices.newton_schulz_steps,
        row_normalize=matrices.row_normalize,
        coefficients=COEFFICIENTS[matrices.coefficients],
        dtype=torch.bfloat16 if low_products else members["matrices"][0].dtype,
        world_size=world_size,
        rank=rank,
    )
    adams: dict[Group, torch.optim.AdamW] = {
        "embedding": adamw(members["embedding"], config.embedding),
        "scalars": adamw(members["scalars"], config.scalars),
    }
    return Optimizers(parameters, muon, adams, config)

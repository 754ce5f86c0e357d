"""What updates change, as whole fp32 tensors under parameter names, however an engine spreads it over processes.

Weights and AdamW's two moments and step count are all the state an update has. In this form they do not depend on the
number of processes or the ZeRO stage, and carry over between them without loss.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Any

import torch
from torch import Tensor, nn


class Part(StrEnum):
    """A tensor that every trained parameter has; the values are AdamW's names."""

    WEIGHT = "weight"
    FIRST_MOMENT = "exp_avg"
    SECOND_MOMENT = "exp_avg_sq"

    @property
    def key(self) -> str | None:
        """Key of the optimizer's state; None for the weight itself."""
        return None if self is Part.WEIGHT else self.value


MOMENTS = (Part.FIRST_MOMENT, Part.SECOND_MOMENT)


class TrainedState(ABC):
    """Read and write the trained weights and their optimizer state. Collective methods need every process.

    `shapes` are the parameters' own: an engine may have flattened them or given scalars an axis.
    """

    def __init__(self, *, trainable: Mapping[str, nn.Parameter], shapes: Mapping[str, torch.Size]) -> None:
        self.trainable = dict(trainable)
        self.shapes = {name: shapes[name] for name in self.trainable}

    @abstractmethod
    def shares(self) -> list[Tensor]:
        """Return the fp32 weights that this process updates: its part of them, in the engine's own storage."""

    @abstractmethod
    def follow(self) -> None:
        """Make the weights of the forward pass those of `shares` (collective)."""

    @abstractmethod
    def ensure_moments(self) -> None:
        """Give parameters that no update has reached yet the state AdamW would start with."""

    @abstractmethod
    def steps(self) -> dict[str, int]:
        """Return the number of updates behind every parameter's moments."""

    @abstractmethod
    def set_steps(self, steps: Mapping[str, int]) -> None:
        """Set them; engines that count for all parameters together take the largest."""

    @abstractmethod
    def _read(self, part: Part, parameter: nn.Parameter) -> Tensor:
        """Return a whole tensor (collective)."""

    @abstractmethod
    def _write(self, part: Part, parameter: nn.Parameter, value: Tensor) -> None:
        """Keep this process's part of a whole tensor."""

    def read(self, part: Part) -> Iterator[tuple[str, Tensor]]:
        """Yield name and whole fp32 tensor of every parameter, on every process (collective)."""
        if part.key is not None:
            self.ensure_moments()
        for name, parameter in self.trainable.items():
            yield name, self._read(part, parameter).detach().float().reshape(self.shapes[name])

    def write(self, part: Part, name: str, value: Tensor) -> None:
        """Set a whole tensor; weights reach the forward pass with the next `follow`."""
        assert value.shape == self.shapes[name], f"{name}: {tuple(value.shape)}"
        if part.key is not None:
            self.ensure_moments()
        with torch.no_grad():
            self._write(part, self.trainable[name], value)


class ReplicatedState(TrainedState):
    """Of `single` and `ddp`: every process holds everything."""

    def __init__(
        self,
        *,
        trainable: Mapping[str, nn.Parameter],
        shapes: Mapping[str, torch.Size],
        optimizer: torch.optim.Optimizer,
    ) -> None:
        super().__init__(trainable=trainable, shapes=shapes)
        self._optimizer = optimizer

    def shares(self) -> list[Tensor]:
        """Return the parameters themselves."""
        return [parameter.detach() for parameter in self.trainable.values()]

    def follow(self) -> None:
        """Do nothing: there is one copy."""

    def ensure_moments(self) -> None:
        """Give parameters that no update has reached yet the state AdamW would start with."""
        for parameter in self.trainable.values():
            _ensure_moments(self._optimizer.state, parameter)

    def steps(self) -> dict[str, int]:
        """Return the number of updates behind every parameter's moments."""
        self.ensure_moments()
        return {name: int(self._optimizer.state[parameter]["step"]) for name, parameter in self.trainable.items()}

    def set_steps(self, steps: Mapping[str, int]) -> None:
        """Set them, parameter by parameter."""
        self.ensure_moments()
        for name, parameter in self.trainable.items():
            self._optimizer.state[parameter]["step"].fill_(float(steps[name]))

    def _read(self, part: Part, parameter: nn.Parameter) -> Tensor:
        return parameter if part.key is None else self._optimizer.state[parameter][part.key]

    def _write(self, part: Part, parameter: nn.Parameter, value: Tensor) -> None:
        self._read(part, parameter).detach().copy_(value)


class _ZeroState(TrainedState):
    """Of ZeRO: flat fp32 tensors, one process's part of them, beside the weights that the forward pass uses."""

    def __init__(
        self, *, trainable: Mapping[str, nn.Parameter], shapes: Mapping[str, torch.Size], optimizer: Any
    ) -> None:
        super().__init__(trainable=trainable, shapes=shapes)
        self._zero = optimizer

    def steps(self) -> dict[str, int]:
        """Return the number of updates behind every parameter's moments."""
        self.ensure_moments()
        (step,) = {int(self._zero.optimizer.state[flat]["step"]) for flat in self.shares()}
        return dict.fromkeys(self.trainable, step)

    def set_steps(self, steps: Mapping[str, int]) -> None:
        """Set them: all parameters were updated equally often, wherever every one takes part in the loss."""
        self.ensure_moments()
        for flat in self.shares():
            self._zero.optimizer.state[flat]["step"].fill_(float(max(steps.values())))

    def ensure_moments(self) -> None:
        """Give flat tensors that no update has reached yet the state AdamW would start with."""
        for flat in self.shares():
            _ensure_moments(self._zero.optimizer.state, flat)


class PartitionedState(_ZeroState):
    """Of ZeRO-1 and 2: parameters are whole, their fp32 masters and moments one flat tensor, cut into equal parts."""

    def shares(self) -> list[Tensor]:
        """Return this process's part of the flat masters."""
        return list(self._zero.single_partition_of_fp32_groups)

    def follow(self) -> None:
        """Copy masters to parameters (collective)."""
        self._zero.update_lp_params()

    def ensure_moments(self) -> None:
        """Create what AdamW would start with, and let DeepSpeed find it: it links moments to parameters only once."""
        super().ensure_moments()
        self._zero._hp_optimizer_states_linked = False
        self._zero._lazy_init_hp_params_optimizer_state()

    def _read(self, part: Part, parameter: nn.Parameter) -> Tensor:
        from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

        if part.key is None:
            return safe_get_full_fp32_param(parameter)
        return safe_get_full_optimizer_state(parameter, part.key)

    def _write(self, part: Part, parameter: nn.Parameter, value: Tensor) -> None:
        from deepspeed.utils import safe_set_full_fp32_param, safe_set_full_optimizer_state

        if part.key is None:
            safe_set_full_fp32_param(parameter, value)
        else:
            safe_set_full_optimizer_state(parameter, value, part.key)


class ShardedState(_ZeroState):
    """Of ZeRO-3: every parameter is cut into equal parts, the last one padded."""

    def shares(self) -> list[Tensor]:
        """Return this process's part of the flat masters."""
        return list(self._zero.fp32_partitioned_groups_flat)

    def follow(self) -> None:
        """Copy masters to parameters (collective)."""
        from deepspeed import zero

        for parameter in self.trainable.values():
            whole = self._read(Part.WEIGHT, parameter)
            with torch.no_grad(), zero.GatheredParameters([parameter], modifier_rank=0):
                parameter.data.copy_(whole.reshape(parameter.shape))

    def _read(self, part: Part, parameter: nn.Parameter) -> Tensor:
        from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

        if part.key is None:
            return safe_get_full_fp32_param(parameter)
        return safe_get_full_optimizer_state(parameter, part.key)

    def _write(self, part: Part, parameter: nn.Parameter, value: Tensor) -> None:
        from deepspeed.utils import safe_set_local_fp32_param, safe_set_local_optimizer_state

        # DeepSpeed's setter of whole tensors cannot write the last part of one that does not divide evenly.
        sharded: Any = parameter
        size = sharded.ds_tensor.numel()
        start = size * torch.distributed.get_rank()
        share = value.new_zeros(size)
        values = value.flatten()[start : start + size]
        share[: values.numel()] = values
        if part.key is None:
            safe_set_local_fp32_param(parameter, share)
        else:
            safe_set_local_optimizer_state(parameter, share, part.key)


def _ensure_moments(state: Any, parameter: Tensor) -> None:
    if not state[parameter]:
        state[parameter] = {
            "step": torch.tensor(0.0),
            Part.FIRST_MOMENT.value: torch.zeros_like(parameter),
            Part.SECOND_MOMENT.value: torch.zeros_like(parameter),
        }

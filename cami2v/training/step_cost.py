"""What one training step computes and keeps in memory, counted from the model without running it."""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from cami2v.attention.shapes import count_attention
from cami2v.batch import ClipBatch, Movable
from cami2v.draws import Draws
from cami2v.model import VideoDiffusion
from cami2v.training.engine import autocast

Moved = TypeVar("Moved", bound=Movable)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepCost:
    """Cost of one forward and backward pass over one micro-batch on one device."""

    parameters: int
    trained_parameters: int
    working_bytes: int
    """Most memory held at once besides weights: activations, temporaries, the gradients of trained weights."""
    floating_point_operations: int
    """Of matrix products, convolutions and attention, forward and backward; attention as if nothing were masked,
    activation checkpointing's second forward pass included."""


def step_cost(
    skeleton: VideoDiffusion, batch: ClipBatch, *, autocast_dtype: torch.dtype | None, parameter_dtype: torch.dtype
) -> StepCost:
    """Count one training step of `skeleton`, a model on the meta device whose `requires_grad` flags are set.

    Nothing is computed: every tensor is a description. `skeleton` cannot be used afterwards.
    """
    parameters = [parameter.numel() for parameter in skeleton.parameters()]
    trained = [parameter.numel() for parameter in skeleton.parameters() if parameter.requires_grad]
    count_attention(skeleton)
    skeleton.train()
    for parameter in skeleton.parameters():
        parameter.data = parameter.data.to(parameter_dtype)
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    with fake:
        model = skeleton.to_empty(device="cpu")
        counted = _Counter(model)
        with counted, autocast(autocast_dtype, torch.device("cpu")):
            _step(model, _described(batch, fake.from_tensor), Draws(batch.seeds))
    return StepCost(
        parameters=sum(parameters),
        trained_parameters=sum(trained),
        working_bytes=counted.peak,
        floating_point_operations=counted.operations,
    )


def _step(model: VideoDiffusion, batch: ClipBatch, draws: Draws) -> None:
    """Do what `VideoDiffusion.forward` does, without the draws whose values decide what is computed."""
    first = torch.zeros(len(batch.clip_ids), dtype=torch.int64)
    clips = model.encode(batch, draws, condition_frame=first, drop=False)
    condition = model.camera.encode(clips.cameras, condition_frame=first, draws=draws)
    predicted = model.backbone(torch.empty(clips.latents.shape), first, clips.conditioning, condition)
    model.objective.per_sample(predicted, torch.empty(clips.latents.shape)).mean().backward()


def _described(item: Moved, describe: Callable[[Tensor], Tensor]) -> Moved:
    """Return a copy of a tensor dataclass with every tensor replaced by its description."""
    replaced: dict[str, Any] = {}
    for field in dataclasses.fields(item):  # type: ignore[arg-type]  # every subclass is a dataclass
        value = getattr(item, field.name)
        if isinstance(value, Movable):
            value = _described(value, describe)
        replaced[field.name] = describe(value) if isinstance(value, Tensor) else value
    return type(item)(**replaced)


class _Counter(TorchDispatchMode):
    """Adds up operations, and the storages that are alive, but those of weights and buffers.

    PyTorch's FlopCounterMode would do for operations alone: its hooks keep alive what checkpointing computes again.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.now = 0
        self.peak = 0
        self.operations = 0
        weights = (*model.parameters(), *model.buffers())
        self._known = weakref.WeakSet(weight.untyped_storage() for weight in weights)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if (operations := flop_registry.get(func.overloadpacket)) is not None:
            self.operations += int(operations(*args, **(kwargs or {}), out_val=result))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor) and leaf.untyped_storage() not in self._known:
                self._add(leaf.untyped_storage())
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        size = storage.nbytes()
        self._known.add(storage)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._free, size)

    def _free(self, size: int) -> None:
        self.now -= size

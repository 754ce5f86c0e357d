"""Exponential moving average of the trained weights, kept where the optimizer keeps its fp32 weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from cami2v.training.trained_state import Part, TrainedState


@dataclass(frozen=True, slots=True, kw_only=True)
class EmaSettings:
    """Settings of conf/ema."""

    decay: float | None
    """Share of the old average that an update keeps; null: no average."""
    warmup: bool
    """Keep at most (1 + step) / (10 + step), so that the average forgets the initial weights."""
    in_validation: bool
    """Validate the average instead of the trained weights."""

    def __post_init__(self) -> None:
        """Raise ValueError for a decay that averages nothing, or forever."""
        if self.decay is not None and not 0 < self.decay < 1:
            raise ValueError(f"ema.decay: got {self.decay}, expected a number between 0 and 1, or null for no average")
        if self.in_validation and self.decay is None:
            raise ValueError("ema.in_validation: got true, but ema.decay is null: there is no average; use ema=default")

    def decay_at(self, step: int) -> float:
        """Return the decay of the update that follows optimizer step `step`; nothing of it needs to be saved."""
        assert self.decay is not None
        return min(self.decay, (1 + step) / (10 + step)) if self.warmup else self.decay


class WeightAverage:
    """The average of what this process updates. It starts from the present weights.

    Every process averages its own share in fp32, element by element, so the average does not depend on the engine.
    """

    def __init__(self, state: TrainedState, settings: EmaSettings) -> None:
        self._state = state
        self.settings = settings
        self._averages: list[Tensor] = []
        self.restart()

    @torch.no_grad()
    def restart(self) -> None:
        """Start from the present weights."""
        self._averages = [share.detach().clone() for share in self._state.shares()]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after optimizer step `step`."""
        weight = 1 - self.settings.decay_at(step)
        for average, share in zip(self._averages, self._state.shares(), strict=True):
            average.lerp_(share, weight)

    def read(self) -> Iterator[tuple[str, Tensor]]:
        """Yield name and whole average of every trained parameter, on every process (collective; read to the end)."""
        self._exchange()
        try:
            yield from ((name, value.clone()) for name, value in self._state.read(Part.WEIGHT))
        finally:
            self._exchange()

    def load(self, tensor: Callable[[str], Tensor]) -> None:
        """Take the average from whole tensors, asked for by name."""
        self._exchange()
        try:
            for name in self._state.trainable:
                self._state.write(Part.WEIGHT, name, tensor(name))
        finally:
            self._exchange()

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Put the average in the place of the trained weights, and those back afterwards, bit for bit (collective)."""
        self._exchange()
        self._state.follow()
        try:
            yield
        finally:
            self._exchange()
            self._state.follow()

    @torch.no_grad()
    def _exchange(self) -> None:
        for average, share in zip(self._averages, self._state.shares(), strict=True):
            kept = share.detach().clone()
            share.copy_(average)
            average.copy_(kept)

"""AdamW and its learning-rate schedule, a pure function of the step: nothing of it needs to be saved."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizerSettings:
    """Settings of conf/optimizer."""

    learning_rate: float
    betas: tuple[float, float]
    epsilon: float
    weight_decay: float
    schedule: Literal["constant", "cosine"]
    """After the warm-up; `cosine` falls to zero at trainer.max_steps."""
    warmup_steps: int
    fused: bool = False
    """Update all weights in one kernel: fewer passes over memory, results equal to rounding only."""

    def __post_init__(self) -> None:
        """Raise ValueError for values no optimizer can work with."""
        for key, valid, allowed in (
            ("learning_rate", self.learning_rate > 0, "a number above 0"),
            ("betas", all(0 <= beta < 1 for beta in self.betas), "two numbers in [0, 1)"),
            ("epsilon", self.epsilon > 0, "a number above 0"),
            ("weight_decay", self.weight_decay >= 0, "a number of at least 0"),
            ("warmup_steps", self.warmup_steps >= 0, "a number of at least 0"),
        ):
            if not valid:
                raise ValueError(f"optimizer.{key}: got {getattr(self, key)}, expected {allowed}")

    def learning_rate_at(self, step: int, max_steps: int) -> float:
        """Return the learning rate of the update that takes `step` finished updates to `step + 1`."""
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / self.warmup_steps
        if self.schedule == "constant":
            return self.learning_rate
        progress = (step - self.warmup_steps) / max(1, max_steps - self.warmup_steps)
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def build_optimizer(settings: OptimizerSettings, parameters: Iterable[nn.Parameter]) -> torch.optim.AdamW:
    """Build AdamW with a single parameter group (ZeRO checkpoints with several are fragile)."""
    return torch.optim.AdamW(
        parameters,
        lr=settings.learning_rate,
        betas=settings.betas,
        eps=settings.epsilon,
        weight_decay=settings.weight_decay,
        fused=settings.fused or None,  # None: torch chooses among the others
    )

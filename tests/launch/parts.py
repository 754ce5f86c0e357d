"""Parts for the tests of launch/: plain classes with typed keyword-only arguments."""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal


class Policy(enum.StrEnum):
    """A choice."""

    RELATIVE = "relative"
    METRIC = "metric"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """Settings inside a part."""

    low: float
    high: float = 1.0


class Encoder:
    """An inner part."""

    def __init__(self, *, channels: int) -> None:
        self.channels = channels


class Camera:
    """A part with every kind of argument that configs use."""

    def __init__(
        self,
        *,
        widths: tuple[int, ...],
        adapter_for: Callable[[int], Encoder | None] | None = None,
        downsample: int = 8,
        scale: float = 1.0,
        size: tuple[int, int] | None = None,
        insertion: Literal["main_branch", "temporal_attention"] = "main_branch",
        policy: Policy = Policy.RELATIVE,
        stride: int | Sequence[int] = 1,
        bounds: Bounds | None = None,
        encoder: Encoder | None = None,
        levels: dict[str, float] | None = None,
        folder: Path | None = None,
    ) -> None:
        self.widths, self.adapter_for, self.downsample, self.scale = widths, adapter_for, downsample, scale
        self.size, self.insertion, self.policy, self.stride = size, insertion, policy, stride
        self.bounds, self.encoder, self.levels, self.folder = bounds, encoder, levels, folder


class NeedsRuntime:
    """A part that the program completes."""

    def __init__(self, *, width: int, make: Callable[[int], int], rank: int) -> None:
        self.product = make(width) + rank


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainerSettings:
    """Settings without behaviour."""

    max_steps: int
    trainable: Literal["camera", "all"] | list[str] = "camera"
    clip: float | None = None

    def validate(self) -> None:
        """Raise ValueError outside the allowed range."""
        if self.max_steps < 1:
            raise ValueError(f"trainer.max_steps: got {self.max_steps}, expected at least 1")

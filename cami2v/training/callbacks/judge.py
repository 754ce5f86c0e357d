"""Who judges validation samples beside their loss. Apart from what does it, whose libraries are loaded on demand."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor

from cami2v.batch import ClipBatch
from cami2v.training.callbacks.base import RunContext


@dataclass(frozen=True, slots=True, kw_only=True)
class CameraErrorSettings:
    """Settings of conf/camera_error."""

    every_validations: int
    """0: never."""
    trials: int
    """Runs of the estimator per video."""
    processes: int
    """That estimate, of one thread each."""
    estimator: Any
    """A pose estimator, or its config node; not named here, because naming it imports pycolmap."""

    def __post_init__(self) -> None:
        """Raise ValueError for values out of range."""
        if self.every_validations < 0:
            raise ValueError(f"camera_error.every_validations: got {self.every_validations}, expected at least 0")
        for key in ("trials", "processes"):
            if getattr(self, key) < 1:
                raise ValueError(f"camera_error.{key}: got {getattr(self, key)}, expected at least 1")
        if self.every_validations and self.estimator is None:
            raise ValueError("camera_error.estimator: got null, expected a pose estimator; use camera_error=default")


class SampleJudge(ABC):
    """Adds columns to the row of a validation."""

    @abstractmethod
    def due(self, run: RunContext) -> bool:
        """Tell whether it judges at this step; the same on all processes."""

    @abstractmethod
    def keep(self, run: RunContext, clip: ClipBatch, sample: Float[Tensor, "1 3 frames height width"]) -> None:
        """Take a sample, on the process that made it."""

    @abstractmethod
    def measure(self, run: RunContext) -> dict[str, Any]:
        """Return the columns, once all processes have given their samples (main process only)."""

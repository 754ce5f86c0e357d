"""Classifier-free guidance for text, image and camera."""

from __future__ import annotations

import math
from enum import StrEnum
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor


class Branch(StrEnum):
    """Which conditions one evaluation of the denoiser receives."""

    CONDITIONAL = "conditional"
    UNCONDITIONAL = "unconditional"
    """Empty text and no image embedding; the camera is kept."""
    CONDITIONAL_WITHOUT_CAMERA = "conditional_without_camera"


class Guidance:
    """Combines the denoiser's branches.

    Args:
        scale: classifier-free guidance scale (arXiv 2207.12598); 1 switches all guidance off.
        rescale: how far the guided output's deviation returns to the conditional one's (arXiv 2305.08891, equation 16).
        camera_scale: extra guidance along the camera's effect; 1 for none.
        camera_schedule: `constant`, or `cosine`, which fades camera guidance out towards low noise.
    """

    def __init__(
        self, *, scale: float, rescale: float, camera_scale: float, camera_schedule: Literal["constant", "cosine"]
    ) -> None:
        if scale == 1 and camera_scale != 1:
            raise ValueError(
                f"sampler.guidance.camera_scale is {camera_scale} while sampler.guidance.scale is 1, which switches "
                "all guidance off; set camera_scale to 1 or scale to another value"
            )
        self.scale = scale
        self.rescale = rescale
        self.camera_scale = camera_scale
        self.camera_schedule = camera_schedule

    @property
    def branches(self) -> tuple[Branch, ...]:
        """Name the branches to evaluate, in order."""
        if self.scale == 1:
            return (Branch.CONDITIONAL,)
        if self.camera_scale == 1:
            return (Branch.CONDITIONAL, Branch.UNCONDITIONAL)
        return (Branch.CONDITIONAL, Branch.UNCONDITIONAL, Branch.CONDITIONAL_WITHOUT_CAMERA)

    def combine(
        self, outputs: dict[Branch, Float[Tensor, "batch ..."]], timestep: int, timesteps: int
    ) -> Float[Tensor, "batch ..."]:
        """Guide the outputs of one step; `timesteps` is the schedule's length."""
        conditional = outputs[Branch.CONDITIONAL]
        if self.scale == 1:
            return conditional
        unconditional = outputs[Branch.UNCONDITIONAL]
        guided = unconditional + self.scale * (conditional - unconditional)
        if self.camera_scale != 1:
            camera_effect = conditional - outputs[Branch.CONDITIONAL_WITHOUT_CAMERA]
            guided = guided + (self.camera_scale - 1) * self._camera_weight(timestep, timesteps) * camera_effect
        if self.rescale > 0:
            # An untrained denoiser returns zeros; 0 / 0 would make them NaN.
            ratio = _standard_deviation(conditional) / _standard_deviation(guided).clamp_min(1e-12)
            guided = guided * (self.rescale * ratio + (1 - self.rescale))
        return guided

    def _camera_weight(self, timestep: int, timesteps: int) -> float:
        if self.camera_schedule == "constant":
            return 1.0
        return math.cos((1 - timestep / (timesteps - 1)) * math.pi / 2)


def _standard_deviation(values: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch ..."]:
    return torch.std(values, dim=tuple(range(1, values.ndim)), keepdim=True)

"""What every sampler is given, and what it has in common with the others."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from cami2v.diffusion.edits import NoiseSource, Step, StepEdit
from cami2v.diffusion.guidance import Branch, Guidance
from cami2v.diffusion.prediction import Prediction
from cami2v.diffusion.schedule import NoiseSchedule
from cami2v.diffusion.steps import StepSpacing

Denoiser = Callable[[Tensor, Tensor, Branch], Tensor]
"""(noisy latents, timesteps of the batch, branch) -> prediction, of the latents' shape."""

OnStep = Callable[[int, int], None]
"""Called after every step with the steps done and the steps in all; what it raises ends the sampling."""

INITIAL_NOISE = "ddim/initial"
"""Name of the first draw, the same for all samplers: a seed then starts them all from the same noise."""


@runtime_checkable
class JointDenoiser(Protocol):
    """A denoiser that can evaluate several branches in one forward pass."""

    def together(self, noisy: Tensor, timesteps: Tensor, branches: Sequence[Branch]) -> Mapping[Branch, Tensor]:
        """Return the prediction of every branch."""
        ...


class Sampler(ABC):
    """Denoises from pure noise in few steps.

    Args:
        steps: evaluations of the denoiser (per guidance branch).
        spacing: see `sampling_steps`.
        guidance: how the branches combine.
    """

    def __init__(self, *, steps: int, spacing: StepSpacing, guidance: Guidance) -> None:
        self.steps = steps
        self.spacing: StepSpacing = spacing
        self.guidance = guidance

    @abstractmethod
    def sample(
        self,
        predict: Denoiser,
        *,
        schedule: NoiseSchedule,
        prediction: Prediction,
        shape: tuple[int, ...],
        draws: NoiseSource,
        edits: Sequence[StepEdit] = (),
        on_step: OnStep | None = None,
    ) -> Float[Tensor, "batch channels frames height width"]:
        """Sample latents of `shape` (channels frames height width), one per seed of `draws`, in float32.

        Every random number is drawn by name, so that neither the batch layout nor an added edit changes the others.

        Raises:
            ValueError: see `sampling_steps` and `check_prediction`.
        """

    def _guided_output(self, predict: Denoiser, latents: Tensor, step: Step) -> Tensor:
        branches = self.guidance.branches
        if isinstance(predict, JointDenoiser):
            joint = predict.together(latents, step.timesteps, branches)
            outputs = {branch: joint[branch].float() for branch in branches}
        else:
            outputs = {branch: predict(latents, step.timesteps, branch).float() for branch in branches}
        return self.guidance.combine(outputs, step.timestep, step.schedule.timesteps)


def batch_of(timestep: int, latents: Tensor) -> Int64[Tensor, " batch"]:
    """Repeat a timestep for every sample of a batch."""
    return torch.full((latents.shape[0],), timestep, device=latents.device)

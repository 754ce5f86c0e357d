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
from cami2v.diffusion.prediction import Prediction, check_prediction
from cami2v.diffusion.schedule import NoiseSchedule
from cami2v.diffusion.steps import StepSpacing

Denoiser = Callable[[Tensor, Tensor, Branch], Tensor]
"""(noisy latents, timesteps of the batch, branch) -> prediction, of the latents' shape."""

OnStep = Callable[[int, int], None]
"""Called after every step with the steps done and the steps in all; what it raises ends the sampling."""

INITIAL_NOISE = "ddim/initial"
"""Name of the first draw, the same for all samplers."""


@runtime_checkable
class JointDenoiser(Protocol):
    """A denoiser that can evaluate several branches in one forward pass."""

    def together(self, noisy: Tensor, timesteps: Tensor, branches: Sequence[Branch]) -> Mapping[Branch, Tensor]:
        """Return the prediction of every branch."""
        ...


class Course(ABC):
    """One way through the noise levels, and what a sampler keeps while it goes it."""

    timesteps: Sequence[int]
    """Visited, highest noise first."""

    @abstractmethod
    def clean_scale(self, step: int, latents: Tensor) -> Float[Tensor, "batch ..."]:
        """Return the dynamic rescale factor of what `clean` returns, shaped to broadcast over `latents`."""

    @abstractmethod
    def clean(self, latents: Tensor, output: Tensor, step: Step) -> Tensor:
        """Recover the clean latents, which edits may change, from the guided output."""

    @abstractmethod
    def next_latents(self, latents: Tensor, output: Tensor, clean: Tensor, step: Step) -> Tensor:
        """Go to the next noise level with the edited clean latents."""


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

    @torch.no_grad()
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

        Every random number is drawn by name, `ddim/initial` and `ddim/<step index>/...`, so that neither the batch
        layout nor an added edit changes the others, and all samplers start from the same noise.

        Raises:
            ValueError: see `sampling_steps` and `check_prediction`.
        """
        check_prediction(prediction, schedule)
        course = self._course(schedule, prediction, edits)
        latents = draws.normal(INITIAL_NOISE, shape)
        for index, timestep in enumerate(course.timesteps):
            step = Step(
                index=index,
                timestep=timestep,
                timesteps=batch_of(timestep, latents),
                schedule=schedule,
                draws=draws,
                clean_scale=course.clean_scale(index, latents),
            )
            for edit in edits:
                latents = edit.before_model(latents, step)
            output = self._guided_output(predict, latents, step)
            clean = course.clean(latents, output, step)
            for edit in edits:
                clean = edit.after_prediction(clean, step)
            latents = course.next_latents(latents, output, clean, step)
            if on_step is not None:
                on_step(index + 1, len(course.timesteps))
        for edit in edits:
            latents = edit.finish(latents)
        return latents

    @abstractmethod
    def final_scale(self, schedule: NoiseSchedule) -> float:
        """Return the dynamic rescale factor that sampled latents still carry."""

    @abstractmethod
    def _course(self, schedule: NoiseSchedule, prediction: Prediction, edits: Sequence[StepEdit]) -> Course:
        """Tabulate the levels of one sampling."""

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

"""The DDIM sampler (arXiv 2010.02502)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from cami2v.diffusion.edits import Step, StepEdit
from cami2v.diffusion.guidance import Guidance
from cami2v.diffusion.prediction import Prediction, predict_clean, predict_noise
from cami2v.diffusion.sampler import Course, Sampler, batch_of
from cami2v.diffusion.schedule import NoiseSchedule
from cami2v.diffusion.steps import StepSpacing, sampling_steps


@dataclass(frozen=True, slots=True, kw_only=True)
class StepLevels:
    """Noise levels of the visited timesteps, ascending."""

    signal: Float64[Tensor, " visited"]
    """alpha_bar at the step."""
    next_signal: Float64[Tensor, " visited"]
    """alpha_bar where the step leads."""
    sigma: Float64[Tensor, " visited"]
    """Deviation of the noise that the step adds (arXiv 2010.02502, equation 16)."""


def step_levels(schedule: NoiseSchedule, visited: Sequence[int], eta: float) -> StepLevels:
    """Tabulate the noise levels between which a sampler steps.

    The last step ends at the schedule's first noise level rather than at none, as DDIM was published.
    """
    levels = schedule.alphas_cumprod.float().double()
    signal = levels[list(visited)]
    next_signal = torch.cat([levels[:1], signal[:-1]])
    sigma = eta * torch.sqrt((1 - next_signal) / (1 - signal) * (1 - signal / next_signal))
    return StepLevels(signal=signal, next_signal=next_signal, sigma=sigma)


class DDIMSampler(Sampler):
    """Denoises from pure noise in few steps, as the published systems do.

    Args:
        steps, spacing, guidance: see `Sampler`.
        eta: 0 is deterministic, 1 has the variance of ancestral sampling (arXiv 2010.02502, equation 16).
        temperature: multiplies the noise added at each step.
    """

    def __init__(self, *, steps: int, spacing: StepSpacing, eta: float, temperature: float, guidance: Guidance) -> None:
        super().__init__(steps=steps, spacing=spacing, guidance=guidance)
        self.eta = eta
        self.temperature = temperature

    def final_scale(self, schedule: NoiseSchedule) -> float:
        """Return that of the last visited timestep, which latents keep (as published)."""
        last = sampling_steps(self.spacing, self.steps, schedule.timesteps)[0]
        return float(schedule.latent_scale(torch.tensor([last]), 1))

    def _course(self, schedule: NoiseSchedule, prediction: Prediction, edits: Sequence[StepEdit]) -> DDIMCourse:
        return DDIMCourse(self, schedule, prediction)


class DDIMCourse(Course):
    """A sampling by DDIM."""

    def __init__(self, sampler: DDIMSampler, schedule: NoiseSchedule, prediction: Prediction) -> None:
        ascending = sampling_steps(sampler.spacing, sampler.steps, schedule.timesteps)
        levels = step_levels(schedule, ascending, sampler.eta)
        self.timesteps = ascending[::-1]
        self.next_signal, self.sigma = levels.next_signal.flip(0).tolist(), levels.sigma.flip(0).tolist()
        self.temperature = sampler.temperature
        self.schedule = schedule
        self.prediction = prediction

    def clean_scale(self, step: int, latents: Tensor) -> Float[Tensor, "batch ..."]:
        """Return that of the next visited timestep."""
        following = self.timesteps[min(step + 1, len(self.timesteps) - 1)]
        return self.schedule.latent_scale(batch_of(following, latents), latents.ndim)

    def clean(self, latents: Tensor, output: Tensor, step: Step) -> Tensor:
        """Predict clean latents, brought from this timestep's dynamic rescale to the next one's."""
        clean = predict_clean(latents, output, step.timesteps, schedule=self.schedule, prediction=self.prediction)
        return clean * (step.clean_scale / self.schedule.latent_scale(step.timesteps, latents.ndim))

    def next_latents(self, latents: Tensor, output: Tensor, clean: Tensor, step: Step) -> Tensor:
        """Apply arXiv 2010.02502, equation 12; the predicted noise is not recomputed for an edited `clean`."""
        noise = predict_noise(latents, output, step.timesteps, schedule=self.schedule, prediction=self.prediction)
        signal, sigma = self.next_signal[step.index], self.sigma[step.index]
        direction = max(1 - signal - sigma**2, 0.0) ** 0.5
        following = signal**0.5 * clean + direction * noise
        if sigma > 0 and self.temperature > 0:
            fresh = step.draws.normal(f"ddim/{step.index}/noise", tuple(clean.shape[1:]))
            following = following + sigma * self.temperature * fresh
        return following

"""The DDIM sampler (arXiv 2010.02502)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from cami2v.diffusion.edits import NoiseSource, Step, StepEdit
from cami2v.diffusion.guidance import Guidance
from cami2v.diffusion.prediction import Prediction, check_prediction, predict_clean, predict_noise
from cami2v.diffusion.sampler import INITIAL_NOISE, Denoiser, OnStep, Sampler, batch_of
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

        Every random number is drawn by name, `ddim/initial` and `ddim/<step index>/noise`, so that neither the batch
        layout nor an added edit changes the others. Latents keep the dynamic rescale of the last visited timestep.

        Raises:
            ValueError: see `sampling_steps` and `check_prediction`.
        """
        check_prediction(prediction, schedule)
        visited = sampling_steps(self.spacing, self.steps, schedule.timesteps)
        levels = step_levels(schedule, visited, self.eta)
        latents = draws.normal(INITIAL_NOISE, shape)
        for index in range(len(visited)):
            position = len(visited) - 1 - index
            timestep, next_timestep = visited[position], visited[max(position - 1, 0)]
            step = Step(
                index=index,
                timestep=timestep,
                timesteps=batch_of(timestep, latents),
                schedule=schedule,
                draws=draws,
            )
            for edit in edits:
                latents = edit.before_model(latents, step)
            output = self._guided_output(predict, latents, step)
            clean = predict_clean(latents, output, step.timesteps, schedule=schedule, prediction=prediction)
            noise = predict_noise(latents, output, step.timesteps, schedule=schedule, prediction=prediction)
            next_scale = schedule.latent_scale(batch_of(next_timestep, latents), latents.ndim)
            clean = clean * (next_scale / schedule.latent_scale(step.timesteps, latents.ndim))
            for edit in edits:
                clean = edit.after_prediction(clean, step)
            latents = self._next_latents(clean, noise, levels.next_signal[position], levels.sigma[position], step)
            if on_step is not None:
                on_step(index + 1, len(visited))
        for edit in edits:
            latents = edit.finish(latents)
        return latents

    def _next_latents(
        self, clean: Tensor, noise: Tensor, next_signal: Float64[Tensor, ""], deviation: Float64[Tensor, ""], step: Step
    ) -> Tensor:
        """Apply arXiv 2010.02502, equation 12; the predicted noise is not recomputed for an edited `clean`."""
        sigma = float(deviation)
        direction = max(1 - float(next_signal) - sigma**2, 0.0) ** 0.5
        latents = float(next_signal) ** 0.5 * clean + direction * noise
        if sigma > 0 and self.temperature > 0:
            fresh = step.draws.normal(f"ddim/{step.index}/noise", tuple(clean.shape[1:]))
            latents = latents + sigma * self.temperature * fresh
        return latents

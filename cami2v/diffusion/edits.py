"""Edits that steer a sampler towards known latents, composable and applied in the order given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from cami2v.diffusion.schedule import NoiseSchedule

Latents = Float[Tensor, "batch channels frames height width"]


@runtime_checkable
class NoiseSource(Protocol):
    """Where random numbers come from: `cami2v.draws.Draws`, or listed numbers in tests."""

    def normal(self, purpose: str, shape: tuple[int, ...]) -> Tensor:
        """Draw standard normal numbers of `shape` for every sample; the batch axis comes first."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One sampling step, as an edit sees it."""

    index: int
    """Counts from 0 at the highest noise level."""
    timestep: int
    timesteps: Int64[Tensor, " batch"]
    schedule: NoiseSchedule
    draws: NoiseSource

    def add_noise(self, clean: Tensor, purpose: str) -> Tensor:
        """Bring clean latents to this step's noise level with fresh noise."""
        noise = self.draws.normal(f"ddim/{self.index}/{purpose}", tuple(clean.shape[1:]))
        return self.schedule.add_noise(clean, noise, self.timesteps)


class StepEdit:
    """What a sampler lets one change; the default changes nothing."""

    def before_model(self, latents: Latents, step: Step) -> Latents:
        """Edit the noisy latents the denoiser is about to see."""
        return latents

    def after_prediction(self, clean: Latents, step: Step) -> Latents:
        """Edit the predicted clean latents; the predicted noise keeps its value."""
        return clean

    def finish(self, latents: Latents) -> Latents:
        """Edit the final latents."""
        return latents


class Inpaint(StepEdit):
    """Keep known latents where `mask` is 1 (RePaint, arXiv 2201.09865, without resampling)."""

    def __init__(self, *, known: Latents, mask: Latents) -> None:
        self.known = known
        self.mask = mask

    def before_model(self, latents: Latents, step: Step) -> Latents:
        return step.add_noise(self.known, "inpaint") * self.mask + latents * (1 - self.mask)


class PasteConditionFrame(StepEdit):
    """Replace the conditioning frame by its true latents at every step and at the end."""

    def __init__(self, *, known: Latents, condition_frame: Int64[Tensor, " batch"]) -> None:
        self.known = known
        self.condition_frame = condition_frame

    def after_prediction(self, clean: Latents, step: Step) -> Latents:
        return self.finish(clean)

    def finish(self, latents: Latents) -> Latents:
        clips = torch.arange(latents.shape[0], device=latents.device)
        pasted = latents.clone()
        pasted[clips, :, self.condition_frame] = self.known[clips, :, self.condition_frame].to(latents.dtype)
        return pasted


class OverlapFrames(StepEdit):
    """Continue an earlier clip: its last latents are this clip's first `known.shape[2]` frames."""

    def __init__(self, *, known: Float[Tensor, "batch channels overlap height width"]) -> None:
        self.known = known

    def before_model(self, latents: Latents, step: Step) -> Latents:
        return self._paste(step.add_noise(self.known, "overlap"), latents)

    def after_prediction(self, clean: Latents, step: Step) -> Latents:
        return self._paste(self.known, clean)

    def finish(self, latents: Latents) -> Latents:
        return self._paste(self.known, latents)

    def _paste(self, known: Float[Tensor, "batch channels overlap height width"], latents: Latents) -> Latents:
        return torch.cat([known.to(latents.dtype), latents[:, :, known.shape[2] :]], dim=2)


class NoiseShaping(StepEdit):
    """Follow the latents of a rendered scene at high noise levels (RealCam-I2V, arXiv 2502.10059, section 3.4)."""

    def __init__(self, *, scene: Latents, mask: Latents, minimum_timestep: int) -> None:
        self.scene = scene
        self.mask = mask
        self.minimum_timestep = minimum_timestep

    def before_model(self, latents: Latents, step: Step) -> Latents:
        if step.timestep < self.minimum_timestep:
            return latents
        return step.add_noise(self.scene, "scene") * self.mask + latents * (1 - self.mask)

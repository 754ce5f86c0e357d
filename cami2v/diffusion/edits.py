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
    clean_scale: Float[Tensor, "batch ..."]
    """Dynamic rescale factor of the predicted clean latents."""

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
    """Replace the conditioning frame by its true latents at every step and at the end.

    `scale` as for `OverlapFrames`: 1 for latents as they are encoded.
    """

    def __init__(self, *, known: Latents, condition_frame: Int64[Tensor, " batch"], scale: float | None = None) -> None:
        self.known = known
        self.condition_frame = condition_frame
        self.scale = scale

    def after_prediction(self, clean: Latents, step: Step) -> Latents:
        return self._paste(_as_clean(self.known, self.scale, step), clean)

    def finish(self, latents: Latents) -> Latents:
        return self._paste(self.known, latents)

    def _paste(self, known: Latents, latents: Latents) -> Latents:
        clips = torch.arange(latents.shape[0], device=latents.device)
        pasted = latents.clone()
        pasted[clips, :, self.condition_frame] = known[clips, :, self.condition_frame].to(latents.dtype)
        return pasted


class OverlapFrames(StepEdit):
    """Continue an earlier clip: its last latents are this clip's first `known.shape[2]` frames.

    `scale` is the dynamic rescale factor that `known` carries (`Sampler.final_scale`); it is then brought to that of
    each step. None: pasted as it is, as published, which is too strong for models with dynamic rescale.
    """

    def __init__(
        self, *, known: Float[Tensor, "batch channels overlap height width"], scale: float | None = None
    ) -> None:
        self.known = known
        self.scale = scale

    def before_model(self, latents: Latents, step: Step) -> Latents:
        return self._paste(step.add_noise(_as_noisy(self.known, self.scale, step), "overlap"), latents)

    def after_prediction(self, clean: Latents, step: Step) -> Latents:
        return self._paste(_as_clean(self.known, self.scale, step), clean)

    def finish(self, latents: Latents) -> Latents:
        return self._paste(self.known, latents)

    def _paste(self, known: Float[Tensor, "batch channels overlap height width"], latents: Latents) -> Latents:
        return torch.cat([known.to(latents.dtype), latents[:, :, known.shape[2] :]], dim=2)


class NoiseShaping(StepEdit):
    """Follow the latents of a rendered scene at high noise levels (RealCam-I2V, arXiv 2502.10059, section 3.4).

    `mask` is 1 where the scene is known. `scale` as for `OverlapFrames`: 1 for latents as they are encoded.
    """

    def __init__(
        self,
        *,
        scene: Latents,
        mask: Float[Tensor, "batch _channels frames height width"],
        minimum_timestep: int,
        scale: float | None = None,
    ) -> None:
        self.scene = scene
        self.mask = mask
        self.minimum_timestep = minimum_timestep
        self.scale = scale

    def before_model(self, latents: Latents, step: Step) -> Latents:
        if step.timestep < self.minimum_timestep:
            return latents
        shaped = step.add_noise(_as_noisy(self.scene, self.scale, step), "scene")
        return shaped * self.mask + latents * (1 - self.mask)


def _as_clean(known: Tensor, scale: float | None, step: Step) -> Tensor:
    """Bring clean latents to the dynamic rescale of a step's predicted ones."""
    return known if scale is None else known * (step.clean_scale / scale)


def _as_noisy(known: Tensor, scale: float | None, step: Step) -> Tensor:
    """Bring clean latents to the dynamic rescale of a step's noisy ones."""
    return known if scale is None else known * (step.schedule.latent_scale(step.timesteps, known.ndim) / scale)

"""What can be chosen of how a video is sampled, whatever it shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cami2v.diffusion.steps import StepSpacing, sampling_steps
from cami2v.geometry.pose_scale import ScalePolicy
from cami2v.inference.image_clip import Compatibility
from cami2v.inference.model_facts import ModelFacts
from cami2v.inference.sampler_settings import SamplerKind, SamplerSettings
from cami2v.inference.sampling_plan import Branches, SamplingPlan
from cami2v.inference.scene import NoiseShapingRule
from cami2v.inference.scene_mask import SceneMaskRule


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingSettings:
    """Settings of sampling; None takes the model's own."""

    sampler: SamplerKind | None = None
    steps: int | None = None
    spacing: StepSpacing | None = None
    guidance_scale: float | None = None
    guidance_rescale: float | None = None
    camera_guidance: float | None = None
    camera_guidance_schedule: Literal["constant", "cosine"] | None = None
    eta: float | None = None
    order: Literal[1, 2, 3] | None = None
    condition_frame: int = 0
    """Which frame the image is."""
    paste_image: bool = False
    """Keep its frame as the image is encoded, at every step and in the end."""
    overlap: int = 4
    """Frames that the windows of a long video share."""
    compatibility: Compatibility = "none"
    branches: Branches = "separate"
    decode_frames: int | None = None
    decode_tile: int | None = None
    metres_per_unit: float | None = None
    """Trajectories are in metres, and one unit of the model's poses is so many; models trained in metres need none."""
    noise_shaping: int | None = None
    """Latents follow the rendered scene at this noise level and above; published: 900 (docs/realcam.md)."""
    scene_mask: SceneMaskRule | None = None
    """Where it is trusted; None: as published."""

    def plan(self, facts: ModelFacts, *, frames: int) -> SamplingPlan:
        """Put the model's own in the place of None. Raises ValueError in one line for what cannot be done."""
        for key in ("decode_frames", "metres_per_unit"):
            value = getattr(self, key)
            if value is not None and value <= 0:
                raise ValueError(f"{key}: got {value}, expected a number above 0")
        window = min(frames, facts.defaults.frames)
        if not 0 <= self.condition_frame < window:
            raise ValueError(f"condition_frame: got {self.condition_frame}, choose 0 to {window - 1}")
        if frames > window and not 1 <= self.overlap < window:
            raise ValueError(
                f"overlap: got {self.overlap}; {frames} frames are made in windows of {window}, choose 1 to "
                f"{window - 1}"
            )
        sampler = facts.sampler.changed(
            kind=self.sampler,
            steps=self.steps,
            spacing=self.spacing,
            guidance_scale=self.guidance_scale,
            guidance_rescale=self.guidance_rescale,
            camera_guidance=self.camera_guidance,
            camera_guidance_schedule=self.camera_guidance_schedule,
            eta=self.eta,
            order=self.order,
        )
        return SamplingPlan(
            sampler=sampler,
            window=window,
            overlap=self.overlap,
            branches=self.branches,
            decode_frames=self.decode_frames,
            decode_tile=self.decode_tile,
            condition_frame=self.condition_frame,
            noise_shaping=self._noise_shaping(sampler, facts),
            paste_image=self.paste_image,
            compatibility=self.compatibility,
        )

    def _noise_shaping(self, sampler: SamplerSettings, facts: ModelFacts) -> NoiseShapingRule | None:
        """Return the rule; raises ValueError where it could do nothing, or depth and trajectory have no common unit."""
        lowest = self.noise_shaping
        if lowest is None:
            return None
        highest = sampling_steps(sampler.spacing, sampler.steps, facts.timesteps)[-1]
        if not 0 <= lowest <= highest:
            raise ValueError(
                f"noise_shaping: got {lowest}, choose a timestep from 0 to {highest}, the highest that spacing="
                f"{sampler.spacing} visits (published: 900)"
            )
        if facts.defaults.scale_policy != ScalePolicy.METRIC and self.metres_per_unit is None:
            raise ValueError(
                f"noise_shaping: the scene is in metres, but this model's poses are not (scale policy: "
                f"{facts.defaults.scale_policy}); set metres_per_unit to the metres in one unit of its training poses"
            )
        return NoiseShapingRule(minimum_timestep=lowest, mask=self.scene_mask or SceneMaskRule())

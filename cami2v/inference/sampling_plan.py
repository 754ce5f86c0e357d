"""How the latents of a batch of videos come about: all that does not depend on pictures, captions and cameras."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cami2v.inference.image_clip import Compatibility
from cami2v.inference.sampler_settings import SamplerSettings
from cami2v.inference.scene import NoiseShapingRule

Branches = Literal["separate", "together"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingPlan:
    """What the videos of a batch have in common."""

    sampler: SamplerSettings
    window: int
    """Frames made at once; a longer video is made in windows."""
    overlap: int
    branches: Branches
    decode_frames: int | None
    decode_tile: int | None
    condition_frame: int
    """Which frame the image is."""
    noise_shaping: NoiseShapingRule | None
    paste_image: bool
    compatibility: Compatibility

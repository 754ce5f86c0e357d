"""What a model was trained for, and what requests to it depend on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cami2v.inference.sampler_settings import SamplerSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Defaults:
    """What a model was trained for."""

    frames: int
    height: int
    width: int
    frame_stride: int
    """Of its held-out clips."""
    scale_policy: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """What requests to a model need to know of it."""

    defaults: Defaults
    sampler: SamplerSettings
    multiple: int
    """Heights and widths are multiples of this."""
    ends_with_image: bool
    timesteps: int
    """Of its noise schedule."""
    constant: dict[str, Any]
    """Fields of `Request` that the loaded model decides."""

"""A model that was loaded from somewhere, and what is known of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cami2v.diffusion.sampler import Sampler
from cami2v.inference.settings import Defaults
from cami2v.model import VideoDiffusion

PARTS = ("seed", "first_stage", "camera", "backbone", "encoders", "depth", "diffusion", "sampler", "attention")
"""Keys of a training config that describe the model and its sampler."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineSource:
    """What a pipeline is made of."""

    model: VideoDiffusion
    sampler: Sampler
    config: Mapping[str, Any]
    """The `PARTS` of its config, plain values."""
    defaults: Defaults
    identity: Mapping[str, Any]
    """Which weights these are: paths and hashes, plain values."""

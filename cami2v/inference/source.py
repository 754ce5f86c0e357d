"""A model that was loaded from somewhere, and what is known of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cami2v.diffusion.sampler import Sampler
from cami2v.inference.model_facts import Defaults
from cami2v.model import VideoDiffusion

PARTS = ("seed", "first_stage", "camera", "backbone", "encoders", "depth", "diffusion", "sampler", "attention")
"""Keys of a training config that describe the model and its sampler."""

HASHES = ("sha256", "base_sha256", "files")
"""Keys of a model's identity that tell its weights."""


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


def differing_weights(before: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """Compare the identities of two models; return the key that tells other weights, None for the same."""
    return next((key for key in HASHES if _hashes(before.get(key)) != _hashes(now.get(key))), None)


def _hashes(recorded: Any) -> Any:
    """Leave out where files were."""
    if isinstance(recorded, Sequence) and not isinstance(recorded, str):
        return [each["sha256"] if isinstance(each, Mapping) else each for each in recorded]
    return recorded

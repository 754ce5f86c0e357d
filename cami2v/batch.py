"""Every type a sample passes through, in order of travel.

tar member -> RawClip -> Clip -> (resize, crop) Clip -> ClipBatch -> LatentBatch -> NoisyLatents -> StepOutput
from a cache:  RawClip -> EncodedClip -> EncodedClipBatch -> LatentBatch

Conventions, everywhere in the house: OpenCV camera axes (x right, y down, z forward); `world_to_camera` maps world
points into the camera; the centre of pixel k lies at k + 0.5; videos are in [-1, 1].
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64, Int64
from torch import Tensor

# Not typing.Self: beartype accepts that only on classes it decorates itself, jaxtyping's hook decorates methods.
Moved = TypeVar("Moved", bound="Movable")


class Movable:
    """Tensor dataclass that moves between devices as one object (Accelerate calls `to` on it)."""

    __slots__ = ()

    def to(self: Moved, device: torch.device | str, non_blocking: bool = False) -> Moved:
        """Return a copy with every tensor, nested ones included, on `device`; dtypes are untouched."""
        moved = {}
        for field in dataclasses.fields(self):  # type: ignore[arg-type]  # every subclass is a dataclass
            value = getattr(self, field.name)
            if isinstance(value, (Tensor, Movable)):
                value = value.to(device, non_blocking=non_blocking)
            moved[field.name] = value
        return type(self)(**moved)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cameras(Movable):
    """Pinhole cameras of one clip or of a batch of clips.

    Translations stay in the clip's own unit; `translation_scale` takes them to the unit of the scale policy (all ones
    under the `relative` policy). Float64 until the relative poses are formed: files carry nine digits.
    """

    world_to_camera: Float64[Tensor, "*batch frames 3 4"]
    intrinsics_pixels: Float64[Tensor, "*batch frames 4"]
    """fx fy cx cy in pixels of a `height` x `width` image."""
    translation_scale: Float64[Tensor, "*batch frames"]
    height: int
    width: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RawClip:
    """One shard sample as stored, not yet decoded (docs/data-format.md)."""

    clip_id: str
    source_id: str
    captions: tuple[str, ...]
    video: bytes
    """mp4 with one frame per pose."""
    height: int
    width: int
    pixel_aspect: float
    """Width over height of a stored pixel; 1.185 where a 16:9 frame was squashed to 3:2. A frame stretched to
    `width * pixel_aspect` columns has square pixels."""
    frames_per_second: float
    """Of the source video."""
    world_to_camera: Float64[np.ndarray, "frames 3 4"]
    intrinsics_normalized: Float64[np.ndarray, "frames 4"]
    """fx fy cx cy divided by image width and height; unaffected by stretching."""
    timestamps_microseconds: Int64[np.ndarray, " frames"]
    translation_scale: Float64[np.ndarray, " frames"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """Selected, decoded frames of one clip with the cameras that saw them."""

    clip_id: str
    caption: str
    seed: int
    """Seeds every later random draw of this sample, so that neither batch layout nor world size changes it."""
    video: Float32[Tensor, "frames 3 height width"]
    pixel_aspect: float
    cameras: Cameras
    frame_indices: Int64[Tensor, " frames"]
    frame_stride: int
    frames_per_second: float
    """Of the selected frames: the source's rate divided by the stride."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipBatch(Movable):
    """Clips of equal length and size, pixels square, ready for the model."""

    clip_ids: tuple[str, ...]
    captions: tuple[str, ...]
    seeds: Int64[Tensor, " batch"]
    video: Float32[Tensor, "batch 3 frames height width"]
    cameras: Cameras
    frame_indices: Int64[Tensor, "batch frames"]
    frame_stride: Int64[Tensor, " batch"]
    frames_per_second: Float32[Tensor, " batch"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConditionPixels(Movable):
    """The conditioning frame of each clip, from a cache without image tokens."""

    images: Float32[Tensor, "*batch 3 height width"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConditionTokens(Movable):
    """The conditioning frame of each clip as the image encoder gives it."""

    tokens: Float[Tensor, "*batch image_tokens channels"]
    blank: Float[Tensor, "image_tokens channels"]
    """Of the blank image, which takes the place of one that is dropped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedClip:
    """Selected frames of one clip as the frozen towers give them, with the cameras that saw them (docs/caches.md)."""

    clip_id: str
    caption: str
    seed: int
    moments: Float[Tensor, "frames parameters latent_height latent_width"]
    """What the first stage draws latents from."""
    text_tokens: Float[Tensor, "text_tokens context"]
    blank_text_tokens: Float[Tensor, "text_tokens context"]
    """Of the empty caption, which takes the place of one that is dropped."""
    condition_frame: int
    condition_image: ConditionPixels | ConditionTokens
    cameras: Cameras
    frame_indices: Int64[Tensor, " frames"]
    frame_stride: int
    frames_per_second: float


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedClipBatch(Movable):
    """Encoded clips of equal length and size: what a `ClipBatch` becomes behind the frozen towers."""

    clip_ids: tuple[str, ...]
    captions: tuple[str, ...]
    seeds: Int64[Tensor, " batch"]
    moments: Float[Tensor, "batch parameters frames latent_height latent_width"]
    text_tokens: Float[Tensor, "batch text_tokens context"]
    blank_text_tokens: Float[Tensor, "text_tokens context"]
    condition_frame: Int64[Tensor, " batch"]
    condition_image: ConditionPixels | ConditionTokens
    cameras: Cameras
    frame_indices: Int64[Tensor, "batch frames"]
    frame_stride: Int64[Tensor, " batch"]
    frames_per_second: Float32[Tensor, " batch"]


TrainingBatch = ClipBatch | EncodedClipBatch
"""What a training step takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SkippedClip:
    """A clip whose place in the stream another one took, because it could not be used."""

    sample: int
    """Global sample number."""
    shard: str
    clip: str
    """Sample key in the shard."""
    reason: str
    message: str
    """One line that names shard and clip."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditioning(Movable):
    """What the denoiser is told about a clip besides the cameras; constant over the denoising steps."""

    image_latents: Float[Tensor, "batch channels frames height width"]
    """Latent of the conditioning frame, repeated over all frames (concatenated to the noisy latents)."""
    text_tokens: Float[Tensor, "batch text_tokens context"]
    image_tokens: Float[Tensor, "batch image_tokens context"]
    """Frame-major groups of equal size, one group per frame."""
    frame_rate: Float32[Tensor, " batch"]
    """Frame stride or frames per second, whichever the backbone was trained with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentBatch(Movable):
    """Encoded clips."""

    seeds: Int64[Tensor, " batch"]
    latents: Float[Tensor, "batch channels frames height width"]
    conditioning: Conditioning
    cameras: Cameras
    condition_frame: Int64[Tensor, " batch"]


@dataclass(frozen=True, slots=True, kw_only=True)
class NoisyLatents(Movable):
    """Latents after forward diffusion, with what the denoiser has to predict."""

    noisy: Float[Tensor, "batch channels frames height width"]
    target: Float[Tensor, "batch channels frames height width"]
    timesteps: Int64[Tensor, " batch"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepOutput(Movable):
    """Result of one training step on one batch."""

    loss: Float[Tensor, ""]
    loss_per_sample: Float[Tensor, " batch"]
    timesteps: Int64[Tensor, " batch"]

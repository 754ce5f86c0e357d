"""From one image, a caption and a camera path to a batch that a model can animate."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from einops import repeat
from jaxtyping import Float32, Float64
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from cami2v.batch import Cameras, ClipBatch
from cami2v.geometry.framing import Framing, frame_images, frame_intrinsics, framing_for
from cami2v.trajectories.choose import choose
from cami2v.trajectories.trajectory import Trajectory, zoomed

Portrait = Literal["crop", "swap"]
"""What an image higher than wide does to the resolution: `crop` keeps it, as trained; `swap` exchanges its height and
width, as the published demo does."""

Compatibility = Literal["none", "published"]
"""`published`: resize in whole grey levels; both focal lengths half the resized image's longer side and the principal
point the crop's centre, whatever the trajectory file says (the demo of CamI2V, exact to the last digit)."""

DEFAULT_FIELD_OF_VIEW_DEGREES = 90.0
"""What the published demo assumes along the longer side of an image whose camera is unknown."""

SOURCE_FRAMES_PER_SECOND = 29.97
"""Of the training videos, as the published demo assumes; models are told this divided by the frame stride."""


def read_image(path: Path) -> Float32[Tensor, "3 height width"]:
    """Read an image to [-1, 1]. Raises ValueError for a missing or unreadable file."""
    if not path.is_file():
        raise ValueError(f"image={path}: no such file; give a PNG, JPEG or WebP image")
    try:
        pixels = np.array(Image.open(path).convert("RGB"))
    except (UnidentifiedImageError, OSError) as error:
        raise ValueError(f"image={path}: cannot be read as an image ({error})") from error
    return torch.from_numpy(pixels).permute(2, 0, 1).float() / 127.5 - 1


def choose_trajectory(source: str | Path | Mapping[str, Any], *, frames: int, extent: float | None) -> Trajectory:
    """Sample a camera path: a preset or a sum of them, a file of any format, or a description (docs/trajectories.md).

    `extent` is a preset's distance or angle (None: its own), and a factor on the translations of anything else.
    Raises ValueError for what is neither.
    """
    return choose(source, frames=frames, extent=extent)


def target_resolution(height: int, width: int, resolution: tuple[int, int], portrait: Portrait) -> tuple[int, int]:
    """Return the (height, width) that a `height` x `width` image is brought to."""
    swapped = portrait == "swap" and width < height
    return (resolution[1], resolution[0]) if swapped else resolution


def image_clip(
    image: Float32[Tensor, "3 height width"],
    trajectory: Trajectory,
    *,
    caption: str,
    resolution: tuple[int, int],
    portrait: Portrait,
    field_of_view_degrees: float | None,
    frame_stride: int,
    frames_per_second: float | None,
    seed: int,
    compatibility: Compatibility,
    last_image: Float32[Tensor, "3 other_height other_width"] | None = None,
    metres_per_unit: float = 1.0,
) -> ClipBatch:
    """Make a batch of one: the image in every frame, resized and centre-cropped, with the path's cameras.

    The horizontal field of view counts for the uncropped image; None takes the trajectory's own intrinsics, or 90
    degrees along the longer side where it has none. Pixels are square. Without `frames_per_second` the model is told
    the training videos' rate divided by the stride. `last_image` replaces the last frame; it does not change what a
    model conditioned on the first frame generates. `metres_per_unit` is how many units of the trajectory are one of the
    poses that the model was trained with.
    """
    _, old_height, old_width = image.shape
    target = target_resolution(old_height, old_width, resolution, portrait)
    framing = framing_for(old_height, old_width, target)
    frames = trajectory.world_to_camera.shape[0]
    video = repeat(_framed(image, framing, compatibility), "c h w -> 1 c t h w", t=frames).contiguous()
    if last_image is not None:
        video[0, :, -1] = _framed(
            last_image, framing_for(last_image.shape[1], last_image.shape[2], target), compatibility
        )
    if compatibility == "published":
        intrinsics = _published_intrinsics(framing, frames, field_of_view_degrees)
        intrinsics = intrinsics if trajectory.zoom is None else zoomed(intrinsics, trajectory.zoom)
    else:
        normalized = normalized_intrinsics(trajectory, field_of_view_degrees, old_height, old_width)
        intrinsics = frame_intrinsics(normalized, framing)
    rate = SOURCE_FRAMES_PER_SECOND / frame_stride if frames_per_second is None else frames_per_second
    return ClipBatch(
        clip_ids=("sample",),
        captions=(caption,),
        seeds=torch.tensor([seed]),
        video=video,
        cameras=Cameras(
            world_to_camera=trajectory.world_to_camera[None],
            intrinsics_pixels=intrinsics[None],
            translation_scale=torch.full((1, frames), 1 / metres_per_unit, dtype=torch.float64),
            height=framing.height,
            width=framing.width,
        ),
        frame_indices=torch.arange(frames)[None] * frame_stride,
        frame_stride=torch.tensor([frame_stride]),
        frames_per_second=torch.tensor([rate], dtype=torch.float32),
    )


def _framed(
    image: Float32[Tensor, "3 old_height old_width"], framing: Framing, compatibility: Compatibility
) -> Float32[Tensor, "3 height width"]:
    if compatibility == "none":
        return frame_images(image[None], framing)[0].clamp(-1, 1)
    levels = ((image + 1) * 127.5).round()
    return frame_images(levels[None], framing)[0].round().clamp(0, 255) / 127.5 - 1


def _published_intrinsics(
    framing: Framing, frames: int, field_of_view_degrees: float | None
) -> Float64[Tensor, "frames 4"]:
    if field_of_view_degrees is not None:
        raise ValueError(
            f"field_of_view_degrees={field_of_view_degrees} with compatibility=published, which guesses the focal "
            "length; set one of them to null or none"
        )
    focal = 0.5 * max(framing.resized)
    row = torch.tensor([focal, focal, framing.width / 2, framing.height / 2], dtype=torch.float64)
    return row.repeat(frames, 1)


def normalized_intrinsics(
    trajectory: Trajectory, field_of_view_degrees: float | None, height: int, width: int
) -> Float64[Tensor, "frames 4"]:
    """Return fx fy cx cy, divided by the size, of the cameras that see an image of `height` x `width` along a path.

    The angle is that along the width; None: what the trajectory says, else 90 degrees along the longer side.
    """
    own, zoom = trajectory.intrinsics_normalized, trajectory.zoom
    if own is not None and field_of_view_degrees is None:
        return own
    side = width if field_of_view_degrees is not None else max(height, width)
    degrees = DEFAULT_FIELD_OF_VIEW_DEGREES if field_of_view_degrees is None else field_of_view_degrees
    rows = field_of_view_intrinsics(degrees, side, height, width).repeat(len(trajectory.world_to_camera), 1)
    if own is not None:  # the angle replaces the file's, but not how it changes
        return torch.cat([rows[:, :2] * (own[:, :2] / own[:1, :2]), rows[:, 2:]], dim=1)
    return rows if zoom is None else zoomed(rows, zoom)


def field_of_view_intrinsics(degrees: float, side: int, height: int, width: int) -> Float64[Tensor, " 4"]:
    """Return normalized fx fy cx cy of a camera that sees `degrees` along `side` pixels of an image.

    Raises ValueError for an angle that no pinhole camera has.
    """
    if not 0 < degrees < 180:
        raise ValueError(f"field_of_view_degrees={degrees}: choose an angle between 0 and 180")
    focal_pixels = 0.5 * side / math.tan(math.radians(degrees) / 2)
    return torch.tensor([focal_pixels / width, focal_pixels / height, 0.5, 0.5], dtype=torch.float64)

"""From one image, a caption and a camera path to a batch that a model can animate."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from einops import repeat
from jaxtyping import Float32, Float64
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from cami2v.batch import Cameras, ClipBatch
from cami2v.geometry.cameras import invert_pose
from cami2v.geometry.framing import frame_images, frame_intrinsics, framing_for
from cami2v.geometry.trajectories import PRESETS, Trajectory, preset, read_trajectory, resample

DEFAULT_FIELD_OF_VIEW_DEGREES = 90.0
"""What the published demos assume of an image whose camera is unknown."""


def read_image(path: Path) -> Float32[Tensor, "3 height width"]:
    """Read an image to [-1, 1]. Raises ValueError for a missing or unreadable file."""
    if not path.is_file():
        raise ValueError(f"image={path}: no such file; give a PNG, JPEG or WebP image")
    try:
        pixels = np.array(Image.open(path).convert("RGB"))
    except (UnidentifiedImageError, OSError) as error:
        raise ValueError(f"image={path}: cannot be read as an image ({error})") from error
    return torch.from_numpy(pixels).permute(2, 0, 1).float() / 127.5 - 1


def choose_trajectory(name: str, *, frames: int, extent: float) -> Trajectory:
    """Make a preset's path or read and resample a trajectory file, `extent` times as large.

    Raises ValueError for what is neither a preset nor a file.
    """
    if name in PRESETS:
        poses = preset(name, frames, extent)
        return Trajectory(world_to_camera=invert_pose(poses)[:, :3], intrinsics_normalized=None)
    if not Path(name).is_file() and not Path(name).suffix:
        raise ValueError(f"trajectory={name}: neither a file nor a preset; the presets are {', '.join(PRESETS)}")
    path = resample(read_trajectory(name), frames)
    world_to_camera = path.world_to_camera.clone()
    world_to_camera[..., 3] *= extent
    return Trajectory(world_to_camera=world_to_camera, intrinsics_normalized=path.intrinsics_normalized)


def image_clip(
    image: Float32[Tensor, "3 height width"],
    trajectory: Trajectory,
    *,
    caption: str,
    resolution: tuple[int, int],
    field_of_view_degrees: float | None,
    frame_stride: int,
    frames_per_second: float,
    seed: int,
) -> ClipBatch:
    """Make a batch of one: the image in every frame, resized and centre-cropped, with the path's cameras.

    The horizontal field of view counts for the uncropped image; None takes the trajectory's own intrinsics, or 90
    degrees where it has none. Pixels are square.
    """
    height, width = resolution
    _, old_height, old_width = image.shape
    framing = framing_for(old_height, old_width, resolution)
    framed = frame_images(image[None], framing).clamp(-1, 1)
    frames = trajectory.world_to_camera.shape[0]
    intrinsics = _normalized_intrinsics(trajectory, field_of_view_degrees, old_height, old_width)
    return ClipBatch(
        clip_ids=("sample",),
        captions=(caption,),
        seeds=torch.tensor([seed]),
        video=repeat(framed, "1 c h w -> 1 c t h w", t=frames).contiguous(),
        cameras=Cameras(
            world_to_camera=trajectory.world_to_camera[None],
            intrinsics_pixels=frame_intrinsics(intrinsics, framing)[None],
            translation_scale=torch.ones(1, frames, dtype=torch.float64),
            height=height,
            width=width,
        ),
        frame_indices=torch.arange(frames)[None] * frame_stride,
        frame_stride=torch.tensor([frame_stride]),
        frames_per_second=torch.tensor([frames_per_second], dtype=torch.float32),
    )


def _normalized_intrinsics(
    trajectory: Trajectory, field_of_view_degrees: float | None, height: int, width: int
) -> Float64[Tensor, "frames 4"]:
    if trajectory.intrinsics_normalized is not None and field_of_view_degrees is None:
        return trajectory.intrinsics_normalized
    degrees = DEFAULT_FIELD_OF_VIEW_DEGREES if field_of_view_degrees is None else field_of_view_degrees
    if not 0 < degrees < 180:
        raise ValueError(f"field_of_view_degrees={degrees}: choose an angle between 0 and 180")
    focal = 0.5 / math.tan(math.radians(degrees) / 2)
    row = torch.tensor([focal, focal * width / height, 0.5, 0.5], dtype=torch.float64)
    return row.repeat(trajectory.world_to_camera.shape[0], 1)

"""What a caller of the pipeline chooses, and the requests that come of it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32
from PIL import Image
from torch import Tensor

from cami2v.geometry.pose_scale import ScalePolicy
from cami2v.inference.image_clip import Portrait, choose_trajectory, read_image, target_resolution
from cami2v.inference.model_facts import ModelFacts
from cami2v.inference.request import Request, rows
from cami2v.inference.sampling_settings import SamplingSettings
from cami2v.trajectories.trajectory import Trajectory, scaled

CameraSource = str | Path | Mapping[str, Any] | Trajectory
"""A preset, a file, a description, or cameras."""

Picture = Float32[Tensor, "3 _ _"]
"""In [-1, 1]."""

PER_VIDEO = ("caption", "negative_caption", "trajectory", "extent", "seed")
"""Settings that may be a list: one value a video."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoSettings(SamplingSettings):
    """Settings of one call; None takes the model's own. Those in `PER_VIDEO` may be lists.

    `trajectory` is a preset, a file, a description (docs/trajectories.md) or cameras; `extent` is a preset's distance
    in scene units or angle in radians, a factor for the others. `resolution` is (height, width). More `frames` than the
    model was trained with are made in windows that share `overlap` frames.
    """

    caption: str | Sequence[str] = ""
    negative_caption: str | Sequence[str] = ""
    trajectory: CameraSource | Sequence[CameraSource] = "orbit_right"
    extent: float | Sequence[float] | None = None
    loop: bool = False
    """The path, then back to where it began, in the same number of frames."""
    seed: int | Sequence[int] = 0
    frames: int | None = None
    resolution: tuple[int, int] | None = None
    frame_stride: int | None = None
    told_frames_per_second: float | None = None
    end_image: Any = None
    field_of_view_degrees: float | None = None
    portrait: Portrait = "crop"

    def videos(self, images: int) -> list[dict[str, Any]]:
        """Return the values of `PER_VIDEO` for every video.

        Raises ValueError for lists of different lengths, or of another length than several images.
        """
        lengths = {"image": images} if images > 1 else {}
        given = {name: getattr(self, name) for name in PER_VIDEO}
        lists = {name: list(value) for name, value in given.items() if _is_list(value)}
        lengths |= {name: len(value) for name, value in lists.items()}
        if len(set(lengths.values())) > 1:
            listed = ", ".join(f"{count} of {name}" for name, count in lengths.items())
            raise ValueError(f"lists of different lengths: {listed}; a call makes one video for each of their items")
        count = next(iter(lengths.values()), images)
        return [
            {name: lists[name][row] if name in lists else given[name] for name in PER_VIDEO} for row in range(count)
        ]


def requests_for(pictures: Sequence[tuple[str, Picture]], chosen: VideoSettings, facts: ModelFacts) -> list[Request]:
    """Write a call down, video by video; raises ValueError in one line for what cannot be done."""
    defaults = facts.defaults
    frames = defaults.frames if chosen.frames is None else chosen.frames
    height, width = chosen.resolution or (defaults.height, defaults.width)
    _check(chosen, frames, (height, width), facts)
    plan = chosen.plan(facts, frames=frames)
    videos = chosen.videos(len(pictures))
    hashes = [picture_sha256(picture) for _, picture in pictures]
    made = []
    for number, own in enumerate(videos):
        name, picture = pictures[number % len(pictures)]
        path = camera_path(own["trajectory"], frames=frames, extent=own["extent"], loop=chosen.loop)
        high, wide = target_resolution(picture.shape[1], picture.shape[2], (height, width), chosen.portrait)
        intrinsics, zoom = path.intrinsics_normalized, path.zoom
        made.append(
            Request(
                image=name,
                image_sha256=hashes[number % len(pictures)],
                caption=own["caption"],
                negative_caption=own["negative_caption"],
                trajectory=_name(own["trajectory"]),
                world_to_camera=rows(path.world_to_camera),
                intrinsics_normalized=None if intrinsics is None else rows(intrinsics),
                # The image's own focal length is that of its frame.
                zoom=None if zoom is None else tuple((zoom / zoom[chosen.condition_frame]).tolist()),
                field_of_view_degrees=chosen.field_of_view_degrees,
                portrait=chosen.portrait,
                height=high,
                width=wide,
                frame_stride=defaults.frame_stride if chosen.frame_stride is None else chosen.frame_stride,
                told_frames_per_second=chosen.told_frames_per_second,
                seed=own["seed"],
                metres_per_unit=None if defaults.scale_policy == ScalePolicy.METRIC else chosen.metres_per_unit,
                **{field.name: getattr(plan, field.name) for field in fields(plan)},
                **facts.constant,
            )
        )
    return made


def camera_path(trajectory: CameraSource, *, frames: int, extent: float | None, loop: bool) -> Trajectory:
    """Return the camera of every frame; with `loop` there and back again. Raises ValueError for too few cameras."""
    if isinstance(trajectory, Trajectory):
        if len(trajectory.world_to_camera) != frames:
            raise ValueError(
                f"trajectory: {len(trajectory.world_to_camera)} cameras for {frames} frames; give one each"
            )
        path = trajectory if extent is None else scaled(trajectory, extent)
    else:
        path = choose_trajectory(trajectory, frames=frames, extent=extent)
    if not loop:
        return path
    last = frames - 1
    back = last - (2 * torch.arange(frames) - last).abs()
    intrinsics, zoom = path.intrinsics_normalized, path.zoom
    return Trajectory(
        world_to_camera=path.world_to_camera[back],
        intrinsics_normalized=None if intrinsics is None else intrinsics[back],
        zoom=None if zoom is None else zoom[back],
    )


def open_picture(image: Any) -> tuple[str, Picture]:
    """Return where an image came from and its pixels.

    Takes a path, a PIL image, 8-bit RGB as an array (height width 3), or a tensor (3 height width) in [-1, 1]. Raises
    ValueError for anything else.
    """
    if isinstance(image, (str, Path)):
        return str(Path(image).expanduser().absolute()), read_image(Path(image).expanduser())
    if isinstance(image, Image.Image):
        image = np.array(image.convert("RGB"))
    if isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3:
        return "", torch.from_numpy(image).permute(2, 0, 1).float() / 127.5 - 1
    if isinstance(image, Tensor) and image.ndim == 3 and image.shape[0] == 3 and image.is_floating_point():
        return "", image.detach().float().cpu()
    found = f"{type(image).__name__} {tuple(image.shape)}" if hasattr(image, "shape") else type(image).__name__
    raise ValueError(
        f"image: got {found}; give a path, a PIL image, 8-bit RGB (height, width, 3) or a float tensor (3, height, "
        "width) in [-1, 1]"
    )


def picture_sha256(picture: Picture) -> str:
    """Hash an image's size and its pixels in 8 bits."""
    levels = picture_levels(picture)
    return hashlib.sha256(f"{levels.shape}".encode() + levels.tobytes()).hexdigest()


def picture_levels(picture: Picture) -> np.ndarray:
    """Return 8-bit RGB (height, width, 3)."""
    levels = ((picture.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return levels.permute(1, 2, 0).contiguous().numpy()


def _check(chosen: VideoSettings, frames: int, size: tuple[int, int], facts: ModelFacts) -> None:
    if frames < 1:
        raise ValueError(f"frames: got {frames}, expected a number above 0")
    for key in ("frame_stride", "told_frames_per_second"):
        value = getattr(chosen, key)
        if value is not None and value <= 0:
            raise ValueError(f"{key}: got {value}, expected a number above 0")
    if any(side < facts.multiple or side % facts.multiple for side in size):
        raise ValueError(
            f"resolution: got {size[0]}x{size[1]} (height x width), both must be multiples of {facts.multiple} for "
            "this model"
        )
    if chosen.end_image is not None and not facts.ends_with_image:
        raise ValueError(
            "end_image: this model is conditioned on one image only; an end image needs a backbone trained for "
            "interpolation, of which none is installed (to move the image along the video, set condition_frame)"
        )


def _name(trajectory: CameraSource) -> str:
    return "cameras" if isinstance(trajectory, Trajectory) else str(trajectory)


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)

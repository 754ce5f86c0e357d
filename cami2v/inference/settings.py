"""What a caller of the pipeline chooses, and the requests that come of it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float32
from PIL import Image
from torch import Tensor

from cami2v.diffusion.steps import StepSpacing, sampling_steps
from cami2v.geometry.pose_scale import ScalePolicy
from cami2v.inference.image_clip import Compatibility, Portrait, choose_trajectory, read_image, target_resolution
from cami2v.inference.request import Branches, Request, SamplerKind, SamplerSettings, rows
from cami2v.inference.scene import NoiseShapingRule
from cami2v.inference.scene_mask import SceneMaskRule
from cami2v.trajectories.trajectory import Trajectory, scaled

CameraSource = str | Path | Mapping[str, Any] | Trajectory
"""A preset, a file, a description, or cameras."""

Picture = Float32[Tensor, "3 _ _"]
"""In [-1, 1]."""

PER_VIDEO = ("caption", "negative_caption", "trajectory", "extent", "seed")
"""Settings that may be a list: one value a video."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoSettings:
    """Settings of one call; None takes the model's own. Those in `PER_VIDEO` may be lists.

    `trajectory` is a preset, a file, a description (docs/trajectories.md) or cameras; `extent` is a preset's distance
    in scene units or angle in radians, a factor for the others. `resolution` is (height, width). More `frames` than the
    model was trained with are made in windows that share `overlap` frames. `condition_frame` tells which frame the
    image is.
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
    sampler: SamplerKind | None = None
    steps: int | None = None
    spacing: StepSpacing | None = None
    guidance_scale: float | None = None
    guidance_rescale: float | None = None
    camera_guidance: float | None = None
    camera_guidance_schedule: Literal["constant", "cosine"] | None = None
    eta: float | None = None
    order: Literal[1, 2, 3] | None = None
    frame_stride: int | None = None
    told_frames_per_second: float | None = None
    condition_frame: int = 0
    paste_image: bool = False
    """Keep its frame as the image is encoded, at every step and in the end."""
    end_image: Any = None
    overlap: int = 4
    field_of_view_degrees: float | None = None
    portrait: Portrait = "crop"
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

    def sampler_settings(self, own: SamplerSettings) -> SamplerSettings:
        """Return the model's sampler with what was chosen in its place."""
        return own.changed(
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


def requests_for(pictures: Sequence[tuple[str, Picture]], chosen: VideoSettings, facts: ModelFacts) -> list[Request]:
    """Write a call down, video by video; raises ValueError in one line for what cannot be done."""
    defaults = facts.defaults
    frames = defaults.frames if chosen.frames is None else chosen.frames
    height, width = chosen.resolution or (defaults.height, defaults.width)
    _check(chosen, frames, (height, width), facts)
    sampler = chosen.sampler_settings(facts.sampler)
    shaping = _noise_shaping(chosen, sampler, facts)
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
                compatibility=chosen.compatibility,
                height=high,
                width=wide,
                frame_stride=defaults.frame_stride if chosen.frame_stride is None else chosen.frame_stride,
                told_frames_per_second=chosen.told_frames_per_second,
                condition_frame=chosen.condition_frame,
                seed=own["seed"],
                sampler=sampler,
                window=min(frames, defaults.frames),
                overlap=chosen.overlap,
                branches=chosen.branches,
                decode_frames=chosen.decode_frames,
                decode_tile=chosen.decode_tile,
                metres_per_unit=None if defaults.scale_policy == ScalePolicy.METRIC else chosen.metres_per_unit,
                noise_shaping=shaping,
                paste_image=chosen.paste_image,
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


def _noise_shaping(chosen: VideoSettings, sampler: SamplerSettings, facts: ModelFacts) -> NoiseShapingRule | None:
    """Return the rule; raises ValueError where it could do nothing, or depth and trajectory have no common unit."""
    lowest = chosen.noise_shaping
    if lowest is None:
        return None
    highest = sampling_steps(sampler.spacing, sampler.steps, facts.timesteps)[-1]
    if not 0 <= lowest <= highest:
        raise ValueError(
            f"noise_shaping: got {lowest}, choose a timestep from 0 to {highest}, the highest that spacing="
            f"{sampler.spacing} visits (published: 900)"
        )
    if facts.defaults.scale_policy != ScalePolicy.METRIC and chosen.metres_per_unit is None:
        raise ValueError(
            f"noise_shaping: the scene is in metres, but this model's poses are not (scale policy: "
            f"{facts.defaults.scale_policy}); set metres_per_unit to the metres in one unit of its training poses"
        )
    return NoiseShapingRule(minimum_timestep=lowest, mask=chosen.scene_mask or SceneMaskRule())


def _check(chosen: VideoSettings, frames: int, size: tuple[int, int], facts: ModelFacts) -> None:
    if frames < 1:
        raise ValueError(f"frames: got {frames}, expected a number above 0")
    for key in ("frame_stride", "told_frames_per_second", "decode_frames", "metres_per_unit"):
        value = getattr(chosen, key)
        if value is not None and value <= 0:
            raise ValueError(f"{key}: got {value}, expected a number above 0")
    if any(side < facts.multiple or side % facts.multiple for side in size):
        raise ValueError(
            f"resolution: got {size[0]}x{size[1]} (height x width), both must be multiples of {facts.multiple} for "
            "this model"
        )
    window = min(frames, facts.defaults.frames)
    if not 0 <= chosen.condition_frame < window:
        raise ValueError(f"condition_frame: got {chosen.condition_frame}, choose 0 to {window - 1}")
    if frames > window and not 1 <= chosen.overlap < window:
        raise ValueError(
            f"overlap: got {chosen.overlap}; {frames} frames are made in windows of {window}, choose 1 to {window - 1}"
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

"""What the cameras of a path see of an image through its metric depth, and how that guides the sampling.

RealCam-I2V (arXiv 2502.10059): the same rendering is the preview and the scene of the noise shaping.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Float64, Int64
from scipy.spatial import cKDTree
from torch import Tensor
from torch.nn import functional

from cami2v.batch import ClipBatch
from cami2v.diffusion.edits import NoiseShaping
from cami2v.geometry.cameras import relative_poses
from cami2v.geometry.framing import framing_for
from cami2v.inference.image_clip import Compatibility
from cami2v.inference.scene_mask import SceneMaskRule, not_black, scene_mask
from cami2v.trajectories.warp import cloud, load_depth, warp

Depth = Float32[Tensor, "height width"]
"""Along the optical axis, in metres; 0 or not finite where it is unknown."""

OUTLIER_NEIGHBOURS = 16
"""Of a point, itself included; those whose mean distance to them is `OUTLIER_DEVIATIONS` above average are left out."""
OUTLIER_DEVIATIONS = 3.0
OUTLIER_FACTOR = 2.5
"""Nor are points nearer than this multiple of the average left out: the image's corners have 2."""

SAME_SHAPE = 1.02
"""By how much the shapes of an image and its depth map may differ."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NoiseShapingRule:
    """How a rendered scene guides the sampling."""

    minimum_timestep: int
    """At this noise level and above latents follow the scene; published: 900."""
    mask: SceneMaskRule


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """An image seen by the cameras of a path."""

    video: Float32[Tensor, "3 frames height width"]
    """In [-1, 1]; black where nothing is known."""
    covered: Bool[Tensor, "frames height width"]
    """Where something is."""


def open_depth(depth: Any) -> Depth:
    """Return a depth map that was given: a file (see `load_depth`), or an array (height, width) in metres.

    Raises ValueError for anything else.
    """
    if isinstance(depth, (str, Path)):
        return load_depth(Path(depth).expanduser())
    if isinstance(depth, np.ndarray):
        depth = torch.from_numpy(np.ascontiguousarray(depth))
    if isinstance(depth, Tensor) and depth.ndim == 2 and depth.is_floating_point():
        return depth.detach().float().cpu()
    found = f"{type(depth).__name__} {tuple(depth.shape)}" if hasattr(depth, "shape") else type(depth).__name__
    raise ValueError(f"depth: got {found}; give a file, or metres as floats of (height, width)")


def framed_depth(
    depth: Float32[Tensor, "rows columns"], image_size: tuple[int, int], size: tuple[int, int]
) -> Float32[Tensor, "height width"]:
    """Resize and crop the depth map of an image as the image is; depths are never mixed.

    Raises ValueError for a map of another shape than the image.
    """
    ratio = (depth.shape[0] / depth.shape[1]) / (image_size[0] / image_size[1])
    if not 1 / SAME_SHAPE <= ratio <= SAME_SHAPE:
        raise ValueError(
            f"depth: {depth.shape[0]}x{depth.shape[1]} (height x width) for an image of {image_size[0]}x"
            f"{image_size[1]}; give the depth of the whole image, at any resolution"
        )
    framing = framing_for(*image_size, size)
    resized = functional.interpolate(depth[None, None], size=framing.resized, mode="nearest-exact")[0, 0]
    bottom, right = framing.top + framing.height, framing.left + framing.width
    return resized[framing.top : bottom, framing.left : right].contiguous()


def depth_sha256(depth: Float32[Tensor, "height width"]) -> str:
    """Hash a depth map's size and its values."""
    values = depth.contiguous().numpy()
    return hashlib.sha256(f"{values.shape}".encode() + values.tobytes()).hexdigest()


def render_scene(
    clip: ClipBatch, depth: Float32[Tensor, "height width"], *, condition_frame: int, compatibility: Compatibility
) -> Scene:
    """Draw the image of a clip, which is that of `condition_frame`, as its cameras see it.

    Translations are in the depth's unit. `published`: every camera has the first one's intrinsics, pixel centres lie at
    whole numbers, black pixels of the image count as unknown, and far surfaces as outliers. Raises ValueError for a
    depth that is nowhere known.
    """
    cameras = clip.cameras
    poses = relative_poses(cameras.world_to_camera, torch.tensor([condition_frame]))[0]
    intrinsics = cameras.intrinsics_pixels[0]
    if compatibility == "published":
        intrinsics = (intrinsics[:1] + intrinsics.new_tensor([0, 0, 0.5, 0.5])).expand(len(intrinsics), 4)
    own = intrinsics[condition_frame]
    image = clip.video[0, :, condition_frame]
    warped = warp(image, without_outliers(depth, own, compatibility), poses, intrinsics, own)
    covered = not_black(warped.video[None])[0] if compatibility == "published" else warped.covered
    return Scene(video=warped.video, covered=covered)


def in_metres(clip: ClipBatch, metres_per_unit: float) -> ClipBatch:
    """Return a filmed clip with its poses in metres, for `render_scene`; its `translation_scale` leads to the model's.

    Its translations, scaled as in `scaled_relative_poses` by its first frame's, are in units of `metres_per_unit`.
    """
    cameras = clip.cameras
    world_to_camera = cameras.world_to_camera.clone()
    world_to_camera[..., 3] *= cameras.translation_scale[:, :1, None] * metres_per_unit
    scale = torch.full_like(cameras.translation_scale, 1 / metres_per_unit)
    cameras = dataclasses.replace(cameras, world_to_camera=world_to_camera, translation_scale=scale)
    return dataclasses.replace(clip, cameras=cameras)


def without_outliers(
    depth: Float32[Tensor, "height width"], intrinsics_pixels: Float64[Tensor, " 4"], compatibility: Compatibility
) -> Float32[Tensor, "height width"]:
    """Forget the depth of pixels whose points lie far from all others, as between an object and what is behind it.

    Distances are relative to the point's depth, as the gaps between an image's points are. `published`: absolute, which
    takes small far surfaces and corners for outliers.
    """
    known = torch.isfinite(depth) & (depth > 0)
    if int(known.sum()) < OUTLIER_NEIGHBOURS:
        return depth
    points, _ = cloud(depth.expand(3, -1, -1), depth, intrinsics_pixels, most=depth.numel())
    distances, _ = cKDTree(points.numpy()).query(points.numpy(), k=OUTLIER_NEIGHBOURS)
    mean = distances.mean(axis=1)
    if compatibility == "none":
        mean = mean / points[:, 2].numpy()
    most = mean.mean() + OUTLIER_DEVIATIONS * mean.std(ddof=1)
    kept = mean <= (most if compatibility == "published" else max(most, OUTLIER_FACTOR * mean.mean()))
    cleaned = torch.zeros_like(depth)
    cleaned[known] = torch.where(torch.from_numpy(kept), depth[known], 0.0)
    return cleaned


def joined_scenes(scenes: Sequence[Scene], frames: slice) -> tuple[Tensor, Tensor]:
    """Return some frames of several scenes: their videos and where they are covered, batch first."""
    return (
        torch.stack([scene.video[:, frames] for scene in scenes]),
        torch.stack([scene.covered[frames] for scene in scenes]),
    )


def noise_shaping(
    scene: Float[Tensor, "batch channels frames latent_height latent_width"],
    covered: Bool[Tensor, "batch frames height width"],
    image_latents: Float[Tensor, "batch channels frames latent_height latent_width"],
    *,
    rule: NoiseShapingRule,
    condition_frame: Int64[Tensor, " batch"],
    compatibility: Compatibility,
) -> NoiseShaping:
    """Return the edit that lets latents follow a scene's; where the image itself is, they follow the image's.

    `published`: that is taken to be frame 0 whichever it is, it is masked as any other, and the scene takes no part in
    dynamic rescale.
    """
    mask = scene_mask(covered, (scene.shape[-2], scene.shape[-1]), rule.mask)
    clips = torch.arange(len(scene), device=scene.device)
    published = compatibility == "published"
    frame = torch.zeros_like(condition_frame) if published else condition_frame
    scene = scene.clone()
    scene[clips, :, frame] = image_latents[clips, :, condition_frame].to(scene.dtype)
    if not published:
        mask[clips, :, frame] = 1.0
    return NoiseShaping(
        scene=scene, mask=mask, minimum_timestep=rule.minimum_timestep, scale=None if published else 1.0
    )

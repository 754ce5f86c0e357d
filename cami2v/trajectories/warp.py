"""What the cameras of a path would see of one image, moved through its depth: a preview before anything is sampled.

Points are drawn by torch on the CPU or the image's device: no display, no OpenGL.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Bool, Float, Float32, Float64, Int64
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torch.nn import functional

BLACK = -1.0
"""Where no point falls."""

CLOSEST_SAMPLES = 0.7
"""Samples of a surface are at most so many pixels apart in the frame, where `MOST_SAMPLES` allows: no cracks."""

MOST_SAMPLES = 4
"""Per pixel of the image and direction."""

SAME_SURFACE = 1.01
"""Points this much farther than the nearest one of a pixel still count for its colour."""

NEAREST_SHARE = 1e-3
"""Of the median depth; what is nearer to a camera is not drawn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Warped:
    """An image seen by other cameras."""

    video: Float32[Tensor, "3 frames height width"]
    """In [-1, 1]; black where nothing is known."""
    covered: Bool[Tensor, "frames height width"]
    """Where something is."""


def warp(
    image: Float32[Tensor, "3 height width"],
    depth: Float[Tensor, "height width"],
    camera_to_image: Float64[Tensor, "frames 4 4"],
    intrinsics_pixels: Float64[Tensor, "frames 4"],
    image_intrinsics_pixels: Float64[Tensor, " 4"],
) -> Warped:
    """Draw an image in [-1, 1] as cameras see it whose poses are relative to the image's own.

    `depth` is along the optical axis in the unit of the poses, 0 or not finite where it is unknown. Nearer points hide
    farther ones; what the image does not show stays black.
    """
    known = torch.isfinite(depth) & (depth > 0)
    if not bool(known.any()):
        raise ValueError("depth: no value is finite and above 0; give the depth along the optical axis")
    nearest = NEAREST_SHARE * float(depth[known].median())
    world_to_camera = torch.linalg.inv(camera_to_image)
    frames, covered = [], []
    clouds: dict[int, tuple[Tensor, Tensor]] = {}
    for pose, intrinsics in zip(world_to_camera, intrinsics_pixels, strict=True):
        samples = _samples(depth, known, pose, intrinsics, image_intrinsics_pixels, nearest)
        if samples not in clouds:
            clouds[samples] = _cloud(image, depth, known, image_intrinsics_pixels, samples)
        frame, seen = _draw(*clouds[samples], pose, intrinsics, (depth.shape[0], depth.shape[1]), nearest)
        frames.append(frame)
        covered.append(seen)
    return Warped(video=torch.stack(frames, dim=1), covered=torch.stack(covered))


def read_depth(path: Path, height: int, width: int) -> Float32[Tensor, "height width"]:
    """Read a depth map (see `load_depth`) and bring it to a size without mixing depths."""
    return functional.interpolate(load_depth(path)[None, None], size=(height, width), mode="nearest-exact")[0, 0]


def load_depth(path: Path) -> Float32[Tensor, "_height _width"]:
    """Read a depth map: .npy, .npz (its only array, or `depth`), or a 16-bit PNG in thousandths; 0 where unknown.

    Of a clip's depth maps as `cami2v data scale` reads them (`depth_millimetres`), it is the first, in metres. Raises
    ValueError for anything else.
    """
    allowed = "a .npy or .npz array (rows, columns), or a 16-bit .png in thousandths of a unit"
    if not path.is_file():
        raise ValueError(f"depth file {path}: no such file; give {allowed}")
    try:
        if path.suffix == ".png":
            values = np.asarray(Image.open(path), dtype=np.float32) / 1000
        elif path.suffix in (".npy", ".npz"):
            loaded = np.load(path, allow_pickle=False)
            values = loaded if isinstance(loaded, np.ndarray) else _from_archive(loaded)
        else:
            raise ValueError(f"ends in {path.suffix!r}")
        depth = torch.from_numpy(np.squeeze(np.asarray(values)).astype(np.float32))
    except (OSError, KeyError, ValueError, EOFError, BadZipFile, UnidentifiedImageError) as error:
        raise ValueError(f"depth file {path}: cannot be read ({error}); give {allowed}") from error
    if depth.ndim != 2:
        raise ValueError(f"depth file {path}: shape {tuple(depth.shape)}; give {allowed}")
    return depth


def _from_archive(loaded: np.lib.npyio.NpzFile) -> np.ndarray:
    with loaded:
        if "depth_millimetres" in loaded.files:
            return loaded["depth_millimetres"][0].astype(np.float32) / 1000
        return loaded["depth" if "depth" in loaded.files or len(loaded.files) != 1 else loaded.files[0]]


def cloud(
    image: Float32[Tensor, "3 height width"],
    depth: Float[Tensor, "height width"],
    intrinsics_pixels: Float64[Tensor, " 4"],
    *,
    most: int,
) -> tuple[Float64[Tensor, "points 3"], Float32[Tensor, "points 3"]]:
    """Return at most about `most` points of an image in its camera's axes, and their colours in [-1, 1]."""
    known = torch.isfinite(depth) & (depth > 0)
    step = max(1, math.ceil(math.sqrt(depth.numel() / most)))
    thinned = torch.zeros_like(known)
    thinned[step // 2 :: step, step // 2 :: step] = True
    points, colours = _cloud(image, depth, known & thinned, intrinsics_pixels, 1)
    return points, colours


def _cloud(
    image: Float32[Tensor, "3 height width"],
    depth: Float[Tensor, "height width"],
    known: Bool[Tensor, "height width"],
    intrinsics: Float64[Tensor, " 4"],
    samples: int,
) -> tuple[Float64[Tensor, "points 3"], Float32[Tensor, "points 3"]]:
    height, width = depth.shape
    size = (height * samples, width * samples)
    # Repeated, never mixed: between two surfaces there is nothing, and a camera that rests sees the image itself.
    colours, depths, there = (
        each.repeat_interleave(samples, -2).repeat_interleave(samples, -1) for each in (image, depth.double(), known)
    )
    fx, fy, cx, cy = intrinsics.unbind()
    rows = (torch.arange(size[0], dtype=torch.float64, device=depth.device) + 0.5) / samples
    columns = (torch.arange(size[1], dtype=torch.float64, device=depth.device) + 0.5) / samples
    x, y = (columns - cx) / fx * depths, ((rows - cy) / fy)[:, None] * depths
    return torch.stack([x, y, depths], dim=-1)[there], rearrange(colours, "c h w -> h w c")[there]


def _samples(
    depth: Tensor, known: Tensor, pose: Tensor, intrinsics: Tensor, image_intrinsics: Tensor, nearest: float
) -> int:
    """Return how many samples of a pixel a frame needs, by how much the nearer surfaces are magnified in it."""
    height, width = depth.shape
    fx, fy, cx, cy = image_intrinsics.unbind()
    rows, columns = torch.meshgrid(
        torch.linspace(0.5, height - 0.5, 16, dtype=torch.float64),
        torch.linspace(0.5, width - 0.5, 16, dtype=torch.float64),
        indexing="ij",
    )
    depths = depth[rows.long(), columns.long()].double()
    there = known[rows.long(), columns.long()]
    points = torch.stack([(columns - cx) / fx * depths, (rows - cy) / fy * depths, depths], dim=-1)[there]
    moved = points @ pose[:3, :3].T + pose[:3, 3]
    ahead = moved[:, 2] > nearest
    if not bool(ahead.any()):
        return 1
    larger = float(torch.maximum(intrinsics[0] / fx, intrinsics[1] / fy))
    magnified = larger * (points[ahead, 2] / moved[ahead, 2]).quantile(0.95)
    return int(min(max(math.ceil(float(magnified) / CLOSEST_SAMPLES), 1), MOST_SAMPLES))


def _draw(
    points: Float64[Tensor, "points 3"],
    colours: Float32[Tensor, "points 3"],
    pose: Float64[Tensor, "4 4"],
    intrinsics: Float64[Tensor, " 4"],
    size: tuple[int, int],
    nearest: float,
) -> tuple[Float32[Tensor, "3 height width"], Bool[Tensor, "height width"]]:
    height, width = size
    moved = points @ pose[:3, :3].T + pose[:3, 3]
    fx, fy, cx, cy = intrinsics.unbind()
    depth = moved[:, 2]
    safe = depth.clamp_min(nearest)
    column, row = (fx * moved[:, 0] / safe + cx).floor(), (fy * moved[:, 1] / safe + cy).floor()
    inside = (depth > nearest) & (column >= 0) & (column < width) & (row >= 0) & (row < height)
    pixel: Int64[Tensor, " drawn"] = (row[inside] * width + column[inside]).long()
    depth = depth[inside]
    front = torch.full((height * width,), math.inf, dtype=torch.float64, device=points.device)
    front = front.scatter_reduce(0, pixel, depth, "amin")
    visible = depth <= front[pixel] * SAME_SURFACE
    pixel = pixel[visible]
    total = torch.zeros(height * width, 3, device=points.device).index_add(0, pixel, colours[inside][visible])
    count = torch.zeros(height * width, device=points.device).index_add(0, pixel, torch.ones_like(pixel).float())
    covered = count > 0
    frame = torch.where(covered[:, None], total / count.clamp_min(1)[:, None], BLACK)
    return rearrange(frame, "(h w) c -> c h w", h=height), covered.reshape(height, width)

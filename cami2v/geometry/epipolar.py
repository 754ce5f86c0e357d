"""Epipolar attention masks (CamI2V, arXiv 2410.15957, section 3.3).

A query cell of frame i may attend to the cells of frame j whose centre lies close to the query's epipolar line in
frame j.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from cami2v.geometry.cameras import intrinsic_matrix, invert_pose

NEGLIGIBLE_TRANSLATION = 1e-6
"""Below this in every component (model units) a pair of cameras shares one centre: its epipoles are undefined."""

CHUNK_ELEMENTS = 2**24
"""Point-to-line distances held at once (64 MiB); the 256x256 level at downsample 8 has 16 times as many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EpipolarOptions:
    """Changes to the plain epipolar rule, applied in the order of the fields."""

    hybrid: bool = False
    """A query without any key in frame j sees all of frame j."""
    hybrid_v2: bool = False
    """A query without any key in any frame sees everything."""
    only_self_pixel_on_current_frame: bool = False
    """In its own frame a query sees itself only."""
    current_frame_as_register_token: bool = False
    """In its own frame a query sees everything (published name; unrelated to the register tokens)."""
    key_intrinsics_on_both_sides: bool = False
    """Compatibility: form F with the key frame's intrinsics for the query frame too, as the published code does.
    Differs only while the focal length changes within a clip."""


def pairwise_poses(relative_poses: Float[Tensor, "batch frames 4 4"]) -> Float64[Tensor, "batch frames frames 4 4"]:
    """Map coordinates of camera i (first frame axis) to camera j (second); exactly the identity for i = j."""
    poses = relative_poses.double()
    pairs = invert_pose(poses)[:, None, :] @ poses[:, :, None]
    same = torch.arange(poses.shape[1], device=poses.device)
    pairs[:, same, same] = torch.eye(4, dtype=poses.dtype, device=poses.device)
    return pairs


def fundamental_matrices(
    relative_poses: Float[Tensor, "batch frames 4 4"],
    intrinsics_pixels: Float[Tensor, "batch frames 4"],
    *,
    perturbation: Float[Tensor, "batch frames frames 3"] | None,
    key_intrinsics_on_both_sides: bool = False,
) -> Float64[Tensor, "batch frames frames 3 3"]:
    """Form F[b, i, j], which maps a pixel of frame i to its line in frame j: Kj^-T [t]x R Ki^-1.

    `perturbation` (standard normal numbers) gives pairs that share a camera centre, same-frame pairs above all, a
    random epipole; F is zero for them otherwise.
    """
    pairs = pairwise_poses(relative_poses)
    rotation, translation = pairs[..., :3, :3], pairs[..., :3, 3]
    if perturbation is not None:
        negligible = (translation.abs() < NEGLIGIBLE_TRANSLATION).all(dim=-1, keepdim=True)
        translation = torch.where(negligible, NEGLIGIBLE_TRANSLATION * perturbation.double(), translation)
    essential = torch.linalg.cross(translation[..., None].expand_as(rotation), rotation, dim=-2)
    inverse_intrinsics = torch.linalg.inv(intrinsic_matrix(intrinsics_pixels.double()))
    key_side = inverse_intrinsics[:, None, :]
    query_side = key_side if key_intrinsics_on_both_sides else inverse_intrinsics[:, :, None]
    return key_side.mT @ essential @ query_side


def mask_from_fundamental(
    fundamental: Float[Tensor, "batch frames frames 3 3"],
    height: int,
    width: int,
    downsample: int,
    options: EpipolarOptions,
) -> Bool[Tensor, "batch queries keys"]:
    """Mark the (query, key) cells within half a cell diagonal of each other's epipolar line.

    Cells are those of a feature map `downsample` times smaller than the height x width image, frame-major and
    row-major. Pixel centres lie at integer coordinates here, half a pixel off the Pluecker map: released weights were
    trained with both. A pair without parallax (F = 0) has no line, hence no True.
    """
    batch, frames = fundamental.shape[:2]
    rows, columns = height // downsample, width // downsample
    if rows == 0 or columns == 0:
        raise ValueError(f"a {height}x{width} image has no feature map at downsample {downsample}")
    cells = rows * columns
    mask = torch.empty(batch, frames, cells, frames, cells, dtype=torch.bool, device=fundamental.device)
    centre = downsample / 2 - 0.5
    y = torch.arange(rows, device=fundamental.device, dtype=fundamental.dtype) * downsample + centre
    x = torch.arange(columns, device=fundamental.device, dtype=fundamental.dtype) * downsample + centre
    keys_per_chunk = max(1, CHUNK_ELEMENTS // (cells * cells))
    for clip in range(batch):
        for query_frame in range(frames):
            lines = _epipolar_lines(fundamental[clip, query_frame], x, y)
            for first in range(0, frames, keys_per_chunk):
                chunk = slice(first, first + keys_per_chunk)
                mask[clip, query_frame, :, chunk] = _near_lines(lines[:, chunk], x, y, downsample)
            _apply_options(mask[clip, query_frame], query_frame, options)
    return rearrange(mask, "b ti qi tj kj -> b (ti qi) (tj kj)")


def epipolar_mask(
    relative_poses: Float[Tensor, "batch frames 4 4"],
    intrinsics_pixels: Float[Tensor, "batch frames 4"],
    height: int,
    width: int,
    downsample: int,
    perturbation: Float[Tensor, "batch frames frames 3"] | None,
    options: EpipolarOptions,
) -> Bool[Tensor, "batch queries keys"]:
    """Build the attention mask of one pyramid level; True means the query (rows) may attend to the key (columns)."""
    fundamental = fundamental_matrices(
        relative_poses,
        intrinsics_pixels,
        perturbation=perturbation,
        key_intrinsics_on_both_sides=options.key_intrinsics_on_both_sides,
    )
    return mask_from_fundamental(fundamental, height, width, downsample, options)


def _epipolar_lines(
    fundamental: Float[Tensor, "keys 3 3"], x: Float[Tensor, " columns"], y: Float[Tensor, " rows"]
) -> Float[Tensor, "cells keys 3"]:
    """Compute unit-normal lines of every query cell in every key frame; NaN where F is zero."""
    per_column = fundamental[..., 0] * x[:, None, None]
    per_row = fundamental[..., 1] * y[:, None, None] + fundamental[..., 2]
    lines = rearrange(per_row[:, None] + per_column[None, :], "r c k n -> (r c) k n")
    return (lines / torch.linalg.vector_norm(lines[..., :2], dim=-1, keepdim=True)).float()


def _near_lines(
    lines: Float[Tensor, "cells keys 3"], x: Float[Tensor, " columns"], y: Float[Tensor, " rows"], downsample: int
) -> Bool[Tensor, "cells keys key_cells"]:
    # Element-wise on purpose: autocast and TF32 would round the products of a matrix multiplication.
    a, b, c = lines[..., None, None].unbind(2)
    distance = a * x.float() + (b * y.float()[:, None] + c)
    near = distance.abs_() < downsample * math.sqrt(2) / 2
    return rearrange(near, "q k r c -> q k (r c)")


def _apply_options(mask: Bool[Tensor, "cells keys key_cells"], query_frame: int, options: EpipolarOptions) -> None:
    if options.hybrid:
        mask |= ~mask.any(dim=-1, keepdim=True)
    if options.hybrid_v2:
        mask |= ~mask.any(dim=(-2, -1), keepdim=True)
    if options.only_self_pixel_on_current_frame:
        mask[:, query_frame] = torch.eye(mask.shape[0], dtype=torch.bool, device=mask.device)
    if options.current_frame_as_register_token:
        mask[:, query_frame] = True

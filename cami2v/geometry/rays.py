"""Viewing rays in Pluecker coordinates."""

from __future__ import annotations

import torch
from jaxtyping import Float, Float32
from torch import Tensor


def pluecker_map(
    relative_poses: Float[Tensor, "batch frames 4 4"],
    intrinsics_pixels: Float[Tensor, "batch frames 4"],
    height: int,
    width: int,
) -> Float32[Tensor, "batch 6 frames height width"]:
    """Compute every pixel's ray as (moment o x d, unit direction d) in the conditioning camera's coordinates.

    Moment first, pixel centres at k + 0.5 (CameraCtrl, arXiv 2404.02101, section 3.2). Only element-wise float32
    arithmetic, so that neither autocast nor TF32 can touch it.
    """
    poses, intrinsics = relative_poses.float(), intrinsics_pixels.float()
    fx, fy, cx, cy = intrinsics[..., None, None].unbind(2)
    rows = torch.arange(height, device=poses.device, dtype=torch.float32)[:, None] + 0.5
    columns = torch.arange(width, device=poses.device, dtype=torch.float32)[None, :] + 0.5
    x, y = (columns - cx) / fx, (rows - cy) / fy
    length = torch.sqrt(x * x + y * y + 1)

    right, down, forward, origin = poses[:, :, :3, :, None, None].unbind(3)
    direction = (right * x[:, :, None] + down * y[:, :, None] + forward) / length[:, :, None]
    moment = torch.linalg.cross(origin.expand_as(direction), direction, dim=2)
    return torch.cat([moment, direction], dim=2).transpose(1, 2).contiguous()

"""Poses and intrinsics of pinhole cameras.

Names say the direction: `world_to_camera` maps world points into the camera, `camera_to_world` is its inverse. OpenCV
axes (x right, y down, z forward). Rotations are not required to have determinant +1: some published trajectory files
describe a mirrored world, and the reflection cancels in relative poses.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor

from cami2v.batch import Cameras
from cami2v.geometry.rotations import axis_angle_to_matrix, matrix_to_axis_angle


def as_homogeneous(poses: Float[Tensor, "*batch 3 4"]) -> Float[Tensor, "*batch 4 4"]:
    """Append the row 0 0 0 1."""
    bottom = poses.new_tensor([0.0, 0.0, 0.0, 1.0]).expand(*poses.shape[:-2], 1, 4)
    return torch.cat([poses, bottom], dim=-2)


def invert_pose(poses: Float[Tensor, "*batch 4 4"]) -> Float[Tensor, "*batch 4 4"]:
    """Invert poses: world-to-camera becomes camera-to-world and back.

    A general inverse, not a transpose: linearly interpolated published trajectories are not exactly orthonormal.
    """
    return torch.linalg.inv(poses)


def relative_poses(
    world_to_camera: Float[Tensor, "batch frames 3 4"], condition_frame: Int64[Tensor, " batch"]
) -> Float[Tensor, "batch frames 4 4"]:
    """Map each camera's coordinates to those of the clip's conditioning camera, which becomes the identity."""
    poses = as_homogeneous(world_to_camera)
    clips = torch.arange(poses.shape[0], device=poses.device)
    relative = poses[clips, condition_frame].unsqueeze(1) @ invert_pose(poses)
    relative[clips, condition_frame] = torch.eye(4, dtype=poses.dtype, device=poses.device)
    return relative


def scaled_relative_poses(
    cameras: Cameras, condition_frame: Int64[Tensor, " batch"], trace_scale: float
) -> Float32[Tensor, "batch frames 4 4"]:
    """Form the relative poses a model sees, translations in the unit of the scale policy times `trace_scale`.

    The conditioning frame's own scale applies to all frames of its clip (RealCam-I2V, arXiv 2502.10059). Formed in
    float64: float32 loses the difference of two nearby poses far from the world's origin.
    """
    relative = relative_poses(cameras.world_to_camera, condition_frame)
    scale = torch.take_along_dim(cameras.translation_scale, condition_frame[:, None], dim=1) * trace_scale
    relative[..., :3, 3] *= scale[..., None]
    return relative.float()


def intrinsic_matrix(intrinsics: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch 3 3"]:
    """Arrange fx fy cx cy as the calibration matrix K."""
    fx, fy, cx, cy = intrinsics.unbind(-1)
    zero, one = torch.zeros_like(fx), torch.ones_like(fx)
    rows = [torch.stack(row, dim=-1) for row in ((fx, zero, cx), (zero, fy, cy), (zero, zero, one))]
    return torch.stack(rows, dim=-2)


def intrinsics_in_pixels(
    intrinsics_normalized: Float[Tensor, "*batch 4"], height: int, width: int
) -> Float[Tensor, "*batch 4"]:
    """Multiply normalized fx fy cx cy by the image size."""
    return intrinsics_normalized * intrinsics_normalized.new_tensor([width, height, width, height])


def resize_intrinsics(
    intrinsics_pixels: Float[Tensor, "*batch 4"], old_size: tuple[int, int], new_size: tuple[int, int]
) -> Float[Tensor, "*batch 4"]:
    """Follow an image resize; sizes are (height, width).

    Exact for pixel centres at k + 0.5, the house convention: image coordinates scale about the image's corner.
    """
    vertical, horizontal = new_size[0] / old_size[0], new_size[1] / old_size[1]
    return intrinsics_pixels * intrinsics_pixels.new_tensor([horizontal, vertical, horizontal, vertical])


def crop_intrinsics(intrinsics_pixels: Float[Tensor, "*batch 4"], top: int, left: int) -> Float[Tensor, "*batch 4"]:
    """Follow a crop whose first row and column are `top` and `left`."""
    return intrinsics_pixels - intrinsics_pixels.new_tensor([0, 0, left, top])


def interpolate_poses(
    camera_to_world: Float[Tensor, "frames 4 4"], positions: Float[Tensor, " samples"]
) -> Float[Tensor, "samples 4 4"]:
    """Interpolate a camera path at fractional frame positions.

    Rotations follow the shortest arc on SO(3), camera centres a straight line.

    Raises:
        ValueError: a position lies outside [0, frames - 1].
    """
    last = camera_to_world.shape[0] - 1
    if positions.numel() and not (positions.min() >= 0 and positions.max() <= last):
        raise ValueError(
            f"pose positions {positions.min().item()}..{positions.max().item()} leave the path; "
            f"allowed are 0..{last} for its {last + 1} poses"
        )
    lower = positions.floor().long().clamp(max=max(last - 1, 0))
    upper = (lower + 1).clamp(max=last)
    weight = (positions - lower).to(camera_to_world.dtype)[:, None]
    start, end = camera_to_world[lower], camera_to_world[upper]
    # The relative rotation is proper even between two mirrored cameras.
    turn = matrix_to_axis_angle(torch.linalg.inv(start[:, :3, :3]) @ end[:, :3, :3])
    poses = start.clone()
    poses[:, :3, :3] = start[:, :3, :3] @ axis_angle_to_matrix(weight * turn)
    poses[:, :3, 3] = torch.lerp(start[:, :3, 3], end[:, :3, 3], weight)
    return poses

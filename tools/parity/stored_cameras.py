"""Cameras as the cases store them: 4x4 or flattened poses, calibration matrices."""

from __future__ import annotations

import torch
from torch import Tensor

from cami2v.batch import Cameras
from cami2v.geometry.cameras import as_homogeneous, invert_pose
from cami2v.geometry.epipolar import pairwise_poses
from tools.parity.cases import Case
from tools.parity.checks import Checks

ROUNDING_OF_TRANSLATIONS = 1e-5
"""What float32 leaves of a translation that should be zero, with a margin."""


def cameras_of(world_to_camera: Tensor, matrix: Tensor | None = None, scale: Tensor | None = None) -> Cameras:
    """Make cameras of poses (batch frames 4 4) and calibration matrices; the image size is unknown and not used."""
    poses = world_to_camera.double()[:, :, :3]
    if matrix is None:
        matrix = torch.eye(3).expand(*poses.shape[:2], 3, 3)
    return Cameras(
        world_to_camera=poses,
        intrinsics_pixels=as_vector(matrix).double().expand(*poses.shape[:2], 4),
        translation_scale=torch.ones(poses.shape[:2], dtype=torch.float64) if scale is None else scale,
        height=1,
        width=1,
    )


def as_vector(matrix: Tensor) -> Tensor:
    """Return fx fy cx cy of calibration matrices."""
    return torch.stack([matrix[..., 0, 0], matrix[..., 1, 1], matrix[..., 0, 2], matrix[..., 1, 2]], dim=-1)


def condition_frames(case: Case, batch: int) -> Tensor:
    """Return the conditioning frame of every clip of the case."""
    frames = torch.as_tensor(case.parameters["cond_frame_index"]).reshape(-1)
    return frames.expand(batch).clone()


def camera_to_world(flat_world_to_camera: Tensor) -> Tensor:
    """Invert poses stored as rows of twelve numbers."""
    return invert_pose(as_homogeneous(flat_world_to_camera.double().reshape(-1, 3, 4)))


def different_frames(frames: int) -> Tensor:
    """Mark the pairs of two different frames."""
    return ~torch.eye(frames, dtype=torch.bool)


def pairs_with_parallax(relative_poses: Tensor) -> Tensor:
    """Mark the pairs of frames (batch frames frames) whose cameras are apart.

    Without that, and without perturbation, published fundamental matrices are rounding noise of the machine.
    """
    translation = pairwise_poses(relative_poses)[..., :3, 3]
    return (translation.abs() >= ROUNDING_OF_TRANSLATIONS).any(-1) & different_frames(translation.shape[1])


def compare_up_to_scale(checks: Checks, name: str, ours: Tensor, theirs: Tensor, *, maximum: float) -> None:
    """Compare fundamental matrices (... 3 3), of which only the direction means anything; zeros must be zeros."""
    ours, theirs = ours.double(), theirs.double()
    normalized = [each / each.norm(dim=(-2, -1), keepdim=True).clamp_min(1e-30) for each in (ours, theirs)]
    checks.close(name, normalized[0], normalized[1], maximum=maximum)

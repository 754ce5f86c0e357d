"""Camera errors between a true and an estimated camera path, frame by frame, in float64.

Both paths are taken relative to their first camera, left: inv(c2w_0) @ c2w_i. Two readings of the same errors: the
published convention (CamI2V, arXiv 2410.15957: SUM over frames, rotations in radians) and the mean over frames 1..T-1
(rotations in degrees), which does not grow with the length of a clip; frame 0 is without error by construction.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from einops import rearrange
from jaxtyping import Float64
from torch import Tensor

Path = Float64[Tensor, "*batch frames 3 4"]
RelativePath = Float64[Tensor, "*batch frames 4 4"]
PerFrame = Float64[Tensor, "*batch frames"]

TranslationUnit = Literal["own", "first"]
"""`own`: each path is divided by its own extent (the published `_rel`); `first`: both by the true path's (`_abs`)."""

EXTENT_EPSILON = 1e-9
"""Added to a path's extent before dividing, as published: under `first` a true path without translation explodes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CameraErrors:
    """Errors of every frame; frame 0 is zero up to rounding."""

    rotation_radians: PerFrame
    translation: PerFrame
    """Distance of the camera centres in units of the path's extent."""
    cammc: PerFrame
    """L2 norm of the twelve differences of [R | t] (camera motion consistency)."""

    def published(self) -> dict[str, Tensor]:
        """Return the published figures per clip: sums over frames, radians."""
        return {
            "RotErr_sum_rad": self.rotation_radians.sum(-1),
            "TransErr_sum": self.translation.sum(-1),
            "CamMC_sum": self.cammc.sum(-1),
        }

    def per_frame(self) -> dict[str, Tensor]:
        """Return the mean over frames 1..T-1 per clip, rotation in degrees."""
        return {
            "RotErr_mean_deg": torch.rad2deg(self.rotation_radians[..., 1:].mean(-1)),
            "TransErr_mean": self.translation[..., 1:].mean(-1),
            "CamMC_mean": self.cammc[..., 1:].mean(-1),
        }

    def figures(self) -> dict[str, Tensor]:
        """Return both readings, by name."""
        return self.published() | self.per_frame()


def camera_errors(
    truth: Path, estimate: Float64[Tensor, "*batch estimated_frames 3 4"], *, unit: TranslationUnit = "own"
) -> CameraErrors:
    """Compare two world-to-camera paths frame by frame.

    Raises ValueError where the paths have different lengths or fewer than two frames.
    """
    if truth.shape != estimate.shape or truth.shape[-3] < 2:
        raise ValueError(
            f"camera paths of shape {tuple(truth.shape)} (true) and {tuple(estimate.shape)} (estimated): "
            "both need the same frames, at least two"
        )
    true, estimated = relative_to_first(truth), relative_to_first(estimate)
    true_extent = translation_extent(true)
    estimated_extent = translation_extent(estimated) if unit == "own" else true_extent
    true, estimated = _divide_translation(true, true_extent), _divide_translation(estimated, estimated_extent)
    difference = true[..., :3, :] - estimated[..., :3, :]
    return CameraErrors(
        rotation_radians=rotation_angle(true[..., :3, :3], estimated[..., :3, :3]),
        translation=torch.linalg.vector_norm(difference[..., 3], dim=-1),
        cammc=torch.linalg.vector_norm(rearrange(difference, "... rows columns -> ... (rows columns)"), dim=-1),
    )


def stationary_errors(truth: Path) -> CameraErrors:
    """Return what an estimate that says "the camera never moved" scores: the reference for counting failures."""
    return camera_errors(truth, truth[..., :1, :, :].expand_as(truth))


def relative_to_first(world_to_camera: Path) -> RelativePath:
    """Return camera-to-world poses in the first camera's axes.

    A general matrix inverse, as published: on files of nine digits the transpose of a rotation differs by 1e-9, which
    the arc cosine of `rotation_angle` turns into 1e-4.
    """
    last_row = world_to_camera.new_tensor([0, 0, 0, 1]).expand(*world_to_camera.shape[:-2], 1, 4)
    camera_to_world = torch.linalg.inv(torch.cat([world_to_camera, last_row], dim=-2))
    return torch.linalg.inv(camera_to_world[..., :1, :, :]) @ camera_to_world


def rotation_angle(
    first: Float64[Tensor, "*shape 3 3"], second: Float64[Tensor, "*shape 3 3"]
) -> Float64[Tensor, "*shape"]:
    """Return the angle between rotations in radians: acos of the clamped (trace(R1^T R2) - 1) / 2.

    Rounded files put a floor under it: nine digits give up to 1e-4 per frame between identical poses.
    """
    trace = (first * second).sum((-2, -1))
    return torch.acos(((trace - 1) / 2).clamp(-1, 1))


def translation_extent(relative: RelativePath) -> Float64[Tensor, "*batch"]:
    """Return a path's largest distance from its first camera."""
    return torch.linalg.vector_norm(relative[..., :3, 3], dim=-1).amax(-1)


def _divide_translation(relative: RelativePath, extent: Float64[Tensor, "*batch"]) -> RelativePath:
    scale = (extent + EXTENT_EPSILON)[..., None, None]
    translation = relative[..., :3, 3] / scale
    return torch.cat([torch.cat([relative[..., :3, :3], translation[..., None]], -1), relative[..., 3:, :]], -2)

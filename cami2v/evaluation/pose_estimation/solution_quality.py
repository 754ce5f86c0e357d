"""Is a reconstruction believable? Judged by its own matches and points, without ground truth.

What this cannot see: on a nearly planar or distant scene a path with its depth reversed fits the matches about as well
as the true one, within the range of good paths of other clips. `reversed_depth` compares the two on the same matches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pycolmap
from jaxtyping import Float64

from cami2v.evaluation.pose_estimation.base import (
    EstimatedPath,
    FailedEstimate,
    FailureReason,
    IntrinsicsPixels,
    SolutionQuality,
)
from cami2v.evaluation.pose_estimation.two_view_matches import PairMatches, agreement, epipolar_cost
from cami2v.geometry.metric_scale import SeenPoints

PosedFrames = Float64[np.ndarray, "frames 3 4"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SolutionBounds:
    """A path outside these bounds is a failure with a reason, not a number in a mean."""

    max_reprojection_error_pixels: float
    max_epipolar_outlier_share: float
    max_behind_camera_share: float
    min_extent_to_depth: float

    def violation(self, quality: SolutionQuality) -> FailedEstimate | None:
        """Return the first bound that a solution violates, as a failure, or None."""
        if quality.extent_to_depth < self.min_extent_to_depth:
            return FailedEstimate(
                reason=FailureReason.COLLAPSED,
                detail=f"path extent is {quality.extent_to_depth:.2g} of the depth, below {self.min_extent_to_depth:g}",
            )
        if quality.behind_camera_share > self.max_behind_camera_share:
            return FailedEstimate(
                reason=FailureReason.MIRRORED,
                detail=f"{quality.behind_camera_share:.0%} of matches behind a camera, "
                f"above {self.max_behind_camera_share:.0%}",
            )
        if quality.epipolar_outlier_share > self.max_epipolar_outlier_share:
            return FailedEstimate(
                reason=FailureReason.INCONSISTENT,
                detail=f"{quality.epipolar_outlier_share:.0%} of matches off their epipolar lines, "
                f"above {self.max_epipolar_outlier_share:.0%}",
            )
        if quality.reprojection_error_pixels > self.max_reprojection_error_pixels:
            return FailedEstimate(
                reason=FailureReason.INCONSISTENT,
                detail=f"mean reprojection error {quality.reprojection_error_pixels:.2g} pixels, "
                f"above {self.max_reprojection_error_pixels:g}",
            )
        return None


def registered_path(model: pycolmap.Reconstruction, frames: int) -> PosedFrames | FailedEstimate:
    """Return the world-to-camera pose of every frame, or a failure where one has none or is not finite."""
    poses = {
        int(Path(image.name).stem): image.cam_from_world().matrix() for image in model.images.values() if image.has_pose
    }
    if missing := sorted(set(range(frames)) - poses.keys()):
        return FailedEstimate(
            reason=FailureReason.UNREGISTERED_FRAME,
            detail=f"{len(poses)} of {frames} frames registered, first without a pose: {missing[0]}",
        )
    path = np.stack([poses[frame] for frame in range(frames)]).astype(np.float64)
    if not np.isfinite(path).all():
        return FailedEstimate(reason=FailureReason.COLLAPSED, detail="poses are not finite")
    return path


def assess(
    model: pycolmap.Reconstruction,
    path: PosedFrames,
    matches: list[PairMatches],
    intrinsics_pixels: IntrinsicsPixels,
    *,
    max_error_pixels: float,
) -> SolutionQuality:
    """Measure how well a reconstruction agrees with the matches it was made from."""
    agreed = agreement(matches, path, intrinsics_pixels, max_error_pixels=max_error_pixels)
    points = np.array([point.xyz for point in model.points3D.values()], dtype=np.float64).reshape(-1, 3)
    return SolutionQuality(
        points=len(points),
        reprojection_error_pixels=float(model.compute_mean_reprojection_error()),
        epipolar_outlier_share=agreed.epipolar_outlier_share,
        behind_camera_share=agreed.behind_camera_share,
        extent_to_depth=extent_to_depth(path, points),
    )


def first_frame_points(model: pycolmap.Reconstruction) -> SeenPoints:
    """Return the points that the first frame has observations of, where they were observed; those in front of it."""
    image = min(model.images.values(), key=lambda each: each.name)
    camera, pose = model.cameras[image.camera_id], image.cam_from_world().matrix()
    seen = [point for point in image.points2D if point.has_point3D()]
    points = np.array([model.points3D[point.point3D_id].xyz for point in seen], dtype=np.float64).reshape(-1, 3)
    positions = np.array([point.xy for point in seen], dtype=np.float64).reshape(-1, 2)
    depths = points @ pose[2, :3] + pose[2, 3]
    ahead = depths > 0
    size = np.array([camera.width, camera.height], dtype=np.float64)
    return SeenPoints(positions=positions[ahead] / size, depths=depths[ahead])


def best_fit(
    paths: Sequence[EstimatedPath],
    matches: list[PairMatches],
    intrinsics_pixels: IntrinsicsPixels,
    *,
    max_error_pixels: float,
) -> EstimatedPath:
    """Return the path that the matches fit best; the first of equals."""
    return min(
        paths,
        key=lambda estimate: epipolar_cost(
            matches, estimate.world_to_camera, intrinsics_pixels, max_error_pixels=max_error_pixels
        ),
    )


def extent_to_depth(path: PosedFrames, points: Float64[np.ndarray, "points 3"]) -> float:
    """Return the largest distance from the first camera over the median depth of the points; 0 without points."""
    if not len(points):
        return 0.0
    centers = -np.einsum("tji,tj->ti", path[:, :, :3], path[:, :, 3])
    extent = np.linalg.norm(centers - centers[0], axis=1).max()
    depths = points @ path[:, 2, :3].T + path[:, 2, 3]
    return float(extent / max(np.median(depths), np.finfo(np.float64).tiny))

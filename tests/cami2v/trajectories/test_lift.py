"""A video's path: which frames an estimator is given, and what becomes of its answer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from cami2v.evaluation.pose_estimation.base import (
    EstimatedPath,
    FailedEstimate,
    FailureReason,
    Frames,
    IntrinsicsPixels,
    PoseEstimate,
    PoseEstimator,
    SolutionQuality,
)
from cami2v.trajectories.lift import lift
from cami2v.trajectories.presets import preset_path
from cami2v.video import write_mp4

QUALITY = SolutionQuality(
    points=99, reprojection_error_pixels=0.5, epipolar_outlier_share=0.0, behind_camera_share=0.0, extent_to_depth=0.3
)


class Estimator(PoseEstimator):
    """Finds an orbit in everything, and remembers what it was shown."""

    def __init__(self, failure: FailedEstimate | None = None) -> None:
        self.failure = failure

    def estimate(self, frames: Frames, intrinsics_pixels: IntrinsicsPixels, seed: int) -> PoseEstimate:
        self.shown, self.intrinsics, self.seed = frames, intrinsics_pixels, seed
        path = preset_path("orbit_left").sample(len(frames)).world_to_camera.numpy()
        return self.failure or EstimatedPath(world_to_camera=path, quality=QUALITY)

    def describe(self) -> dict[str, str | int | float]:
        return {}


def video(path: Path) -> Path:
    """Thirteen frames of 64 x 96, each brighter than the last."""
    frames = np.stack([np.full((64, 96, 3), 10 + 15 * number, np.uint8) for number in range(13)])
    write_mp4(path, frames, 8, crf=4)
    return path


def test_frames_are_spread_over_the_video_and_intrinsics_follow_the_scaling(tmp_path: Path) -> None:
    estimator = Estimator()
    lifted = lift(video(tmp_path / "walk.mp4"), estimator, frames=5, short_side=32, field_of_view_degrees=90.0, seed=7)
    assert lifted.frame_numbers == (0, 3, 6, 9, 12)
    assert estimator.shown.shape == (5, 32, 48, 3)
    levels = estimator.shown.mean(axis=(1, 2, 3))
    np.testing.assert_allclose(levels, [10, 55, 100, 145, 190], atol=2)
    np.testing.assert_allclose(estimator.intrinsics, np.tile([24, 24, 24, 16], (5, 1)))
    assert (estimator.seed, lifted.size) == (7, (64, 96))
    path = lifted.trajectory
    assert torch.equal(path.world_to_camera, preset_path("orbit_left").sample(5).world_to_camera)
    assert path.intrinsics_normalized is not None
    np.testing.assert_allclose(path.intrinsics_normalized[0], [0.5, 0.75, 0.5, 0.5])


def test_what_cannot_be_lifted_says_why(tmp_path: Path) -> None:
    failed = Estimator(FailedEstimate(reason=FailureReason.NO_MODEL, detail="3 verified matches"))
    path = video(tmp_path / "walk.mp4")
    with pytest.raises(ValueError, match=r"walk.mp4: no camera path, no model \(3 verified matches\)"):
        lift(path, failed, frames=4, short_side=64, field_of_view_degrees=None, seed=0)
    for frames in (1, 14):
        with pytest.raises(ValueError, match=f"lift.frames={frames}: .* has 13 frames; choose 2 to 13"):
            lift(path, failed, frames=frames, short_side=64, field_of_view_degrees=None, seed=0)

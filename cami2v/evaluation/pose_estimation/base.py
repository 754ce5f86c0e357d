"""The contract of a pose estimator: a video in, a camera path or a reason for failure out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from jaxtyping import Float64, UInt8

from cami2v.geometry.metric_scale import SeenPoints

Frames = UInt8[np.ndarray, "frames height width 3"]
IntrinsicsPixels = Float64[np.ndarray, "frames 4"]


class FailureReason(StrEnum):
    """Why a readable video has no camera path. Every failed trial has exactly one."""

    TOO_SMALL = "too small"
    """Frames with fewer pixels than the estimator can look at."""
    NO_MODEL = "no model"
    """Too few matches, or no parallax: a frozen or purely rotating camera gives no reconstruction either."""
    UNREGISTERED_FRAME = "unregistered frame"
    MIRRORED = "mirrored"
    """Too many matches lie behind the cameras."""
    COLLAPSED = "collapsed"
    """All cameras at one place, or poses that are not finite."""
    INCONSISTENT = "inconsistent"
    """The path contradicts the matches it was made from."""
    CRASHED = "crashed"
    """The estimator's process died."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """What an estimate says about itself, without ground truth; each kind of estimator has its own."""

    def describe(self) -> str:
        """Return the quality in a phrase."""
        raise NotImplementedError(f"{type(self).__name__} does not say what it is")


@dataclass(frozen=True, slots=True, kw_only=True)
class SolutionQuality(Quality):
    """Of a reconstruction, by its own matches and points."""

    points: int
    reprojection_error_pixels: float
    """Mean over the reconstructed points' observations."""
    epipolar_outlier_share: float
    """Share of verified matches further from their epipolar line than the matcher's bound."""
    behind_camera_share: float
    """Share of verified matches with parallax that lie behind one of their two cameras."""
    extent_to_depth: float
    """Largest distance from the first camera, over the median depth of the points."""
    rescued_by: str = ""
    """What turned a failure or a reversed depth into this solution; pixels are those of the frames it was made from."""

    def describe(self) -> str:
        """Return the quality in a phrase."""
        return f"{self.points} points, {self.reprojection_error_pixels:.2g} pixels off"


@dataclass(frozen=True, slots=True, kw_only=True)
class EstimatedPath:
    """A camera for every frame, in the estimator's own world and unit."""

    world_to_camera: Float64[np.ndarray, "frames 3 4"]
    quality: Quality
    first_frame_points: SeenPoints | None = None
    """What the first camera sees of the scene; None for estimators that place no points. Their metric depth gives the
    path's unit (`measures.metric_poses`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedEstimate:
    """No usable path, and why."""

    reason: FailureReason
    detail: str


PoseEstimate = EstimatedPath | FailedEstimate


class PoseEstimator(ABC):
    """Estimates camera paths. Instances are picklable: clips are spread over processes."""

    def prepare(self) -> None:  # noqa: B027  # most estimators need nothing
        """Raise ValueError where what estimating needs is not there (a package, weights)."""

    @abstractmethod
    def estimate(self, frames: Frames, intrinsics_pixels: IntrinsicsPixels, seed: int) -> PoseEstimate:
        """Estimate one camera per frame; equal arguments give equal results. fx fy cx cy are known, not estimated."""

    def estimate_trials(
        self, frames: Frames, intrinsics_pixels: IntrinsicsPixels, seeds: Sequence[int]
    ) -> list[PoseEstimate]:
        """Estimate once per seed; estimators that can share work between trials override this."""
        return [self.estimate(frames, intrinsics_pixels, seed) for seed in seeds]

    @abstractmethod
    def describe(self) -> dict[str, str | int | float]:
        """Return everything that decides a result: name, version and settings; written into every result."""

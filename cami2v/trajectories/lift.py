"""The camera path of a video, from the estimator that evaluation uses."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image

from cami2v.evaluation.pose_estimation.base import FailedEstimate, PoseEstimator, Quality
from cami2v.inference.image_clip import DEFAULT_FIELD_OF_VIEW_DEGREES, field_of_view_intrinsics
from cami2v.trajectories.trajectory import Trajectory
from cami2v.video import probe, read_frames


@dataclass(frozen=True, slots=True, kw_only=True)
class LiftedPath:
    """The cameras of some frames of a video, in a unit of the video's own."""

    trajectory: Trajectory
    frame_numbers: tuple[int, ...]
    size: tuple[int, int]
    """Height and width of the video."""
    quality: Quality


def lift(
    video: Path,
    estimator: PoseEstimator,
    *,
    frames: int,
    short_side: int,
    field_of_view_degrees: float | None,
    seed: int,
) -> LiftedPath:
    """Estimate the cameras of `frames` frames, evenly from the first to the last, scaled down to a short side.

    The angle along the width must be known: a wrong one bends the path. None: 90 degrees along the longer side. Raises
    ValueError for an unreadable or shorter video, and where the estimator finds no path, with its reason.
    """
    info = probe(video)
    if not 2 <= frames <= info.frames:
        raise ValueError(f"lift.frames={frames}: {video} has {info.frames} frames; choose 2 to {info.frames}")
    numbers = tuple(np.linspace(0, info.frames - 1, frames).round().astype(int).tolist())
    images = _scaled(read_frames(video, numbers), short_side)
    height, width = images.shape[1:3]
    side = max(info.height, info.width) if field_of_view_degrees is None else info.width
    degrees = DEFAULT_FIELD_OF_VIEW_DEGREES if field_of_view_degrees is None else field_of_view_degrees
    known = field_of_view_intrinsics(degrees, side, info.height, info.width).repeat(frames, 1)
    pixels = known.numpy() * np.array([width, height, width, height])
    estimate = estimator.estimate(images, pixels, seed)
    if isinstance(estimate, FailedEstimate):
        raise ValueError(
            f"source={video}: no camera path, {estimate.reason} ({estimate.detail}); it needs parallax and texture: "
            "try more frames (lift.frames), another part of the video, or the true field_of_view_degrees"
        )
    return LiftedPath(
        trajectory=Trajectory(world_to_camera=torch.from_numpy(estimate.world_to_camera), intrinsics_normalized=known),
        frame_numbers=numbers,
        size=(info.height, info.width),
        quality=estimate.quality,
    )


def _scaled(
    frames: UInt8[np.ndarray, "frames old_height old_width 3"], short_side: int
) -> UInt8[np.ndarray, "frames height width 3"]:
    height, width = frames.shape[1:3]
    factor = short_side / min(height, width)
    if factor >= 1:
        return frames
    size = (round(width * factor), round(height * factor))
    return np.stack([np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.LANCZOS)) for frame in frames])

"""Metres per pose unit of one clip, or why there is no believable number.

The published evaluation of RealCam-I2V takes the median, over the 3-D points seen in the first image, of metric depth
at the point's pixel over the point's depth in that camera. Here the points of several frames are pooled, and the
median counts only where enough points agree.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from jaxtyping import Float32, Float64

from data_pipeline.metric_scale.points import ClipPoints
from data_pipeline.metric_scale.settings import ScaleSettings

INLIER_FACTOR = 1.25
"""A ratio within this factor of the median is an inlier, as in the delta_1 of depth papers."""

_SIGMA_OF_MAD = 1.4826


class Lack(StrEnum):
    """Why a clip has no scale."""

    UNREADABLE = "unreadable"
    DEPTH_FAILED = "depth_failed"
    TOO_FEW_MATCHES = "too_few_matches"
    POSES_OFF_FRAMES = "poses_off_frames"
    TOO_LITTLE_PARALLAX = "too_little_parallax"
    DEPTH_OUT_OF_RANGE = "depth_out_of_range"
    TOO_MUCH_SPREAD = "too_much_spread"


@dataclass(frozen=True, slots=True, kw_only=True)
class Unscaled:
    """A clip without scale."""

    reason: Lack
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleEstimate:
    """A clip's scale and how well it is known; six significant digits."""

    metres_per_unit: float
    points: int
    spread: float
    """1.4826 times the median absolute deviation of log(metric depth / triangulated depth)."""
    inlier_share: float
    """Of ratios within a factor of 1.25 of the median."""
    frame_scales: dict[str, float]
    """The median of each frame by its number: they show drift along the clip."""


def enough_points(points: ClipPoints, settings: ScaleSettings) -> Unscaled | None:
    """Return why too little could be triangulated to ask for depth; None where it is enough."""
    placed = sum(len(frame.depths) for frame in points.frames)
    if placed >= settings.min_points:
        return None
    seen = (
        f"{placed} points, scale.min_points is {settings.min_points}; of {points.matches} matches {points.off_lines} "
        f"are more than {settings.max_sampson_pixels:g} pixels off their epipolar lines, {points.without_parallax} "
        f"have less than {settings.min_parallax_degrees:g} degrees of parallax, {points.behind} are behind a camera"
    )
    if points.matches < settings.min_points:
        return Unscaled(reason=Lack.TOO_FEW_MATCHES, message=seen)
    flat = points.without_parallax >= points.off_lines + points.behind
    return Unscaled(reason=Lack.TOO_LITTLE_PARALLAX if flat else Lack.POSES_OFF_FRAMES, message=seen)


def estimate_scale(
    points: ClipPoints, depth_metres: Float32[np.ndarray, "frames rows columns"], settings: ScaleSettings
) -> ScaleEstimate | Unscaled:
    """Compare triangulated depths with metric ones, one map per frame of `points`."""
    ratios = {}
    for frame, depths in zip(points.frames, depth_metres, strict=True):
        metres = at_points(depths, frame.positions)
        known = (metres > 0) & (metres >= settings.nearest_metres) & (metres <= settings.farthest_metres)
        if known.any():
            ratios[str(frame.number)] = metres[known] / frame.depths[known]
    pooled = np.concatenate(list(ratios.values())) if ratios else np.zeros(0)
    if len(pooled) < settings.min_points:
        placed = sum(len(frame.depths) for frame in points.frames)
        bounds = f"{settings.nearest_metres:g} to {settings.farthest_metres:g} m"
        return Unscaled(
            reason=Lack.DEPTH_OUT_OF_RANGE,
            message=f"{len(pooled)} of {placed} points are {bounds} deep, scale.min_points is {settings.min_points}",
        )
    scale = float(np.median(pooled))
    off = np.abs(np.log(pooled / scale))
    spread = float(_SIGMA_OF_MAD * np.median(off))
    inliers = float(np.mean(off <= np.log(INLIER_FACTOR)))
    if spread > settings.max_spread:
        return Unscaled(
            reason=Lack.TOO_MUCH_SPREAD,
            message=f"spread {spread:.3g} of {len(pooled)} points around {scale:.4g} m per unit, scale.max_spread is "
            f"{settings.max_spread:g}; {inliers:.0%} within a factor of {INLIER_FACTOR:g}",
        )
    return ScaleEstimate(
        metres_per_unit=_rounded(scale),
        points=len(pooled),
        spread=_rounded(spread),
        inlier_share=_rounded(inliers),
        frame_scales={number: _rounded(float(np.median(values))) for number, values in ratios.items()},
    )


def at_points(
    depth: Float32[np.ndarray, "rows columns"], positions: Float64[np.ndarray, "points 2"]
) -> Float64[np.ndarray, " points"]:
    """Read a map at positions divided by width and height: the pixel each lies in, as published (truncation)."""
    rows, columns = depth.shape
    x = np.clip((positions[:, 0] * columns).astype(np.int64), 0, columns - 1)
    y = np.clip((positions[:, 1] * rows).astype(np.int64), 0, rows - 1)
    return depth[y, x].astype(np.float64)


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")

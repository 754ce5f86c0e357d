"""Metres per pose unit of one clip, or why there is no believable number.

The rule is `cami2v.geometry.metric_scale`'s. Here the points of several frames are pooled, and their median counts
only where enough points agree.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from jaxtyping import Float32

from cami2v.geometry.metric_scale import INLIER_FACTOR, depth_ratios, metric_scale
from data_pipeline.metric_scale.points import ClipPoints
from data_pipeline.metric_scale.settings import ScaleSettings


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
    placed = sum(len(frame.points.depths) for frame in points.frames)
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
    bounds_metres = {"nearest_metres": settings.nearest_metres, "farthest_metres": settings.farthest_metres}
    ratios = {
        str(frame.number): found
        for frame, depths in zip(points.frames, depth_metres, strict=True)
        if len(found := depth_ratios(depths, frame.points, **bounds_metres))
    }
    pooled = np.concatenate(list(ratios.values())) if ratios else np.zeros(0)
    if len(pooled) < settings.min_points:
        placed = sum(len(frame.points.depths) for frame in points.frames)
        bounds = f"{settings.nearest_metres:g} to {settings.farthest_metres:g} m"
        return Unscaled(
            reason=Lack.DEPTH_OUT_OF_RANGE,
            message=f"{len(pooled)} of {placed} points are {bounds} deep, scale.min_points is {settings.min_points}",
        )
    scale = metric_scale(pooled)
    if scale.spread > settings.max_spread:
        return Unscaled(
            reason=Lack.TOO_MUCH_SPREAD,
            message=f"spread {scale.spread:.3g} of {len(pooled)} points around {scale.metres_per_unit:.4g} m per unit, "
            f"scale.max_spread is {settings.max_spread:g}; {scale.inlier_share:.0%} within a factor of "
            f"{INLIER_FACTOR:g}",
        )
    return ScaleEstimate(
        metres_per_unit=_rounded(scale.metres_per_unit),
        points=len(pooled),
        spread=_rounded(scale.spread),
        inlier_share=_rounded(scale.inlier_share),
        frame_scales={number: _rounded(float(np.median(values))) for number, values in ratios.items()},
    )


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")

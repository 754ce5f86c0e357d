"""Metres per unit of something known up to scale: metric depth at its points, over their own depth.

RealCam-I2V's evaluation (arXiv 2502.10059) takes the median of that ratio over the points seen in the first image.
Imports no torch: data processes use it too.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64, UInt8
from PIL import Image

INLIER_FACTOR = 1.25
"""A ratio within this factor of the median is an inlier, as in the delta_1 of depth papers."""

_SIGMA_OF_MAD = 1.4826


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenPoints:
    """Points of a scene as one camera sees them."""

    positions: Float64[np.ndarray, "points 2"]
    """Divided by the frame's width and height."""
    depths: Float64[np.ndarray, " points"]
    """Along the camera's optical axis, in the scene's own unit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricScale:
    """The median ratio, and how well the points agree on it."""

    metres_per_unit: float
    points: int
    spread: float
    """1.4826 times the median absolute deviation of the ratios' logarithms."""
    inlier_share: float
    """Of ratios within a factor of 1.25 of the median."""


def depth_ratios(
    depth_metres: Float32[np.ndarray, "rows columns"],
    points: SeenPoints,
    *,
    nearest_metres: float,
    farthest_metres: float,
) -> Float64[np.ndarray, " known"]:
    """Return metric depth over own depth of the points whose metric depth is known (above 0) and within bounds."""
    metres = at_points(depth_metres, points.positions)
    known = (metres > 0) & (metres >= nearest_metres) & (metres <= farthest_metres)
    return metres[known] / points.depths[known]


def metric_scale(ratios: Float64[np.ndarray, " ratios"]) -> MetricScale:
    """Return the median of positive ratios. Raises ValueError where there are none."""
    if not len(ratios):
        raise ValueError("a scale of no points: give one ratio or more")
    scale = float(np.median(ratios))
    off = np.abs(np.log(ratios / scale))
    return MetricScale(
        metres_per_unit=scale,
        points=len(ratios),
        spread=float(_SIGMA_OF_MAD * np.median(off)),
        inlier_share=float(np.mean(off <= np.log(INLIER_FACTOR))),
    )


def at_points(
    depth: Float32[np.ndarray, "rows columns"], positions: Float64[np.ndarray, "points 2"]
) -> Float64[np.ndarray, " points"]:
    """Read a map at positions divided by width and height: the pixel each lies in, as published (truncation)."""
    rows, columns = depth.shape
    x = np.clip((positions[:, 0] * columns).astype(np.int64), 0, columns - 1)
    y = np.clip((positions[:, 1] * rows).astype(np.int64), 0, rows - 1)
    return depth[y, x].astype(np.float64)


def square_pixels(
    frame: UInt8[np.ndarray, "height width 3"], *, aspect: float, short_side: int | None
) -> UInt8[np.ndarray, "rows columns 3"]:
    """Resize a frame so that its pixels (`aspect` times as wide as high) are square and its short side the given one.

    That is what depth networks expect.
    """
    height, width = frame.shape[0], frame.shape[1] * aspect
    factor = 1.0 if short_side is None else short_side / min(height, width)
    size = (round(width * factor), round(height * factor))
    return np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BICUBIC))

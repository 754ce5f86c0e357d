"""Carry one frame into another camera through its depth: the check that images, depths and poses belong together."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float32, Float64, UInt8

EDGE_BEND = 0.01
"""Inverse depth is affine over a plane's image. Where it bends by more than this share of itself, surfaces meet, and an
interpolated depth or colour belongs to neither."""


def sample(
    image: Float32[np.ndarray, "height width channels"],
    x: Float64[np.ndarray, "*shape"],
    y: Float64[np.ndarray, "*shape"],
) -> Float32[np.ndarray, "*shape channels"]:
    """Interpolate bilinearly at pixel positions whose centres lie at k + 0.5; positions outside are clamped."""
    height, width = image.shape[:2]
    x, y = np.clip(x - 0.5, 0, width - 1), np.clip(y - 0.5, 0, height - 1)
    left, top = np.minimum(x.astype(int), width - 2), np.minimum(y.astype(int), height - 2)
    a, b = (x - left)[..., None], (y - top)[..., None]
    upper = image[top, left] * (1 - a) + image[top, left + 1] * a
    lower = image[top + 1, left] * (1 - a) + image[top + 1, left + 1] * a
    return (upper * (1 - b) + lower * b).astype(np.float32)


def depth_edges(depth: Float32[np.ndarray, "height width"]) -> Bool[np.ndarray, "height width"]:
    """Mark pixels within one pixel of where surfaces at different depths meet."""
    inverse = np.pad(1 / depth, 1, mode="reflect", reflect_type="odd")
    middle = inverse[1:-1, 1:-1]
    across = np.abs(inverse[1:-1, 2:] + inverse[1:-1, :-2] - 2 * middle)
    along = np.abs(inverse[2:, 1:-1] + inverse[:-2, 1:-1] - 2 * middle)
    bends = np.pad(np.maximum(across, along) > EDGE_BEND * middle, 1)
    height, width = depth.shape
    return np.any([bends[i : i + height, j : j + width] for i in range(3) for j in range(3)], axis=0)


def warp(
    source: UInt8[np.ndarray, "height width 3"],
    source_depth: Float32[np.ndarray, "height width"],
    target_depth: Float32[np.ndarray, "height width"],
    source_to_target: Float64[np.ndarray, "4 4"],
    intrinsics_pixels: Float64[np.ndarray, "4"],
) -> tuple[Float32[np.ndarray, "height width 3"], Bool[np.ndarray, "height width"]]:
    """Predict the target frame from the source frame, and tell which of its pixels the source frame sees.

    Depths and the translation share one unit. A pixel counts as seen where the source's depth agrees to 1 percent and
    neither frame has a depth edge there.
    """
    height, width = target_depth.shape
    focal_x, focal_y, centre_x, centre_y = intrinsics_pixels
    columns, rows = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    rays = np.stack([(columns - centre_x) / focal_x, (rows - centre_y) / focal_y, np.ones_like(rows)], axis=-1)
    rotation, translation = source_to_target[:3, :3], source_to_target[:3, 3]
    points = (rays * target_depth[..., None] - translation) @ rotation
    ahead = points[..., 2] > 1e-6
    depth = np.where(ahead, points[..., 2], 1)
    x, y = focal_x * points[..., 0] / depth + centre_x, focal_y * points[..., 1] / depth + centre_y
    inside = ahead & (x >= 0.5) & (x <= width - 0.5) & (y >= 0.5) & (y <= height - 0.5)
    edges = depth_edges(source_depth).astype(np.float32)
    layers = sample(
        np.concatenate([source, source_depth[..., None], edges[..., None]], axis=-1, dtype=np.float32), x, y
    )
    agrees = np.abs(layers[..., 3] / depth - 1) < 0.01
    seen = inside & agrees & (layers[..., 4] == 0) & ~depth_edges(target_depth)
    return layers[..., :3], seen

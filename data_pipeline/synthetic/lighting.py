"""Light that does not depend on the viewer, baked into the texels: a lamp in the ceiling, ambience, contact shadows."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32, Float64
from PIL import Image

from data_pipeline.synthetic.rooms import Room

SAMPLES_PER_METRE = 12
REACH_METRES = 0.22
"""Distance over which a neighbouring surface darkens this one."""


def _box_distance(
    points: Float64[np.ndarray, "points 3"],
    centre: Float64[np.ndarray, "3"],
    axes: Float64[np.ndarray, "3 3"],
    half: Float64[np.ndarray, "3"],
) -> Float64[np.ndarray, " points"]:
    outside = np.maximum(np.abs((points - centre) @ axes) - half, 0)
    return np.linalg.norm(outside, axis=1)


def light_at(
    room: Room, points: Float64[np.ndarray, "points 3"], normal: Float64[np.ndarray, "3"], own_box: int
) -> Float64[np.ndarray, " points"]:
    """Return the brightness of surface points with the given normal, at most 1.1."""
    lamp = np.array([0.08 * room.width, -room.height + 0.3, -0.06 * room.depth])
    towards = lamp - points
    distance = np.linalg.norm(towards, axis=1)
    cosine = np.clip(towards @ normal / distance, 0, 1)
    sky = 0.74 + 0.05 * normal[0] - 0.08 * normal[2] + 0.1 * max(normal[1], 0)
    light = sky + 0.6 * cosine / (1 + (distance / 3.5) ** 2)
    sides = ((0, room.width / 2, 1), (0, room.width / 2, -1), (2, room.depth / 2, 1), (2, room.depth / 2, -1))
    gaps = [(half - sign * points[:, axis], axis) for axis, half, sign in sides]
    gaps += [(-points[:, 1], 1), (points[:, 1] + room.height, 1)]
    for gap, axis in gaps:
        if abs(normal[axis]) < 0.9:
            light = light * (1 - 0.3 * np.exp(-np.maximum(gap, 0) / (1.5 * REACH_METRES)))
    for index, box in enumerate(room.boxes):
        if index != own_box:
            near = _box_distance(points, box.centre, box.axes, box.half_size)
            light = light * (1 - 0.4 * np.exp(-near / REACH_METRES))
    return np.minimum(light, 1.1)


def bake_light(
    room: Room,
    corner: Float64[np.ndarray, "3"],
    right: Float64[np.ndarray, "3"],
    down: Float64[np.ndarray, "3"],
    own_box: int,
    shape: tuple[int, int],
    texels_per_metre: int,
) -> Float32[np.ndarray, "height width"]:
    """Return brightness factors for every texel of a rectangle; `own_box` -1 means the room itself."""
    height, width = shape
    rows = max(2, round(height * SAMPLES_PER_METRE / texels_per_metre))
    columns = max(2, round(width * SAMPLES_PER_METRE / texels_per_metre))
    v = (np.arange(rows) + 0.5) / rows * height / texels_per_metre
    u = (np.arange(columns) + 0.5) / columns * width / texels_per_metre
    points = corner + v[:, None, None] * down + u[None, :, None] * right
    coarse = light_at(room, points.reshape(-1, 3), -np.cross(right, down), own_box).reshape(rows, columns)
    return np.asarray(Image.fromarray(coarse.astype(np.float32)).resize((width, height), Image.Resampling.BICUBIC))

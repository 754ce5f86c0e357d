"""Matched points of two cameras in NumPy: rays, relative poses, distances to what the cameras allow, in pixels.

Poses are world-to-camera; a match is a point in the first image and one in the second.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64

Points = Float64[np.ndarray, "matches 2"]
Rays = Float64[np.ndarray, "matches 3"]
Distances = Float64[np.ndarray, " matches"]
Pose = Float64[np.ndarray, "3 4"]
Intrinsics = Float64[np.ndarray, "4"]
"""fx fy cx cy in pixels."""

_TINY = np.finfo(np.float64).tiny
_IN_FRONT = 1e-3
"""Depth over that of a ray's own unit below which a point cannot be seen."""


def relative_pose(first: Pose, second: Pose) -> tuple[Float64[np.ndarray, "3 3"], Float64[np.ndarray, "3"]]:
    """Return the rotation and translation from the first camera's axes to the second's."""
    rotation = second[:, :3] @ first[:, :3].T
    return rotation, second[:, 3] - rotation @ first[:, 3]


def rays(points: Points, intrinsics: Intrinsics) -> Rays:
    """Return the rays through pixels, their third component 1."""
    return np.concatenate([(points - intrinsics[2:]) / intrinsics[:2], np.ones((len(points), 1))], axis=1)


def sampson_pixels(
    first: Points,
    second: Points,
    first_pose: Pose,
    second_pose: Pose,
    first_intrinsics: Intrinsics,
    second_intrinsics: Intrinsics,
) -> Distances:
    """Return the first-order distance to the epipolar constraint (Hartley and Zisserman, 11.4.3).

    Without translation between the cameras there is no constraint: the distance is 0.
    """
    rotation, translation = relative_pose(first_pose, second_pose)
    rays_a, rays_b = rays(first, first_intrinsics), rays(second, second_intrinsics)
    essential = np.cross(translation, rotation, axisb=0, axisc=0)
    lines_b, lines_a = rays_a @ essential.T, rays_b @ essential
    # The gradient is taken with respect to pixels; rays are normalised coordinates.
    gradient = ((lines_b[:, :2] / second_intrinsics[:2]) ** 2).sum(1)
    gradient += ((lines_a[:, :2] / first_intrinsics[:2]) ** 2).sum(1)
    return np.abs((rays_b * lines_b).sum(1)) / np.sqrt(np.maximum(gradient, _TINY))


def visible_sampson_pixels(
    first: Points,
    second: Points,
    first_pose: Pose,
    second_pose: Pose,
    first_intrinsics: Intrinsics,
    second_intrinsics: Intrinsics,
    *,
    nearest: float,
) -> Distances:
    """Return the Sampson distance to the part of the epipolar lines that a visible point can reach.

    A point lies in front of both cameras, no nearer than `nearest` (pose units), and maybe infinitely far: its images
    fill a segment of the epipolar line. Where the match's nearest points on both lines are such images, this is
    `sampson_pixels`. Where the cameras share their centre the segment is the rotated point, and this is the transfer
    error of the rotation, over sqrt(2) as Sampson's distance splits an error over both images. Infinite where the
    cameras exclude that both see the point.
    """
    there = _segment_pixels(first, second, first_pose, second_pose, first_intrinsics, second_intrinsics, nearest)
    back = _segment_pixels(second, first, second_pose, first_pose, second_intrinsics, first_intrinsics, nearest)
    with np.errstate(divide="ignore"):
        return 1 / np.sqrt(there**-2.0 + back**-2.0)


def _segment_pixels(
    source: Points,
    target: Points,
    source_pose: Pose,
    target_pose: Pose,
    source_intrinsics: Intrinsics,
    target_intrinsics: Intrinsics,
    nearest: float,
) -> Distances:
    """Distance of target points to the images of their source rays between infinity and `nearest`."""
    rotation, translation = relative_pose(source_pose, target_pose)
    turned = rays(source, source_intrinsics) @ rotation.T
    # A point at depth z has the direction turned + translation / z; 1 / z runs from 0 to 1 / nearest.
    far, near = np.zeros(len(turned)), np.full(len(turned), 1 / nearest if nearest > 0 else 0.0)
    depth, forward = turned[:, 2], translation[2]
    if forward != 0:
        crossing = (_IN_FRONT - depth) / forward
        if forward < 0:
            near = np.minimum(near, crossing)
        else:
            far = np.maximum(far, crossing)
    seen = (near >= far) & (depth + far * forward >= _IN_FRONT * (1 - 1e-9))
    start, end = (
        _project(turned + np.where(seen, inverse, 0)[:, None] * translation, target_intrinsics)
        for inverse in (far, near)
    )
    along = end - start
    position = ((target - start) * along).sum(1) / np.maximum((along**2).sum(1), _TINY)
    reached = start + np.clip(position, 0, 1)[:, None] * along
    return np.where(seen, np.linalg.norm(target - reached, axis=1), np.inf)


def _project(directions: Rays, intrinsics: Intrinsics) -> Points:
    depth = np.maximum(directions[:, 2:], _IN_FRONT)
    return directions[:, :2] / depth * intrinsics[:2] + intrinsics[2:]

"""Cameras as numbers that a page can draw from with a few multiplications, all in the axes of one of them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64

from cami2v.geometry.cameras import intrinsic_matrix, invert_pose, relative_poses
from cami2v.geometry.epipolar import NEGLIGIBLE_TRANSLATION

_DIGITS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """Image points are (u, v): 0 to 1 across width and height, whatever the size and the shape of pixels.

    The ray of (u, v) in frame i is `centres[i] + t * unproject[i] @ (u, v, 1)`, t > 0; frame j sees a point X at
    `project[j] @ (X, 1)`. So the epipolar line is the cross product of the images of the ray's start and direction.
    """

    centres: Float64[np.ndarray, "frames 3"]
    unproject: Float64[np.ndarray, "frames 3 3"]
    project: Float64[np.ndarray, "frames 3 4"]

    def lines(self, first: int, second: int, points: Float[np.ndarray, "points 2"]) -> Float64[np.ndarray, "points 3"]:
        """Return the lines a u + b v + c = 0 in frame `second` of points of frame `first`, as `data view`'s page does.

        Zeros for frames that share a camera centre: they have no such lines.
        """
        start = self.project[second] @ np.append(self.centres[first], 1.0)
        if np.linalg.norm(start) < NEGLIGIBLE_TRANSLATION:
            return np.zeros((len(points), 3))
        rays = np.concatenate([points, np.ones((len(points), 1))], axis=1) @ self.unproject[first].T
        return np.cross(start, rays @ self.project[second][:, :3].T)

    def as_json(self) -> dict[str, Any]:
        """Return plain lists of numbers."""
        rounded = {name: _rounded(array.tolist()) for name, array in asdict(self).items()}
        return {**rounded, "negligible": NEGLIGIBLE_TRANSLATION}


def scene_of(
    world_to_camera: Float64[np.ndarray, "frames 3 4"],
    intrinsics_normalized: Float64[np.ndarray, "frames 4"],
    origin: int = 0,
) -> Scene:
    """Bring cameras into the axes of one of them."""
    to_first = relative_poses(torch.from_numpy(world_to_camera)[None], torch.tensor([origin]))[0]
    calibration = intrinsic_matrix(torch.from_numpy(intrinsics_normalized))
    return Scene(
        centres=to_first[:, :3, 3].numpy(),
        unproject=(to_first[:, :3, :3] @ torch.linalg.inv(calibration)).numpy(),
        project=(calibration @ invert_pose(to_first)[:, :3]).numpy(),
    )


def distances(
    lines: Float64[np.ndarray, "points 3"], points: Float[np.ndarray, "points 2"], height: int, width: float
) -> Float64[np.ndarray, " points"]:
    """Return how far points are from their lines in an image of that size, in its pixels."""
    normal = lines[:, :2] / np.array([width, height], dtype=np.float64)
    offset = (lines[:, :2] * points).sum(1) + lines[:, 2]
    return np.abs(offset) / np.maximum(np.linalg.norm(normal, axis=1), np.finfo(np.float64).tiny)


def _rounded(value: Any) -> Any:
    return [_rounded(each) for each in value] if isinstance(value, list) else float(f"{value:.{_DIGITS}g}")

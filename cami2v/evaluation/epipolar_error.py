"""Do the frames of a video show what given cameras allow? Distances of its matches to their epipolar lines, in pixels.

The unit of the cameras' translation cancels. Only the direction of a pair's translation counts, not its length: a video
that moves along the right line at another speed fits as well as the true one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from cami2v.geometry.two_view import Points, visible_sampson_pixels

PosedFrames = Float64[np.ndarray, "frames 3 4"]
IntrinsicsPixels = Float64[np.ndarray, "frames 4"]
Matches = Mapping[tuple[int, int], tuple[Points, Points]]
"""By pair of frames, the earlier first; a pair that does not match has no points."""

NEAREST_TO_EXTENT = 0.05
"""No point is nearer to a camera than this part of the path's extent: over short baselines a match has to stay near
where the rotation alone takes it."""

_GAPS = (16, 8, 4)
_NO_TRANSLATION = 1e-6
_NO_ROTATION = 1e-4


@dataclass(frozen=True, slots=True, kw_only=True)
class PairError:
    """One pair of frames. One without matches has the largest error there is."""

    first_frame: int
    second_frame: int
    matches: int
    median_pixels: float
    off_share: float
    """Of matches further than a bound from where the cameras allow them."""
    displacement_pixels: float
    """Median distance between matched points: how much anything moves; 0 without matches."""


def pairs_to_match(frames: int) -> list[tuple[int, int]]:
    """Return all pairs a 16th, an 8th and a quarter of the clip apart."""
    gaps = sorted({max(round(frames / part), 1) for part in _GAPS if frames > 1})
    return [(first, first + gap) for gap in gaps for first in range(frames - gap)]


def pair_errors(
    matches: Matches,
    world_to_camera: PosedFrames,
    intrinsics_pixels: IntrinsicsPixels,
    *,
    off_pixels: float,
    max_error_pixels: float,
) -> list[PairError]:
    """Measure every pair; errors of single matches are cut at `max_error_pixels`."""
    nearest = NEAREST_TO_EXTENT * path_extent(world_to_camera)
    errors = []
    for (first_frame, second_frame), (first, second) in matches.items():
        cameras = [*world_to_camera[[first_frame, second_frame]], *intrinsics_pixels[[first_frame, second_frame]]]
        distances = np.minimum(visible_sampson_pixels(first, second, *cameras, nearest=nearest), max_error_pixels)
        found = len(distances) > 0
        errors.append(
            PairError(
                first_frame=first_frame,
                second_frame=second_frame,
                matches=len(distances),
                median_pixels=float(np.median(distances)) if found else max_error_pixels,
                off_share=float((distances > off_pixels).mean()) if found else 1.0,
                displacement_pixels=float(np.median(np.linalg.norm(second - first, axis=1))) if found else 0.0,
            )
        )
    return errors


def path_extent(world_to_camera: PosedFrames) -> float:
    """Return a path's largest distance from its first camera."""
    centers = -np.einsum("tji,tj->ti", world_to_camera[:, :, :3], world_to_camera[:, :, 3])
    return float(np.linalg.norm(centers - centers[0], axis=1).max())


def moves(world_to_camera: PosedFrames) -> bool:
    """Tell whether a path leaves its first pose at all; what rounding adds to a pose is no movement."""
    turned = np.abs(world_to_camera[:, :, :3] - world_to_camera[:1, :, :3]).max()
    return path_extent(world_to_camera) > _NO_TRANSLATION or float(turned) > _NO_ROTATION

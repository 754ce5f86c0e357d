"""Do the frames show what the cameras say? Distances of real matches to the epipolar lines of the given cameras."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from cami2v.geometry.two_view import sampson_pixels
from data_pipeline.validate.cameras import Intrinsics, Poses
from data_pipeline.validate.findings import Check, Observation
from data_pipeline.validate.matches import Frame, find_features, match_pair, working_size

MIN_MATCHES = 40
"""Fewer say nothing about a clip; it is counted as not comparable."""

_CLEARLY = 3.0  # how many times closer the other reading of the poses must be
_FITS_PIXELS = 1.5
_OFF_PIXELS = 2.0
_ASPECT_CLEARLY = 1.5
_ASPECT_OFF_PIXELS = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SampsonErrors:
    """Median distances in pixels of the working size, under three readings of the same cameras."""

    matches: int
    given: float
    inverted: float
    """Poses taken as camera-to-world."""
    square: float
    """Pixels taken as square: fy from fx."""


def pairs_to_compare(frames: int) -> list[tuple[int, int]]:
    """Return pairs a third of the clip apart, and closer ones in its middle: wide enough for parallax, and to match."""
    third, middle = max(frames // 3, 1), frames // 2
    wide = [(start, start + third) for start in (0, third, 2 * third) if start + third < frames]
    close = [(middle - 1, min(middle + 1, frames - 1))] if frames >= 6 else []
    return wide + close


def sampson_errors(frames: Mapping[int, Frame], world_to_camera: Poses, intrinsics: Intrinsics) -> SampsonErrors | None:
    """Measure the readings on the pairs of `pairs_to_compare`; None where too little matches.

    `frames` holds those frames by number; the intrinsics are divided by the frame's size.
    """
    features = {number: find_features(frame) for number, frame in frames.items()}
    height, width = working_size(*next(iter(frames.values())).shape[:2])
    pixels = intrinsics * np.array([width, height, width, height], dtype=np.float64)
    square = pixels.copy()
    square[:, 1] = square[:, 0]
    inverted = invert(world_to_camera)
    distances: dict[str, list[np.ndarray]] = {"given": [], "inverted": [], "square": []}
    for a, b in pairs_to_compare(len(world_to_camera)):
        first, second = match_pair(features[a], features[b])
        readings = {
            "given": (world_to_camera, pixels),
            "inverted": (inverted, pixels),
            "square": (world_to_camera, square),
        }
        for name, (poses, k) in readings.items():
            distances[name].append(sampson_pixels(first, second, poses[a], poses[b], k[a], k[b]))
    pooled = {name: np.concatenate(values) for name, values in distances.items() if values}
    if not pooled or len(pooled["given"]) < MIN_MATCHES:
        return None
    medians = {name: float(np.median(values)) for name, values in pooled.items()}
    return SampsonErrors(matches=len(pooled["given"]), **medians)


def check_epipolar(errors: SampsonErrors) -> Iterator[Observation]:
    """Look for inverted poses, poses of something else, and focal lengths of another frame shape."""
    seen = f"{errors.matches} matches are {errors.given:.2g} pixels off their epipolar lines"
    if errors.inverted < _FITS_PIXELS and errors.given > _CLEARLY * errors.inverted:
        yield Observation(Check.POSES_INVERTED, f"{seen}, {errors.inverted:.2g} with the poses inverted")
    elif errors.square * _ASPECT_CLEARLY < errors.given and errors.given > _ASPECT_OFF_PIXELS:
        yield Observation(Check.INTRINSICS_OFF_FRAMES, f"{seen}, {errors.square:.2g} with square pixels")
    elif errors.given > _OFF_PIXELS:
        yield Observation(Check.POSES_OFF_FRAMES, f"{seen}, {errors.inverted:.2g} with the poses inverted")


def invert(poses: Poses) -> Poses:
    """Return the opposite direction of rigid poses."""
    rotation = poses[:, :, :3].transpose(0, 2, 1)
    return np.concatenate([rotation, -rotation @ poses[:, :, 3:]], axis=2)

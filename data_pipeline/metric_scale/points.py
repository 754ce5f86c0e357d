"""Triangulate what frames of a clip have in common, with the clip's own cameras, and keep only what is well placed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from cami2v.geometry.metric_scale import SeenPoints
from cami2v.geometry.two_view import Points, Pose, rays, relative_pose, sampson_pixels
from data_pipeline.metric_scale.settings import ScaleSettings
from data_pipeline.validate.cameras import Intrinsics, Poses
from data_pipeline.validate.matches import Frame, find_features, match_pair, working_size

_PARTNERS = (8, 4, 2)
"""A frame is matched with those this part of the clip away: close ones match, far ones have parallax."""

Depths = Float64[np.ndarray, " points"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FramePoints:
    """Points seen in one frame, their depths in pose units."""

    number: int
    """Of the frame, in the clip."""
    points: SeenPoints


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipPoints:
    """Points of all depth frames of a clip, and what became of its matches."""

    frames: tuple[FramePoints, ...]
    matches: int
    off_lines: int
    behind: int
    without_parallax: int


def depth_frames(frames: int, count: int) -> list[int]:
    """Return the numbers of at most `count` frames, evenly from the first to the last; one: the first."""
    return sorted({round(number) for number in np.linspace(0, frames - 1, count)}) if count > 1 else [0]


def partners(number: int, frames: int) -> list[int]:
    """Return the frames that frame `number` is matched with."""
    steps = {max(frames // part, 1) for part in _PARTNERS}
    near = {number + sign * step for step in steps for sign in (-1, 1)}
    return sorted(each for each in near if 0 <= each < frames)


def frames_needed(frames: int, count: int) -> list[int]:
    """Return every frame that `triangulate_clip` wants."""
    chosen = depth_frames(frames, count)
    return sorted({*chosen, *(other for number in chosen for other in partners(number, frames))})


def triangulate_clip(
    frames: Mapping[int, Frame], world_to_camera: Poses, intrinsics: Intrinsics, settings: ScaleSettings
) -> ClipPoints:
    """Place the points of every depth frame; `frames` holds those of `frames_needed` by number.

    The intrinsics are divided by the frame's size. Each point counts once per frame, where it has the most parallax.
    """
    features = {number: find_features(frame) for number, frame in frames.items()}
    height, width = working_size(*next(iter(frames.values())).shape[:2])
    pixels = intrinsics * np.array([width, height, width, height], dtype=np.float64)
    size = np.array([width, height], dtype=np.float64)
    counts = np.zeros(4, np.int64)
    found = []
    for number in depth_frames(len(world_to_camera), settings.depth_frames):
        placed = []
        for other in partners(number, len(world_to_camera)):
            first, second = match_pair(features[number], features[other])
            cameras = (world_to_camera[number], world_to_camera[other], pixels[number], pixels[other])
            off = sampson_pixels(first, second, *cameras) > settings.max_sampson_pixels
            depth, other_depth, parallax = triangulate(first, second, *cameras)
            flat = ~off & (parallax < settings.min_parallax_degrees)
            behind = ~off & ~flat & ~((depth > 0) & (other_depth > 0))
            kept = ~(off | flat | behind)
            counts += [len(first), off.sum(), behind.sum(), flat.sum()]
            placed.append(np.column_stack([first, depth, parallax])[kept])
        found.append(_each_once(number, np.concatenate(placed) if placed else np.zeros((0, 4)), size))
    matches, off_lines, behind_cameras, without_parallax = (int(count) for count in counts)
    return ClipPoints(
        frames=tuple(found),
        matches=matches,
        off_lines=off_lines,
        behind=behind_cameras,
        without_parallax=without_parallax,
    )


def triangulate(
    first: Points,
    second: Points,
    first_pose: Pose,
    second_pose: Pose,
    first_intrinsics: Float64[np.ndarray, "4"],
    second_intrinsics: Float64[np.ndarray, "4"],
) -> tuple[Depths, Depths, Float64[np.ndarray, " points"]]:
    """Return the depths of matches along both optical axes (pose units), and the angle between their rays in degrees.

    With x' = R x + t between the cameras, z' b = z R a + t for the rays a, b through a match; the product with b
    leaves z alone, by least squares where the rays miss each other. Parallel rays have depth 0.
    """
    rotation, translation = relative_pose(first_pose, second_pose)
    a, b = rays(first, first_intrinsics) @ rotation.T, rays(second, second_intrinsics)
    normal = np.cross(b, a)
    square = np.maximum((normal**2).sum(1), np.finfo(np.float64).tiny)
    depth = -(np.cross(b, translation) * normal).sum(1) / square
    other_depth = -(np.cross(a, translation) * normal).sum(1) / square
    sine = np.sqrt((normal**2).sum(1))
    return depth, other_depth, np.degrees(np.arctan2(sine, (a * b).sum(1)))


def _each_once(number: int, rows: Float64[np.ndarray, "rows 4"], size: Float64[np.ndarray, "2"]) -> FramePoints:
    """Keep the row with the most parallax of each point (x, y, depth, parallax)."""
    ordered = rows[np.argsort(-rows[:, 3], kind="stable")]
    _, first = np.unique(ordered[:, :2], axis=0, return_index=True)
    kept = ordered[np.sort(first)]
    return FramePoints(number=number, points=SeenPoints(positions=kept[:, :2] / size, depths=kept[:, 2]))

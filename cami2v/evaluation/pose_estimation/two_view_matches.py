"""Verified two-view matches of a pycolmap database, and how well a camera path agrees with them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pycolmap
from jaxtyping import Float64

from cami2v.geometry.two_view import Rays, rays, relative_pose, sampson_pixels

PARALLAX_DEGREES = 2.0
"""Rays that meet under a smaller angle say nothing about being in front of or behind a camera."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """How many verified matches contradict a camera path."""

    matches: int
    epipolar_outlier_share: float
    behind_camera_share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PairMatches:
    """Matched image points of two frames, in pixels."""

    first_frame: int
    second_frame: int
    first: Float64[np.ndarray, "matches 2"]
    second: Float64[np.ndarray, "matches 2"]


def read_matches(database: Path) -> list[PairMatches]:
    """Read the matches that passed two-view verification; frame numbers are the images' names."""
    with pycolmap.Database.open(database) as opened:
        frames = {image.image_id: int(Path(image.name).stem) for image in opened.read_all_images()}
        points = {image: np.asarray(opened.read_keypoints(image), dtype=np.float64)[:, :2] for image in frames}
        pairs = []
        for pair_id, geometry in zip(*opened.read_two_view_geometries(), strict=True):
            first, second = pycolmap.pair_id_to_image_pair(pair_id)
            inliers = np.asarray(geometry.inlier_matches)
            if len(inliers):
                pairs.append(
                    PairMatches(
                        first_frame=frames[first],
                        second_frame=frames[second],
                        first=points[first][inliers[:, 0]],
                        second=points[second][inliers[:, 1]],
                    )
                )
    return pairs


def epipolar_cost(
    pairs: list[PairMatches],
    world_to_camera: Float64[np.ndarray, "frames 3 4"],
    intrinsics_pixels: Float64[np.ndarray, "frames 4"],
    *,
    max_error_pixels: float,
) -> float:
    """Return the mean squared distance of matches to their epipolar lines, each cut at the bound.

    Of two paths for the same matches, the one with the lower cost explains them better.
    """
    distances = [
        sampson_pixels(
            pair.first,
            pair.second,
            *world_to_camera[[pair.first_frame, pair.second_frame]],
            *intrinsics_pixels[[pair.first_frame, pair.second_frame]],
        )
        for pair in pairs
    ]
    return float(np.mean(np.minimum(np.concatenate(distances), max_error_pixels) ** 2)) if distances else 0.0


def agreement(
    pairs: list[PairMatches],
    world_to_camera: Float64[np.ndarray, "frames 3 4"],
    intrinsics_pixels: Float64[np.ndarray, "frames 4"],
    *,
    max_error_pixels: float,
) -> Agreement:
    """Count matches off their epipolar lines, and matches behind a camera among those with parallax."""
    outliers = matches = behind = with_parallax = 0
    for pair in pairs:
        a, b = pair.first_frame, pair.second_frame
        cameras = (world_to_camera[a], world_to_camera[b], intrinsics_pixels[a], intrinsics_pixels[b])
        distances = sampson_pixels(pair.first, pair.second, *cameras)
        rotation, translation = relative_pose(world_to_camera[a], world_to_camera[b])
        rays_a, rays_b = rays(pair.first, intrinsics_pixels[a]), rays(pair.second, intrinsics_pixels[b])
        turned = rays_a @ rotation.T
        far = _angle_degrees(turned, rays_b) > PARALLAX_DEGREES
        matches += len(distances)
        outliers += int((distances > max_error_pixels).sum())
        with_parallax += int(far.sum())
        behind += int((_depths(turned[far], rays_b[far], translation).min(axis=1) < 0).sum()) if far.any() else 0
    return Agreement(
        matches=matches,
        epipolar_outlier_share=outliers / max(matches, 1),
        behind_camera_share=behind / max(with_parallax, 1),
    )


def _angle_degrees(first: Rays, second: Rays) -> Float64[np.ndarray, " matches"]:
    norms = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    return np.degrees(np.arccos(np.clip((first * second).sum(1) / norms, -1, 1)))


def _depths(turned: Rays, rays_b: Rays, translation: Float64[np.ndarray, "3"]) -> Float64[np.ndarray, "matches 2"]:
    """Least-squares depths of depth_a * turned + translation = depth_b * rays_b, one row per match."""
    aa, ab, bb = (turned**2).sum(1), -(turned * rays_b).sum(1), (rays_b**2).sum(1)
    right_a, right_b = -(turned @ translation), rays_b @ translation
    determinant = aa * bb - ab**2
    return np.stack([(bb * right_a - ab * right_b), (aa * right_b - ab * right_a)], axis=1) / determinant[:, None]

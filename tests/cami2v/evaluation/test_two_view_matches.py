"""Do verified matches contradict a path? Points seen by known cameras, exact matches."""

from __future__ import annotations

import numpy as np
import pytest

from cami2v.evaluation.pose_estimation.base import EstimatedPath, FailureReason, SolutionQuality
from cami2v.evaluation.pose_estimation.solution_quality import SolutionBounds, best_fit, extent_to_depth
from cami2v.evaluation.pose_estimation.two_view_matches import PairMatches, agreement, epipolar_cost

FRAMES = 4
# fx and fy differ: errors are measured in pixels of both axes.
INTRINSICS = np.tile([400.0, 300.0, 200.0, 128.0], (FRAMES, 1))
POINTS = np.random.default_rng(0).uniform([-2, -1, 3], [2, 1, 6], (200, 3))
GOOD = SolutionQuality(
    points=500,
    reprojection_error_pixels=0.5,
    epipolar_outlier_share=0.01,
    behind_camera_share=0.02,
    extent_to_depth=0.4,
)
BOUNDS = SolutionBounds(
    max_reprojection_error_pixels=2.0,
    max_epipolar_outlier_share=0.1,
    max_behind_camera_share=0.25,
    min_extent_to_depth=1e-3,
)


def walk(step: float) -> np.ndarray:
    path = np.tile(np.eye(4)[:3], (FRAMES, 1, 1))
    path[:, 0, 3] = -step * np.arange(FRAMES)
    return path


def matches(path: np.ndarray) -> list[PairMatches]:
    pixels = []
    for pose, (fx, fy, cx, cy) in zip(path, INTRINSICS, strict=True):
        x, y, z = pose[:, :3] @ POINTS.T + pose[:, 3:]
        pixels.append(np.stack([fx * x / z + cx, fy * y / z + cy], axis=1))
    return [
        PairMatches(first_frame=a, second_frame=b, first=pixels[a], second=pixels[b])
        for a in range(FRAMES)
        for b in range(a + 1, FRAMES)
    ]


def test_the_true_path_agrees() -> None:
    agreed = agreement(matches(walk(0.3)), walk(0.3), INTRINSICS, max_error_pixels=0.01)
    assert (agreed.matches, agreed.epipolar_outlier_share, agreed.behind_camera_share) == (6 * 200, 0, 0)


def test_a_path_walked_backwards_puts_matches_behind_the_cameras() -> None:
    agreed = agreement(matches(walk(0.3)), walk(-0.3), INTRINSICS, max_error_pixels=0.01)
    assert agreed.epipolar_outlier_share == 0
    assert agreed.behind_camera_share == 1


def test_a_wrong_path_leaves_matches_off_their_lines() -> None:
    wrong = walk(0.3)
    wrong[2, 1, 3] += 0.3
    agreed = agreement(matches(walk(0.3)), wrong, INTRINSICS, max_error_pixels=4.0)
    assert agreed.epipolar_outlier_share > 0.3


def test_the_path_that_fits_best_is_taken() -> None:
    paths = [EstimatedPath(world_to_camera=walk(0.3), quality=GOOD) for _ in range(3)]
    for number, off in ((0, 0.3), (2, 0.01)):
        paths[number].world_to_camera[2, 1, 3] += off
    seen = matches(walk(0.3))
    costs = [epipolar_cost(seen, path.world_to_camera, INTRINSICS, max_error_pixels=4.0) for path in paths]
    assert costs[1] < 1e-20 < costs[2] < costs[0] <= 16
    for order in ([0, 1, 2], [2, 0, 1]):
        chosen = best_fit([paths[number] for number in order], seen, INTRINSICS, max_error_pixels=4.0)
        assert chosen is paths[1]
    assert epipolar_cost([], walk(0.3), INTRINSICS, max_error_pixels=4.0) == 0


def test_epipolar_distance_is_in_pixels() -> None:
    shifted = [
        PairMatches(
            first_frame=m.first_frame,
            second_frame=m.second_frame,
            first=m.first,
            second=m.second + np.array([0.0, 2.0]),
        )
        for m in matches(walk(0.3))
    ]
    # The camera walks along x: lines are horizontal, and Sampson splits a vertical offset over both images.
    for bound, share in ((2 / np.sqrt(2) + 1e-6, 0), (2 / np.sqrt(2) - 1e-6, 1)):
        assert agreement(shifted, walk(0.3), INTRINSICS, max_error_pixels=bound).epipolar_outlier_share == share


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({}, None),
        ({"extent_to_depth": 1e-4}, FailureReason.COLLAPSED),
        ({"behind_camera_share": 0.6}, FailureReason.MIRRORED),
        ({"epipolar_outlier_share": 0.2}, FailureReason.INCONSISTENT),
        ({"reprojection_error_pixels": 3.0}, FailureReason.INCONSISTENT),
    ],
)
def test_bounds_name_the_reason(changed: dict[str, float], reason: FailureReason | None) -> None:
    quality = {name: getattr(GOOD, name) for name in GOOD.__slots__} | changed
    violation = BOUNDS.violation(SolutionQuality(**quality))
    assert (violation.reason if violation else None) == reason


def test_extent_to_depth() -> None:
    points = np.array([[0.0, 0.0, 4.0], [1.0, 0.0, 4.0]])
    assert extent_to_depth(walk(0.5), points) == pytest.approx(1.5 / 4)
    assert extent_to_depth(walk(0.5), np.empty((0, 3))) == 0

"""Distances of matches to what two cameras allow: points seen by known cameras, exact matches."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from cami2v.geometry.two_view import sampson_pixels, visible_sampson_pixels

# fx and fy differ: errors are measured in pixels of both axes.
FIRST_K = np.array([400.0, 300.0, 200.0, 128.0])
SECOND_K = np.array([420.0, 310.0, 190.0, 130.0])
POINTS = np.random.default_rng(0).uniform([-2, -1, 3], [2, 1, 6], (100, 3))


def pose(degrees: float = 0.0, center: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> np.ndarray:
    rotation = Rotation.from_euler("yxz", [degrees, 0.3 * degrees, 0.1 * degrees], degrees=True).as_matrix()
    return np.column_stack([rotation, -rotation @ np.array(center)])


def image(points: np.ndarray, camera: np.ndarray, intrinsics: np.ndarray) -> np.ndarray:
    seen = points @ camera[:, :3].T + camera[:, 3]
    return seen[:, :2] / seen[:, 2:] * intrinsics[:2] + intrinsics[2:]


def distances(
    second_seen: np.ndarray, second_given: np.ndarray, noise: float = 0.0, nearest: float = 0.1
) -> np.ndarray:
    """Visible distances, under a given second camera, of matches that another one made."""
    shift = np.random.default_rng(1).normal(0, noise, (len(POINTS), 2)) if noise else 0.0
    first, second = image(POINTS, pose(), FIRST_K), image(POINTS, second_seen, SECOND_K) + shift
    return visible_sampson_pixels(first, second, pose(), second_given, FIRST_K, SECOND_K, nearest=nearest)


@pytest.mark.parametrize("center", [(0.4, 0.1, 0.0), (0.0, 0.0, 0.5), (-0.2, 0.0, -0.6)])
def test_true_cameras_leave_nothing(center: tuple[float, float, float]) -> None:
    assert distances(pose(4, center), pose(4, center)).max() < 1e-9
    further = pose(4, center)
    further[:, 3] *= 7
    assert distances(pose(4, center), further, nearest=0.7).max() < 1e-9, "the unit of length must cancel"


def test_it_is_sampson_where_the_nearest_points_are_visible() -> None:
    camera = pose(4, (0.8, 0.1, 0.3))
    first, second = image(POINTS, pose(), FIRST_K), image(POINTS, camera, SECOND_K)
    second = second + np.random.default_rng(1).normal(0, 1.0, second.shape)
    sampson = sampson_pixels(first, second, pose(), camera, FIRST_K, SECOND_K)
    np.testing.assert_allclose(distances(camera, camera, noise=1.0), sampson, rtol=1e-9)
    assert 0.3 < np.median(sampson) < 1.0


def test_without_translation_it_is_the_transfer_error_of_the_rotation() -> None:
    seen, given = pose(5), pose(5)
    shift = np.array([3.0, -4.0])
    first, second = image(POINTS, pose(), FIRST_K), image(POINTS, seen, SECOND_K) + shift
    assert sampson_pixels(first, second, pose(), given, FIRST_K, SECOND_K).max() == 0, "no constraint at all"
    found = visible_sampson_pixels(first, second, pose(), given, FIRST_K, SECOND_K, nearest=0.0)
    there, back = 5.0, 5.0 * 400 / 420
    np.testing.assert_allclose(np.median(found), 1 / np.hypot(1 / there, 1 / back), rtol=0.05)


def test_short_baselines_keep_matches_near_the_rotated_point() -> None:
    walked, given = pose(0, (0.3, 0, 0)), pose(0, (0.003, 0, 0))
    assert distances(walked, given, nearest=0.001).max() < 1e-9
    # Nothing is nearer than 0.1: under a baseline of 0.003 a point moves by 0.03 focal lengths at most.
    parallax = 420 * 0.3 / POINTS[:, 2]
    assert (distances(walked, given, nearest=0.1) > (parallax - 0.03 * 420) / 2).all()


def test_walking_backwards_costs_the_parallax() -> None:
    walked, backwards = pose(0, (0.5, 0, 0)), pose(0, (-0.5, 0, 0))
    first, second = image(POINTS, pose(), FIRST_K), image(POINTS, walked, SECOND_K)
    assert sampson_pixels(first, second, pose(), backwards, FIRST_K, SECOND_K).max() < 1e-9, "the same lines"
    assert distances(walked, backwards).min() > 0.5 * 420 * 0.5 / POINTS[:, 2].max()


def test_points_behind_a_camera_are_infinitely_far_off() -> None:
    assert np.isinf(distances(pose(), pose(180))).all()


def test_no_matches_have_no_distances() -> None:
    none = np.zeros((0, 2))
    assert visible_sampson_pixels(none, none, pose(), pose(3), FIRST_K, SECOND_K, nearest=0.1).shape == (0,)

"""Triangulation with known cameras, against points whose depth is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from data_pipeline.metric_scale.points import depth_frames, frames_needed, partners, triangulate

FIRST_PIXELS, SECOND_PIXELS = np.array([500.0, 480.0, 300.0, 200.0]), np.array([400.0, 410.0, 310.0, 190.0])


def project(world: np.ndarray, pose: np.ndarray, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    camera = world @ pose[:, :3].T + pose[:, 3]
    return camera[:, :2] / camera[:, 2:] * pixels[:2] + pixels[2:], camera[:, 2]


def pose(turn: tuple[float, float, float], translation: tuple[float, float, float]) -> np.ndarray:
    return np.column_stack([Rotation.from_euler("xyz", turn, degrees=True).as_matrix(), translation])


def test_exact_matches_give_exact_depths_and_the_angle_at_the_point() -> None:
    world = np.random.default_rng(0).uniform([-1, -1, 2], [1, 1, 6], (50, 3))
    first, second = pose((3, -5, 2), (0.1, 0.0, 0.2)), pose((-4, 8, 1), (-0.6, 0.1, 0.3))
    (a, near), (b, far) = project(world, first, FIRST_PIXELS), project(world, second, SECOND_PIXELS)
    depth, other, parallax = triangulate(a, b, first, second, FIRST_PIXELS, SECOND_PIXELS)
    np.testing.assert_allclose(depth, near, rtol=1e-9)
    np.testing.assert_allclose(other, far, rtol=1e-9)
    centres = [-each[:, :3].T @ each[:, 3] for each in (first, second)]
    rays = [(world - centre) / np.linalg.norm(world - centre, axis=1, keepdims=True) for centre in centres]
    np.testing.assert_allclose(parallax, np.degrees(np.arccos((rays[0] * rays[1]).sum(1))), atol=1e-5)


def test_points_behind_a_camera_have_negative_depth() -> None:
    world = np.array([[0.3, 0.1, -2.0], [0.2, -0.4, -3.0]])
    first, second = pose((0, 0, 0), (0, 0, 0)), pose((0, 2, 0), (-0.5, 0, 0))
    a, b = (project(world, each, FIRST_PIXELS)[0] for each in (first, second))
    depth, other, _ = triangulate(a, b, first, second, FIRST_PIXELS, FIRST_PIXELS)
    np.testing.assert_allclose(depth, [-2, -3])
    assert (other < 0).all()


def test_a_camera_that_only_turns_has_no_parallax() -> None:
    world = np.random.default_rng(1).uniform([-1, -1, 2], [1, 1, 6], (20, 3))
    first, second = pose((0, 0, 0), (0, 0, 0)), pose((0, 6, 0), (0, 0, 0))
    a, b = (project(world, each, FIRST_PIXELS)[0] for each in (first, second))
    depth, _, parallax = triangulate(a, b, first, second, FIRST_PIXELS, FIRST_PIXELS)
    assert (parallax < 1e-4).all()
    assert np.isfinite(depth).all()


@pytest.mark.parametrize(
    ("frames", "count", "chosen", "needed"),
    [
        (16, 3, [0, 8, 15], [0, 2, 4, 6, 7, 8, 10, 11, 12, 13, 15]),
        (16, 1, [0], [0, 2, 4, 8]),
        (2, 3, [0, 1], [0, 1]),
    ],
)
def test_the_frames_of_a_clip(frames: int, count: int, chosen: list[int], needed: list[int]) -> None:
    assert depth_frames(frames, count) == chosen
    assert set(frames_needed(frames, count)) == set(needed) | set(chosen)
    assert partners(0, 16) == [2, 4, 8]

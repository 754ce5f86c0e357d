"""The robust ratio, and how depth maps are read."""

from __future__ import annotations

import numpy as np
import pytest

from cami2v.geometry.metric_scale import SeenPoints, at_points, depth_ratios, metric_scale, square_pixels


def test_the_pixel_of_a_position_is_found_by_truncation() -> None:
    depth = np.arange(12, dtype=np.float32).reshape(3, 4)
    positions = np.array([[0.0, 0.0], [0.2499, 0.32], [0.25, 0.34], [0.999, 0.999], [1.0, 1.0], [-0.01, 0.5]])
    assert at_points(depth, positions).tolist() == [0, 0, 5, 11, 11, 4]


def test_unknown_depths_and_those_outside_the_bounds_do_not_count() -> None:
    points = SeenPoints(positions=np.array([[0.1, 0.5], [0.3, 0.5], [0.6, 0.5], [0.9, 0.5]]), depths=np.full(4, 2.0))
    depth = np.array([[0.0, 1.0, 6.0, 19.0]], dtype=np.float32)
    assert depth_ratios(depth, points, nearest_metres=0.0, farthest_metres=np.inf).tolist() == [0.5, 3.0, 9.5]
    assert depth_ratios(depth, points, nearest_metres=2.0, farthest_metres=18.0).tolist() == [3.0]


def test_a_third_of_wrong_points_does_not_move_the_median() -> None:
    found = metric_scale(np.array([2.0] * 7 + [9.0] * 3))
    assert (found.metres_per_unit, found.points, found.spread, found.inlier_share) == (2.0, 10, 0.0, 0.7)
    with pytest.raises(ValueError, match="a scale of no points"):
        metric_scale(np.zeros(0))


def test_frames_for_depth_networks_have_square_pixels() -> None:
    frame = np.zeros((20, 30, 3), np.uint8)
    assert square_pixels(frame, aspect=4 / 3, short_side=None).shape == (20, 40, 3)
    assert square_pixels(frame, aspect=1.0, short_side=10).shape == (10, 15, 3)

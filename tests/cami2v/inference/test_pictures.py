"""Frames, panels and trajectory plots."""

from __future__ import annotations

import numpy as np
import torch

from cami2v.inference.clip_video import enlarged, side_by_side, to_frames
from cami2v.inference.trajectory_plot import trajectory_figure, trajectory_image
from cami2v.trajectories.presets import preset


def test_frames_are_rounded_and_clipped() -> None:
    video = torch.tensor([-2.0, -1.0, 0.0, 1.0]).reshape(1, 1, 2, 2).repeat(3, 1, 1, 1)
    assert to_frames(video)[0, :, :, 0].tolist() == [[0, 0], [128, 255]]
    every_byte = torch.arange(256).reshape(1, 256, 1, 1).expand(3, 256, 1, 1)
    assert to_frames(every_byte / 127.5 - 1)[:, 0, 0, 0].tolist() == list(range(256))


def test_panels_stand_side_by_side() -> None:
    left, right = (np.full((2, 4, 6, 3), level, np.uint8) for level in (10, 20))
    joined = side_by_side([left, right], gap=2)
    assert joined.shape == (2, 4, 14, 3)
    assert joined[0, 0, :, 0].tolist() == [10] * 6 + [255] * 2 + [20] * 6


def test_small_frames_are_enlarged_by_whole_factors() -> None:
    video = np.arange(2 * 3 * 4 * 3, dtype=np.uint8).reshape(2, 3, 4, 3)
    larger = enlarged(video, at_least=8)
    assert larger.shape == (2, 9, 12, 3)
    assert np.array_equal(larger[:, 1::3, 1::3], video)
    assert np.array_equal(enlarged(video, at_least=3), video)


def test_a_path_is_drawn_where_the_camera_goes() -> None:
    right, ahead = (preset(name, 8, 1.0) for name in ("truck_right", "dolly_in"))
    lines = trajectory_figure({"a": right, "b": ahead}).axes[0].lines
    np.testing.assert_allclose(np.asarray(lines[0].get_xydata(), dtype=float)[-1], [1, 0], atol=1e-9)
    np.testing.assert_allclose(np.asarray(lines[2].get_xydata(), dtype=float)[-1], [0, 1], atol=1e-9)
    picture = trajectory_image({"a": right}, size=64)
    assert picture.shape == (64, 64, 3)
    assert not np.array_equal(picture, trajectory_image({"a": ahead}, size=64))


def test_a_motionless_path_can_be_drawn() -> None:
    assert trajectory_image({"still": preset("static", 4, 1.0)}, size=32).std() > 0

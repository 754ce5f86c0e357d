from __future__ import annotations

import pytest
import torch

from cami2v.geometry.cameras import as_homogeneous, invert_pose, relative_poses
from cami2v.geometry.pose_scale import ScalePolicy, translation_scale
from cami2v.trajectories.presets import preset


def world_to_camera(extent: float) -> torch.Tensor:
    return invert_pose(preset("dolly_in", 4, extent))[:, :3]


def test_relative_keeps_the_files_unit() -> None:
    assert translation_scale(ScalePolicy.RELATIVE, world_to_camera(7.0), None, where="a").tolist() == [1, 1, 1, 1]


def test_first_frame_normalized_puts_the_farthest_camera_at_one() -> None:
    poses = world_to_camera(7.0)
    scale = translation_scale(ScalePolicy.FIRST_FRAME_NORMALIZED, poses, None, where="a")
    distance = relative_poses(poses[None], torch.tensor([0]))[0, :, :3, 3].norm(dim=-1)
    assert (distance * scale).max().item() == pytest.approx(1.0)
    moved = (as_homogeneous(poses) @ preset("truck_left", 2, 3.0)[1])[:, :3]
    torch.testing.assert_close(translation_scale(ScalePolicy.FIRST_FRAME_NORMALIZED, moved, None, where="a"), scale)


def test_stationary_clip_is_not_blown_up() -> None:
    scale = translation_scale(ScalePolicy.FIRST_FRAME_NORMALIZED, world_to_camera(0.0), None, where="a")
    assert scale.tolist() == [1, 1, 1, 1]


def test_metric_needs_a_scale() -> None:
    poses = world_to_camera(1.0)
    given = torch.tensor([2.0, 2.5, 3.0, 3.5])
    assert translation_scale(ScalePolicy.METRIC, poses, given, where="a").tolist() == given.tolist()
    with pytest.raises(ValueError, match=r"train-000001.tar/abc: .*metric_scale"):
        translation_scale(ScalePolicy.METRIC, poses, None, where="train-000001.tar/abc")
    given[1] = float("nan")
    with pytest.raises(ValueError, match="not finite"):
        translation_scale(ScalePolicy.METRIC, poses, given, where="a")

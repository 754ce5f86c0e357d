"""The same clips under other trajectories."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from cami2v.batch import Cameras
from cami2v.camera_control.interventions import camera_interventions, comparison_trajectories
from cami2v.geometry.cameras import relative_poses
from tests.cami2v.evaluation.clips import random_batch
from tests.tiny_models import tiny_cameras


def relative(cameras: Cameras) -> torch.Tensor:
    return relative_poses(cameras.world_to_camera, torch.zeros(len(cameras.world_to_camera), dtype=torch.int64))


def test_only_the_trajectory_changes() -> None:
    batch, other = random_batch("a", seed=0), random_batch("b", seed=1)
    versions = camera_interventions(batch, others=other.cameras)
    assert versions["right"] is batch
    for name in ("stationary", "shuffled"):
        changed = versions[name]
        assert changed.video is batch.video
        assert changed.seeds is batch.seeds
        assert changed.cameras.intrinsics_pixels is batch.cameras.intrinsics_pixels
    stationary = versions["stationary"].cameras.world_to_camera
    torch.testing.assert_close(stationary, batch.cameras.world_to_camera[:, :1].expand_as(stationary))
    assert versions["shuffled"].cameras.world_to_camera is other.cameras.world_to_camera


def test_a_single_clip_gets_its_own_poses_in_another_order() -> None:
    batch = random_batch("a", seed=0, frames=5)
    shuffled = camera_interventions(batch)["shuffled"].cameras.world_to_camera
    torch.testing.assert_close(shuffled, batch.cameras.world_to_camera[:, [1, 3, 0, 2, 4]])


def test_a_path_there_and_back_is_shuffled_too() -> None:
    batch = random_batch("a", seed=0, frames=5)
    there_and_back = batch.cameras.world_to_camera[:, [0, 1, 2, 1, 0]]
    batch = replace(batch, cameras=replace(batch.cameras, world_to_camera=there_and_back))
    shuffled = camera_interventions(batch)["shuffled"]
    assert (relative(shuffled.cameras) - relative(batch.cameras)).abs().max() > 0.1


def test_other_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="clips of equal length"):
        camera_interventions(random_batch("a", seed=0), others=random_batch("b", seed=1, frames=5).cameras)


@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_a_camera_that_stands_still_is_also_compared_with_one_that_moves(scale: float) -> None:
    batch = random_batch("a", seed=0)
    still = batch.cameras.world_to_camera[:, 3:].expand(-1, 4, -1, -1).clone()
    still[..., 3] += 1e-3 * torch.arange(4)[:, None]
    cameras = replace(batch.cameras, world_to_camera=still, translation_scale=torch.full((1, 4), scale).double())
    versions = comparison_trajectories(replace(batch, cameras=cameras))
    assert list(versions) == ["right", "stationary", "shuffled", "moving"]
    moving = versions["moving"].cameras
    torch.testing.assert_close(moving.world_to_camera[:, 0], still[:, 0])
    # Half a radian around a point one unit ahead, in the unit that the model sees.
    end = relative(moving)[0, -1]
    assert float(end[:3, 3].norm()) * scale == pytest.approx(2 * torch.sin(torch.tensor(0.25)).item(), abs=1e-6)
    assert moving.intrinsics_pixels is cameras.intrinsics_pixels


def test_a_camera_that_moves_is_not() -> None:
    batch = replace(random_batch("a", seed=0, height=32, width=32), cameras=tiny_cameras(batch=1))
    assert list(comparison_trajectories(batch)) == ["right", "stationary", "shuffled"]

"""The same clips under other trajectories."""

from __future__ import annotations

import pytest
import torch

from cami2v.evaluation.interventions import camera_interventions
from tests.cami2v.evaluation.clips import random_batch


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


def test_a_single_clip_has_nothing_to_shuffle_with() -> None:
    with pytest.raises(ValueError, match="pass `others`"):
        camera_interventions(random_batch("a", seed=0))


def test_other_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="clips of equal length"):
        camera_interventions(random_batch("a", seed=0), others=random_batch("b", seed=1, frames=5).cameras)

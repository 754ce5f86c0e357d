"""Paths stay clear of everything, are smooth, and move like RealEstate10K."""

from __future__ import annotations

import numpy as np
import pytest

from data_pipeline.synthetic.noise import generator
from data_pipeline.synthetic.paths import KINDS, free_positions, plan_path
from data_pipeline.synthetic.rooms import furnish_room

SECONDS = 8.5 / 30  # between the annotated frames of the real clips
FRAMES = 16


@pytest.fixture(scope="module")
def paths():
    """Twelve paths per kind: {kind: [(room, camera_to_world)]}."""
    found = {}
    for kind in KINDS:
        rooms = [furnish_room(f"paths-{number}") for number in range(12)]
        found[kind] = [
            (room, plan_path(generator(kind, room.name), room, kind, FRAMES, SECONDS, 1.0)) for room in rooms
        ]
    return found


def angles(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Degrees between rotations."""
    trace = np.einsum("...ij,...ij->...", first[..., :3, :3], second[..., :3, :3])
    return np.degrees(np.arccos(np.clip((trace - 1) / 2, -1, 1)))


@pytest.mark.parametrize("kind", KINDS)
def test_paths_are_rigid_level_and_free(paths, kind):
    for room, poses in paths[kind]:
        rotation = poses[:, :3, :3]
        np.testing.assert_allclose(
            rotation @ rotation.transpose(0, 2, 1), np.tile(np.eye(3), (FRAMES, 1, 1)), atol=1e-12
        )
        assert free_positions(room, poses[:, :3, 3]).all()
        assert np.degrees(np.arcsin(np.abs(rotation[:, 1, 0]))).max() < 4  # roll
        assert np.degrees(np.arcsin(np.abs(rotation[:, 1, 2]))).max() < 20  # pitch


@pytest.mark.parametrize("kind", KINDS)
def test_paths_are_smooth(paths, kind):
    for room, _ in paths[kind]:
        fine = plan_path(generator(kind, room.name), room, kind, 128, 1 / 30, 1.0)
        steps = np.diff(fine[:, :3, 3], axis=0)
        assert np.linalg.norm(np.diff(steps, axis=0), axis=1).max() < 0.003  # metres per frame squared
        assert np.abs(np.diff(angles(fine[1:], fine[:-1]))).max() < 0.08  # degrees per frame squared


def test_motion_is_that_of_realestate10k(paths):
    """Real clips: 0.07 to 0.20 units and 0.3 to 3.5 degrees from frame to frame, 4 to 52 degrees in all."""
    poses = np.stack([p for kind in KINDS for _, p in paths[kind]])
    steps = np.linalg.norm(np.diff(poses[:, :, :3, 3], axis=1), axis=2)
    turns = angles(poses[:, 1:], poses[:, :-1]).mean(axis=1)
    totals = angles(poses[:, 0], poses[:, -1])
    moving = steps[: 2 * 12].mean(axis=1)
    assert 0.07 < np.median(moving) < 0.20
    assert 0.3 < np.median(turns) < 3.5
    assert np.percentile(turns, 95) < 5
    assert 4 < np.median(totals) < 52
    straightness = np.linalg.norm(poses[:, -1, :3, 3] - poses[:, 0, :3, 3], axis=1) / steps.sum(axis=1)
    assert straightness.min() > 0.7


def test_kinds_move_as_they_say(paths):
    def forward_share(kind: str) -> np.ndarray:
        shares = []
        for _, poses in paths[kind]:
            step = np.diff(poses[:, :3, 3], axis=0).sum(axis=0)
            shares.append(abs(step @ poses[0, :3, 2]) / np.linalg.norm(step))
        return np.array(shares)

    assert forward_share("dolly").min() > 0.9
    assert forward_share("truck").max() < 0.45
    turned = {kind: np.median([angles(p[0], p[-1]) for _, p in paths[kind]]) for kind in KINDS}
    walked = {kind: np.median([np.linalg.norm(p[-1, :3, 3] - p[0, :3, 3]) for _, p in paths[kind]]) for kind in KINDS}
    assert turned["pan"] > 2 * turned["dolly"]
    assert walked["pan"] < 0.5 * walked["dolly"]
    assert turned["orbit"] > 2 * turned["truck"]


def test_long_or_fast_paths_shrink_until_they_fit():
    room = furnish_room("long")
    poses = plan_path(generator("long"), room, "dolly", 200, 0.1, 4.0)
    assert free_positions(room, poses[:, :3, 3]).all()

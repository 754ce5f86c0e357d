from __future__ import annotations

import math

import pytest
import torch

from cami2v.trajectories.presets import ALIASES, PRESETS, canonical, preset, preset_path
from cami2v.trajectories.trajectory import Trajectory

IDENTITY = torch.eye(4, dtype=torch.float64)
PUBLISHED = {
    "zoom in": [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 1],
    "pan left": [1, 0, 0, -2, 0, 1, 0, 0, 0, 0, 1, 0],
    "look left": [0, 0, -1, 0, 0, 1, 0, 0, 1, 0, 0, 0],
    "orbit up": [1, 0, 0, 0, 0, 0.5**0.5, 0.5**0.5, -(2**0.5), 0, -(0.5**0.5), 0.5**0.5, 2 - 2**0.5],
}
"""Last camera-to-world poses of the published demo's files, relative to the first (golden/cases/traj__lerp_bezier)."""


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_starts_at_the_identity_and_is_rigid(name: str) -> None:
    shot = preset_path(name).at(torch.linspace(0, 1, 33, dtype=torch.float64))
    rotation = shot.camera_to_world[:, :3, :3]
    assert (shot.camera_to_world[0] - IDENTITY).abs().max() <= 1e-12
    assert shot.zoom[0] == 1
    assert (rotation @ rotation.mT - IDENTITY[:3, :3]).abs().max() <= 1e-12
    assert (torch.linalg.det(rotation) - 1).abs().max() <= 1e-12
    assert (shot.camera_to_world[1:] - IDENTITY).abs().amax(dim=(1, 2)).gt(1e-4).all() == (name != "static")


def test_static_is_the_identity() -> None:
    path = preset_path("static").sample(16)
    assert (path.camera_to_world() - IDENTITY).abs().max() <= 1e-12
    assert torch.equal(path.world_to_camera, IDENTITY[:3].expand(16, 3, 4))
    assert (path.intrinsics_normalized, path.zoom) == (None, None)


@pytest.mark.parametrize(("name", "extent"), [("zoom in", 1.0), ("pan left", 2.0), ("look left", math.pi / 2)])
def test_demo_names_do_what_the_published_files_do(name: str, extent: float) -> None:
    wanted = torch.tensor(PUBLISHED[name], dtype=torch.float64).reshape(3, 4)
    torch.testing.assert_close(preset(name, 5, extent)[-1, :3], wanted)


def test_orbit_up_is_the_published_one() -> None:
    path = preset_path("orbit up", extent=math.pi / 4, distance=2.0).sample(3)
    wanted = torch.tensor(PUBLISHED["orbit up"], dtype=torch.float64).reshape(3, 4)
    torch.testing.assert_close(path.camera_to_world()[-1, :3], wanted)


@pytest.mark.parametrize(
    ("names", "direction"),
    [
        (("dolly_in", "zoom_in"), [0, 0, 1]),
        (("dolly_out", "zoom_out"), [0, 0, -1]),
        (("truck_left", "pan_left"), [-1, 0, 0]),
        (("truck_right", "pan_right"), [1, 0, 0]),
        (("pedestal_up", "pan_up"), [0, -1, 0]),
        (("pedestal_down", "pan_down"), [0, 1, 0]),
    ],
)
def test_moves_go_where_their_name_says(names: tuple[str, str], direction: list[float]) -> None:
    for name in names:
        poses = preset(name, 3, 2.0)
        torch.testing.assert_close(
            poses[:, :3, 3], torch.tensor([[0.0], [1.0], [2.0]]).double() * torch.tensor(direction)
        )


@pytest.mark.parametrize(
    ("name", "axis", "sign"),
    [("look_left", 0, -1), ("look_right", 0, 1), ("tilt_up", 1, -1), ("look_up", 1, -1), ("tilt_down", 1, 1)],
)
def test_turns_look_where_their_name_says(name: str, axis: int, sign: int) -> None:
    forward = preset(name, 2, 0.3)[-1, :3, 2]
    assert sign * forward[axis].item() == pytest.approx(math.sin(0.3))


def test_roll_is_clockwise() -> None:
    # The camera's right side sinks: its x axis gains a downward (positive y) part.
    assert preset("roll", 2, 0.3)[-1, 1, 0] > 0
    assert preset("rotate_counterclockwise", 2, 0.3)[-1, 1, 0] < 0


@pytest.mark.parametrize(
    ("name", "axis", "sign"),
    [("orbit_left", 0, -1), ("orbit_right", 0, 1), ("orbit_up", 1, -1), ("orbit_down", 1, 1), ("arc_left", 0, -1),
     ("arc_right", 0, 1), ("spiral", 0, 1)],
)  # fmt: skip
def test_the_subject_stays_in_the_middle(name: str, axis: int, sign: int) -> None:
    path = preset_path(name, extent=1.0, distance=2.5).sample(9).camera_to_world()
    subject = torch.tensor([0, 0, 2.5, 1], dtype=torch.float64)
    in_camera = torch.linalg.inv(path) @ subject
    assert in_camera[:, :2].abs().max() < 1e-12
    if name != "spiral":
        torch.testing.assert_close(in_camera, subject.expand(9, 4))
    assert sign * path[-1, axis, 3] > 0


def test_an_arc_rises_and_sinks_and_a_spiral_grows() -> None:
    heights = -preset_path("arc_right").sample(5).camera_to_world()[:, 1, 3]
    assert heights[0] == 0
    assert abs(heights[-1]) < 1e-12
    assert heights[2] == heights.max() > 0.1
    radii = preset_path("spiral", extent=0.4, turns=3.0).sample(9).camera_to_world()[:, :3, 3].norm(dim=1)
    torch.testing.assert_close(radii, torch.linspace(0, 0.4, 9, dtype=torch.float64))


def test_dolly_zooms_keep_the_size_of_the_subject() -> None:
    for name in ("dolly_zoom_in", "dolly_zoom_out"):
        path = preset_path(name, extent=0.9, distance=1.5).sample(7)
        assert path.zoom is not None
        depth = 1.5 - path.camera_to_world()[:, 2, 3]
        torch.testing.assert_close(path.zoom / depth, torch.full((7,), 1 / 1.5, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"'dolly_zoom'.*extent=2.0 reaches the subject"):
        preset_path("dolly_zoom", extent=2.0)


def test_a_hand_shakes_the_same_way_for_the_same_seed_at_any_frame_rate() -> None:
    paths = [
        preset_path("handheld", extent=0.05, seed=seed).sample(frames) for seed, frames in ((1, 9), (1, 17), (2, 9))
    ]
    first, finer, other = (path.camera_to_world() for path in paths)
    torch.testing.assert_close(first, finer[::2])
    assert (first - other).abs().max() > 0.01
    moved = preset_path("handheld", extent=0.05, seed=1).sample(2001).camera_to_world()[:, :3, 3]
    torch.testing.assert_close(
        moved.square().mean(0).sqrt(), torch.full((3,), 0.05, dtype=torch.float64), rtol=1e-2, atol=0
    )


def test_unknown_presets_list_the_allowed_ones() -> None:
    with pytest.raises(ValueError, match=r"'orbitleft'.*did you mean 'orbit_left'.*static, zoom_in.*handheld"):
        preset("orbitleft", 4, 1.0)
    with pytest.raises(ValueError, match="frames=0"):
        preset("static", 0, 1.0)
    assert {canonical(name) for name in (*ALIASES, "Zoom In")} <= set(PRESETS)
    assert isinstance(preset_path("zoom in").sample(1), Trajectory)

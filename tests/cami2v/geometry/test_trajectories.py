from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from cami2v.geometry.timing import bezier_positions, even_positions, excerpt_positions, there_and_back
from cami2v.geometry.trajectories import ORBIT_RADIUS, PRESETS, preset, read_trajectory, resample

POSE_LINE = "158692025 0.47 0.84 0.5 0.5 0 0 1 0 0 0.1 0 1 0 0.2 0 0 1 0.3"


@pytest.mark.parametrize("name", PRESETS)
def test_presets_start_at_the_identity_and_are_rigid(name: str) -> None:
    poses = preset(name, 5, 0.7)
    torch.testing.assert_close(poses[0], torch.eye(4, dtype=torch.float64))
    rotation = poses[:, :3, :3]
    torch.testing.assert_close(rotation @ rotation.mT, torch.eye(3, dtype=torch.float64).expand(5, 3, 3))
    assert (name == "static") == torch.equal(poses[0], poses[-1])


@pytest.mark.parametrize(
    ("name", "direction"),
    [
        ("dolly_in", [0, 0, 1]),
        ("dolly_out", [0, 0, -1]),
        ("truck_left", [-1, 0, 0]),
        ("truck_right", [1, 0, 0]),
        ("pedestal_up", [0, -1, 0]),
        ("pedestal_down", [0, 1, 0]),
    ],
)
def test_moves_go_where_their_name_says(name: str, direction: list[float]) -> None:
    poses = preset(name, 3, 2.0)
    torch.testing.assert_close(poses[-1, :3, 3], 2.0 * torch.tensor(direction, dtype=torch.float64))
    torch.testing.assert_close(poses[1, :3, 3], 1.0 * torch.tensor(direction, dtype=torch.float64))


@pytest.mark.parametrize(
    ("name", "axis", "sign"), [("pan_left", 0, -1), ("pan_right", 0, 1), ("tilt_up", 1, -1), ("tilt_down", 1, 1)]
)
def test_turns_look_where_their_name_says(name: str, axis: int, sign: int) -> None:
    forward = preset(name, 2, 0.3)[-1, :3, 2]
    assert sign * forward[axis].item() == pytest.approx(torch.tensor(0.3).sin().item())


def test_roll_is_clockwise() -> None:
    # The camera's right side sinks: its x axis gains a downward (positive y) part.
    assert preset("roll", 2, 0.3)[-1, 1, 0] > 0


@pytest.mark.parametrize(("name", "sign"), [("orbit_left", -1), ("orbit_right", 1)])
def test_orbits_keep_their_centre_in_the_middle(name: str, sign: int) -> None:
    poses = preset(name, 4, 1.0)
    centre = torch.tensor([0, 0, ORBIT_RADIUS, 1], dtype=torch.float64)
    in_camera = torch.linalg.inv(poses) @ centre
    torch.testing.assert_close(in_camera, centre.expand(4, 4))
    assert sign * poses[-1, 0, 3] > 0


def test_unknown_preset_lists_the_allowed_ones() -> None:
    with pytest.raises(ValueError, match=r"'zoom'.*static, dolly_in.*orbit_right"):
        preset("zoom", 4, 1.0)
    with pytest.raises(ValueError, match="frames=0"):
        preset("static", 0, 1.0)


@pytest.mark.parametrize("header", ["https://video\n", "https://video\nclips/a.mp4\nA room.\n"])
def test_reads_realestate10k(tmp_path: Path, header: str) -> None:
    path = tmp_path / "clip.txt"
    path.write_text(header + POSE_LINE + "\n" + POSE_LINE.replace("0.1", "0.5") + "\n\n")
    trajectory = read_trajectory(path)
    assert trajectory.world_to_camera[:, :, 3].tolist() == [[0.1, 0.2, 0.3], [0.5, 0.2, 0.3]]
    assert trajectory.intrinsics_normalized is not None
    assert trajectory.intrinsics_normalized[0].tolist() == [0.47, 0.84, 0.5, 0.5]


def test_reads_motionctrl_and_resamples(tmp_path: Path) -> None:
    path = tmp_path / "path.json"
    rows = [[1, 0, 0, 0.0, 0, 1, 0, 0.0, 0, 0, 1, z] for z in (0.0, 1.0, 4.0)]
    path.write_text(json.dumps(rows))
    trajectory = read_trajectory(path)
    assert trajectory.intrinsics_normalized is None
    resampled = resample(trajectory, 5)
    assert resampled.world_to_camera[:, 2, 3].tolist() == pytest.approx([0, 0.5, 1, 2.5, 4])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", "https://video\n1 2 3\n", "19 numbers"),
        ("a.txt", f"https://video\n{POSE_LINE}\n1 2 3\n", "line 3: expected 19 numbers, got 3"),
        ("a.txt", f"https://video\n{POSE_LINE.replace('0.1', 'nan')}\n", "1 of 1 poses, the first at frame 0"),
        ("a.txt", f"https://video\n{POSE_LINE.replace('0 0 1 0 0', '0 0 3 0 0')}\n", "rotation matrix"),
        ("a.json", "[[1, 2]]", "list of 12 numbers"),
        ("a.json", "{", "not JSON"),
        ("a.json", "[]", "list of frames"),
        ("a.csv", "1,2", "allowed are .txt"),
    ],
)
def test_wrong_files_are_refused_in_one_line(tmp_path: Path, name: str, content: str, message: str) -> None:
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(ValueError, match=message) as caught:
        read_trajectory(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not exist"):
        read_trajectory(tmp_path / "none.txt")


def test_timing() -> None:
    assert even_positions(5, 3).tolist() == [0, 2, 4]
    assert excerpt_positions(9, 5, 0.5).tolist() == pytest.approx([0, 8 / 9, 16 / 9, 24 / 9, 32 / 9])
    assert excerpt_positions(9, 5, 1.7).tolist() == even_positions(9, 5).tolist()
    with pytest.raises(ValueError, match="ratio"):
        excerpt_positions(9, 5, 0.0)
    eased = bezier_positions(9, 0.5, 0.5)
    assert eased[0] == 0
    assert eased[-1] == 8
    assert (eased.diff() > 0).all()
    assert eased[1] < 0.5
    looped = there_and_back(preset("dolly_in", 3, 1.0))
    assert looped[:, 2, 3].tolist() == [0, 0.5, 1, 1, 0.5, 0]


@pytest.mark.parametrize("poses", [1, 2, 3])
def test_easing_short_paths_stays_on_them(poses: int) -> None:
    eased = bezier_positions(poses, 0.2, 0.8)
    assert eased.shape == (poses,)
    assert ((eased >= 0) & (eased <= poses - 1)).all()

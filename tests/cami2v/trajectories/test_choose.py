"""From what a user asks for to cameras: names, files of every format, descriptions, edits."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cami2v.geometry.cameras import relative_poses
from cami2v.geometry.pose_files.formats import FORMATS, WRITTEN
from cami2v.geometry.rotations import axis_angle_to_matrix
from cami2v.inference.image_clip import normalized_intrinsics
from cami2v.trajectories.choose import choose, open_path
from cami2v.trajectories.files import read_path, write_path
from cami2v.trajectories.presets import PRESETS, preset_path
from cami2v.trajectories.trajectory import Trajectory, relative_to

PLACES = {"colmap": "model", "transforms": "transforms.json", "motionctrl": "path.json", "tum": "path.tum"}


def poses(source: object, frames: int = 9, extent: float | None = None) -> Tensor:
    return choose(source, frames=frames, extent=extent).camera_to_world()  # type: ignore[arg-type]


def write(path: Path, trajectory: Trajectory, form: str | None = None) -> str:
    intrinsics = normalized_intrinsics(trajectory, 80.0, 320, 512)
    return write_path(path, trajectory, intrinsics, form=form, size=(320, 512), frames_per_second=8.0)


@pytest.mark.parametrize("form", WRITTEN)
def test_every_preset_round_trips_through_every_format(form: str, tmp_path: Path) -> None:
    for name in PRESETS:
        trajectory, path = preset_path(name).sample(7), tmp_path / name / PLACES.get(form, "path.txt")
        if trajectory.zoom is not None and not FORMATS[form].intrinsics:
            with pytest.raises(
                ValueError, match=f"the focal length changes along this path and format {form} has none"
            ):
                write(path, trajectory, form)
            assert not path.exists()
            continue
        assert write(path, trajectory, form) == form
        again = read_path(path).sample(7)
        assert (again.world_to_camera - trajectory.world_to_camera).abs().max() < 1e-12, name
        if again.intrinsics_normalized is not None:
            wanted = normalized_intrinsics(trajectory, 80.0, 320, 512)
            torch.testing.assert_close(again.intrinsics_normalized, wanted, rtol=0, atol=1e-12)
        assert {each.name for each in path.parent.iterdir()} == {path.name}, "nothing half-written stays"


@given(seed=st.integers(0, 2**31), frames=st.integers(1, 40), mirrored=st.booleans(), digits=st.integers(3, 17))
@settings(max_examples=15, deadline=None)
def test_resampled_rotations_are_rotations(
    seed: int, frames: int, mirrored: bool, digits: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Also of files with few digits, and of mirrored ones once they are relative."""
    generator = torch.Generator().manual_seed(seed)
    turns = torch.randn(6, 3, generator=generator, dtype=torch.float64)
    world = torch.cat([axis_angle_to_matrix(turns), torch.randn(6, 3, 1, generator=generator).double()], dim=2)
    if mirrored:
        world[:, :, 2] *= -1
    rows = [[float(f"{value:.{digits}f}") for value in pose] for pose in world.reshape(6, 12).tolist()]
    path = tmp_path_factory.mktemp("files") / "path.json"
    path.write_text(json.dumps(rows))
    for trajectory in (read_path(path).sample(frames), relative_to(read_path(path).sample(frames), 0)):
        rotation = trajectory.world_to_camera[:, :, :3]
        assert (rotation @ rotation.mT - torch.eye(3, dtype=torch.float64)).abs().max() < 1e-6
    assert (torch.linalg.det(rotation) - 1).abs().max() < 1e-6


def test_a_mirrored_file_and_its_proper_twin_are_one_path(tmp_path: Path) -> None:
    twin = preset_path("look_left", extent=1.2).sample(8).world_to_camera
    mirror = torch.diag(torch.tensor([1.0, 1.0, -1.0, 1.0], dtype=torch.float64))
    for name, content in (("proper", twin), ("mirrored", twin @ mirror)):
        (tmp_path / f"{name}.json").write_text(json.dumps(content.reshape(8, 12).tolist()))
    both = [relative_to(read_path(tmp_path / f"{name}.json").sample(20), 3) for name in ("proper", "mirrored")]
    torch.testing.assert_close(both[0].world_to_camera, both[1].world_to_camera)
    described = choose({"file": str(tmp_path / "mirrored.json"), "condition_frame": 3}, frames=20, extent=None)
    assert torch.equal(described.world_to_camera, both[1].world_to_camera)


def test_names_take_an_extent_and_files_a_factor(tmp_path: Path) -> None:
    assert poses("pan_right")[-1, 0, 3] == PRESETS["pan_right"].extent
    assert poses("pan_right", extent=3.0)[-1, 0, 3] == 3
    write(tmp_path / "path.txt", preset_path("pan_right", extent=2.0).sample(4))
    for extent, moved in ((None, 2.0), (1.5, 3.0)):
        assert poses(str(tmp_path / "path.txt"), 16, extent)[-1, 0, 3] == pytest.approx(moved)


def test_sums_move_and_turn_at_once() -> None:
    both = poses("zoom_in+look_left", extent=0.4)
    torch.testing.assert_close(both[:, :3, 3], poses("zoom_in", extent=0.4)[:, :3, 3])
    torch.testing.assert_close(both[:, :3, :3], poses("look_left", extent=0.4)[:, :3, :3])


def test_edits() -> None:
    straight = torch.linspace(0, 1, 9, dtype=torch.float64)

    def travelled(**edits: object) -> Tensor:
        return poses({"preset": "zoom_in", "extent": 1.0, **edits})[:, 2, 3]

    torch.testing.assert_close(travelled(reverse=True), 1 - straight)
    torch.testing.assert_close(travelled(part=[0.5, 0.75]), 0.5 + 0.25 * straight)
    torch.testing.assert_close(travelled(speed=0.5), straight / 2)
    torch.testing.assert_close(travelled(speed=2), (2 * straight).clamp(max=1))
    torch.testing.assert_close(travelled(scale=3), 3 * straight)
    loop = torch.tensor([0, 0.25, 0.5, 0.75, 1, 0.75, 0.5, 0.25, 0], dtype=torch.float64)
    torch.testing.assert_close(travelled(loop=True), loop)
    torch.testing.assert_close(travelled(loop=True, speed=2), torch.cat([loop[::2], loop[2::2]]))
    eased = travelled(ease="published")
    torch.testing.assert_close(eased, travelled(ease=[0.5, 0.5]))
    torch.testing.assert_close(eased, travelled(ease=[0.5, 0, 0.5, 1]))
    assert eased[1] < straight[1]
    assert eased[4] == pytest.approx(0.5)
    assert torch.equal(travelled(ease="linear"), travelled())


def test_a_sequence_goes_on_where_it_stopped() -> None:
    path = poses(
        {"sequence": [{"preset": "look_left", "extent": math.pi / 2, "share": 1}, {"preset": "zoom_in", "share": 3}]}
    )
    torch.testing.assert_close(path[2, :3, 3], torch.zeros(3, dtype=torch.float64))
    # It faces left, where its ahead is.
    torch.testing.assert_close(path[-1, :3, 3], torch.tensor([-0.5, 0, 0], dtype=torch.float64))
    torch.testing.assert_close(path[5, :3, 3], torch.tensor([-0.25, 0, 0], dtype=torch.float64))


@pytest.mark.parametrize("interpolation", ["linear", "smooth"])
def test_key_frames_are_passed_on_time(interpolation: str) -> None:
    keys = [
        {"at": 0},
        {"at": 0.25, "position": [0, 0, 1], "yaw_degrees": 30, "zoom": 2},
        {"at": 0.5, "position": [1, 0, 1], "look_at": [1, 0, 5]},
        {"at": 1, "position": [1, -1, 1], "pitch_degrees": -20, "roll_degrees": 5, "zoom": 0.5},
    ]
    description = {"keyframes": keys, "interpolation": interpolation}
    path = open_path(description, extent=None).path.at(torch.linspace(0, 1, 41, dtype=torch.float64))
    found = path.camera_to_world[[0, 10, 20, 40]]
    wanted = torch.tensor([[0, 0, 0], [0, 0, 1], [1, 0, 1], [1, -1, 1]], dtype=torch.float64)
    torch.testing.assert_close(found[:, :3, 3], wanted)
    torch.testing.assert_close(found[1, :3, 2], torch.tensor([0.5, 0, 0.75**0.5], dtype=torch.float64))
    torch.testing.assert_close(found[2, :3, :3], torch.eye(3, dtype=torch.float64))
    assert found[3, 1, 2] == pytest.approx(math.sin(math.radians(20))), "looks down"
    torch.testing.assert_close(path.zoom[[0, 10, 20, 40]], torch.tensor([1, 2, 1, 0.5], dtype=torch.float64))
    rotation = path.camera_to_world[:, :3, :3]
    assert (rotation @ rotation.mT - torch.eye(3, dtype=torch.float64)).abs().max() < 1e-12
    jumps = path.camera_to_world[:, :3, 3].diff(dim=0).diff(dim=0).norm(dim=1).max()
    assert (jumps < 0.04) == (interpolation == "smooth")


def test_descriptions_in_files_and_on_the_command_line_agree(tmp_path: Path) -> None:
    write(tmp_path / "walk.txt", preset_path("pan_right").sample(5))
    node = {"mix": [{"file": "walk.txt", "scale": 2.0}, {"preset": "handheld", "seed": 3}], "frames": 6}
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(node))
    (tmp_path / "b.json").write_text(json.dumps(node))
    inline = "{mix: [{file: %s, scale: 2.0}, {preset: handheld, seed: 3}]}" % (tmp_path / "walk.txt")
    paths = [poses(source) for source in (tmp_path / "a.yaml", str(tmp_path / "b.json"), inline)]
    assert torch.equal(paths[0], paths[1])
    assert torch.equal(paths[0], paths[2])
    assert len(open_path(tmp_path / "a.yaml", extent=None).sample(None, default_frames=16).world_to_camera) == 6


def test_the_condition_frame_is_the_origin_anywhere() -> None:
    path = choose({"preset": "dolly_zoom_in", "condition_frame": 4}, frames=9, extent=None)
    plain = choose("dolly_zoom_in", frames=9, extent=None)
    assert torch.equal(path.world_to_camera[4], torch.eye(4, dtype=torch.float64)[:3])
    assert path.zoom is not None
    assert path.zoom[4] == 1
    frame = torch.tensor([4])
    torch.testing.assert_close(
        relative_poses(path.world_to_camera[None], frame), relative_poses(plain.world_to_camera[None], frame)
    )


def test_speed_along_a_file(tmp_path: Path) -> None:
    """Cameras at 0, 1 and 4 along z, the last after 8 of 9 seconds."""
    lines = [f"{time} 0 0 {z} 0 0 0 1" for time, z in ((5, 0), (13, 1), (14, 4))]
    (tmp_path / "path.tum").write_text("\n".join(lines))
    for timing, wanted in (
        ("frames", [0, 0.5, 1, 2.5, 4]),
        ("times", [0, 0.28125, 0.5625, 0.84375, 4]),
        ("even", [0, 1, 2, 3, 4]),
    ):
        moved = poses({"file": str(tmp_path / "path.tum"), "timing": timing}, 5)[:, 2, 3]
        assert moved.tolist() == pytest.approx(wanted), timing


def test_published_interpolation_shrinks_rotations(tmp_path: Path) -> None:
    write(tmp_path / "turn.json", preset_path("look_left", extent=1.0).sample(2))
    for interpolation, rigid in (("so3", True), ("published", False)):
        rotation = poses({"file": str(tmp_path / "turn.json"), "interpolation": interpolation}, 3)[1, :3, :3]
        assert torch.allclose(rotation @ rotation.T, torch.eye(3, dtype=torch.float64)) == rigid


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("zoom", r"trajectory=zoom: neither a file nor a preset.*static, zoom_in"),
        ("orbitleft", r"did you mean orbit_left"),
        ("none.txt", r"trajectory file none.txt does not exist; a path is read from realestate10k"),
        ("clip.mp4", r"a video; lift its path first: cami2v trajectory source=clip.mp4 output=clip.txt"),
        ("{mix: [", r"not YAML"),
        (
            {"mix": ["zoom_in", {"preset": "look_left", "extnet": 3}]},
            r"trajectory.mix\[1\]: has no key 'extnet'.*'extent'",
        ),
        ({"preset": "zoom_in", "mix": []}, "has preset and mix of"),
        ({"loop": True}, "has none of preset, file"),
        ({"mix": []}, "trajectory.mix: got .*expected a list"),
        ({"preset": "zoom_in", "speed": 0}, "speed=0.0: choose a number above 0"),
        ({"preset": "zoom_in", "loop": "yes"}, "trajectory.loop: got 'yes', expected true or false"),
        ({"preset": "zoom_in", "ease": "bouncy"}, "trajectory.ease: got 'bouncy', expected one of linear, ease_in"),
        ({"preset": "zoom_in", "ease": [2, 0]}, r"ease=\[2.0, 0.0, 0.0, 1.0\]: choose numbers from 0 to 1"),
        ({"preset": "zoom_in", "part": [0, 2]}, "part=.*from 0 .its start. to 1"),
        ({"preset": "zoom_in", "extent": float("nan")}, "trajectory.extent: got nan, expected a finite number"),
        ({"preset": "zoom_in", "condition_frame": 99}, "condition_frame=99: the path has frames 0 to 8"),
        ({"keyframes": [{"at": 0}]}, "1 key-frames; give two or more"),
        ({"keyframes": [{"at": 0.5}, {"at": 0.5}]}, "their times must rise"),
        ({"keyframes": [{"at": 0}, {"position": [0, 0, 1]}]}, r"trajectory.keyframes\[1\]: has no at"),
        (
            {"keyframes": [{"at": 0}, {"at": 1, "look_at": [0, 0, 0]}]},
            r"keyframes\[1\].*look_at: a camera at its target",
        ),
        ({"keyframes": [{"at": 0}, {"at": 1, "look_at": [0, 0, 1], "yaw_degrees": 3}]}, "look_at and angles"),
        ({"sequence": [{"preset": "zoom_in", "share": -1}]}, "share: got"),
        ({"file": "a.txt", "format": "abc"}, "trajectory.format: got 'abc', expected one of realestate10k"),
        ({"mix": [3]}, r"trajectory.mix\[0\]: got 3, expected a name or a mapping"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(source: object, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message) as raised:
        poses(source)
    assert "\n" not in str(raised.value)
    path = tmp_path / "description.yaml"
    if not isinstance(source, str):
        path.write_text(yaml.safe_dump(source))
        with pytest.raises(ValueError, match=message.removeprefix("trajectory")):
            poses(path)


def test_a_bomb_of_references_is_refused(tmp_path: Path) -> None:
    lines = [
        "a: &a [zoom_in]",
        *(f"{new}: &{new} [{', '.join([f'*{old}'] * 10)}]" for old, new in itertools.pairwise("abcdefgh")),
    ]
    (tmp_path / "bomb.yaml").write_text("\n".join(lines))
    with pytest.raises(ValueError, match="more than 10000 values"):
        poses(tmp_path / "bomb.yaml")
    deep = {"mix": ["zoom_in"]}
    for _ in range(40):
        deep = {"mix": [deep]}  # type: ignore[list-item]
    with pytest.raises(ValueError, match="paths within each other"):
        poses(deep)


def test_wrong_outputs_are_refused(tmp_path: Path) -> None:
    path = preset_path("zoom_in").sample(4)
    with pytest.raises(ValueError, match=r"output=.*a.csv: the name is no format that is written"):
        write(tmp_path / "a.csv", path)
    mirrored = Trajectory(
        world_to_camera=path.world_to_camera * torch.tensor([1, 1, -1, 1]), intrinsics_normalized=None
    )
    with pytest.raises(ValueError, match="relative to one of its frames"):
        write(tmp_path / "a.tum", mirrored)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "described",
    [
        {"file": "{path}"},
        {"mix": ["zoom_in", {"file": "{path}"}]},
        {"sequence": [{"preset": "zoom_in"}, "{path}"]},
        {"mix": ["zoom_in+{path}"]},
    ],
)
def test_a_description_that_was_handed_in_names_no_files(tmp_path: Path, described: dict[str, Any]) -> None:
    path = tmp_path / "path.txt"
    pose = " ".join(["0 0.5 0.8 0.5 0.5 0 0", *"100001000010"])
    path.write_text(f"https://example.org\n{pose}\n{pose}\n")
    text = json.dumps(described).replace("{path}", str(path))
    if "+" not in text:
        open_path(json.loads(text), extent=None)
    with pytest.raises(ValueError, match=r"must not|unknown"):
        open_path(json.loads(text), extent=None, files=False)
    open_path({"mix": ["zoom_in+look_left", {"preset": "static"}]}, extent=None, files=False)

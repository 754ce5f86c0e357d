"""`cami2v trajectory` as a user types it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cami2v.geometry.pose_files import motionctrl, realestate10k, transforms
from cami2v.trajectories.presets import PRESETS, preset_path
from cami2v.video import read_frames
from launch.trajectory import main


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path):
    """Run the command in an empty folder; return what it printed."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["cami2v trajectory", *arguments])
        main()
        return capsys.readouterr().out

    return run


def test_without_a_source_the_presets_are_listed(command) -> None:
    lines = command().splitlines()
    assert [line.split()[0] for line in lines[1 : len(PRESETS) + 1]] == list(PRESETS)


def test_a_path_is_made_edited_converted_and_described(command, tmp_path: Path) -> None:
    printed = command("source=pan_right", "extent=2.0", "frames=5", "edit.loop=true", "output=there/path.txt")
    assert "frames       5\n" in printed
    assert "farthest     2 from the first camera" in printed
    assert "written      there/path.txt (realestate10k)" in printed
    written = realestate10k.read(tmp_path / "there" / "path.txt")
    np.testing.assert_allclose(written.world_to_camera[:, 0, 3], [0, -1, -2, -1, 0], atol=1e-12)
    assert written.times_seconds is not None
    np.testing.assert_allclose(written.times_seconds, np.arange(5) / 8)
    command("source=there/path.txt", "condition_frame=2", "output=transforms.json", "width=640", "height=480")
    moved = transforms.read(tmp_path / "transforms.json")
    assert moved.size == (480, 640)
    np.testing.assert_allclose(moved.world_to_camera[2], np.eye(4)[:3], atol=1e-12)
    np.testing.assert_allclose(moved.world_to_camera[:, 0, 3], [2, 1, 0, 1, 2], atol=1e-12)
    command("source={mix:[pan_right,{preset:look_left,extent:0.1}]}", "frames=3", "output=both.json")
    both = motionctrl.read(tmp_path / "both.json")
    assert both.world_to_camera[2, 0, 2] == pytest.approx(np.sin(0.1))
    command("source=transforms.json", "format=transforms", "output=back.json", "output_format=motionctrl")
    assert len(json.loads((tmp_path / "back.json").read_text())) == 5


def test_a_preview_without_a_display(command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    pixels = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "room.png")
    np.save(tmp_path / "depth.npy", np.full((20, 30), 2.0, np.float32))
    wanted = ["preview.output=look", "preview.image=room.png", "frames=4"]
    printed = command("source=static", *wanted, "preview.depth_map=depth.npy")
    assert {path.name for path in (tmp_path / "look").iterdir()} == {
        "static-path.png", "static-scene.html", "static-warp.mp4",
    }  # fmt: skip
    assert "look/static-warp.mp4" in printed
    frames = read_frames(tmp_path / "look" / "static-warp.mp4")
    assert frames.shape == (4, 40, 60, 3)
    assert np.abs(frames[3].mean((0, 1)) - pixels.mean((0, 1))).max() < 4
    assert "a wall at 1" in command("source=zoom_in", *wanted)
    network = command("source=zoom_in", *wanted, "depth=tiny", "depth_weights=random", "device=cpu")
    assert "a wall" not in network


def test_a_lifted_video_is_a_path_like_others(command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cami2v.trajectories.lift import LiftedPath
    from launch import trajectory
    from tests.cami2v.trajectories.test_lift import QUALITY

    def lift(video: Path, estimator: object, **how: object) -> LiftedPath:
        assert how == {"frames": 6, "short_side": 480, "seed": 0, "field_of_view_degrees": 70.0}
        path = preset_path("orbit_left").sample(6)
        return LiftedPath(trajectory=path, frame_numbers=tuple(range(6)), size=(48, 64), quality=QUALITY)

    monkeypatch.setattr(trajectory, "lift", lift)
    printed = command(
        "source=walk.mp4", "lift.frames=6", "field_of_view_degrees=70", "edit.reverse=true", "output=a.json"
    )
    assert "lifted       from frames 0 to 5, 99 points, 0.5 pixels off\n" in printed
    lifted = motionctrl.read(tmp_path / "a.json").world_to_camera
    np.testing.assert_allclose(lifted[::-1], preset_path("orbit_left").sample(6).world_to_camera, atol=1e-12)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["source=orbitleft"], "trajectory=orbitleft: neither a file nor a preset (did you mean orbit_left?)"),
        (["source=zoom_in", "edit.speeed=2"], "edit.speeed=2: no such key; did you mean"),
        (["source=zoom_in", "edit.speed=-1"], "speed=-1.0: choose a number above 0"),
        (["source=zoom_in", "edit.ease=bouncy"], "edit.ease: got 'bouncy'"),
        (["source=zoom_in", "frames=0"], "frames=0: must be above 0"),
        (["source=zoom_in", "condition_frame=16"], "condition_frame=16: the path has frames 0 to 15"),
        (["source=zoom_in", "output=a.csv"], "output=a.csv: the name is no format that is written"),
        (["source=dolly_zoom_in", "output=a.json"], "the focal length changes along this path"),
        (["source=zoom_in", "preview.image=a.png"], "preview.image=a.png: without preview.output"),
        (["source=zoom_in", "preview.output=look", "preview.image=a.png"], "image=a.png: no such file"),
        (["source=walk.mp4"], "walk.mp4: no such video file"),
    ],
)
def test_a_wrong_call_ends_with_2_and_one_line(
    overrides: list[str], message: str, command, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with pytest.raises(SystemExit) as stopped:
        command(*overrides)
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []

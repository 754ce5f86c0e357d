"""`cami2v sample` of a shard set's clips, and through their depth."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from cami2v.geometry.cameras import relative_poses
from cami2v.inference.model_facts import Defaults
from cami2v.inference.output import read_text
from cami2v.inference.record import Record
from cami2v.trajectories.trajectory import scaled
from cami2v.video import read_frames
from launch.compose import compose_config
from launch.sample import run
from launch.sample_clips import ClipsOfShards
from tests.data_pipeline.raw_folders import clips_folder, pack_quietly
from tests.launch.untrained import random_run

FRAMES, SIZE = 4, 32


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    pack_quietly(
        clips_folder(folder / "raw", clips=4, frames=12, splits=["train", "test", "test", "test"]), folder / "set"
    )
    return folder / "set"


def test_clips_are_animated_along_their_own_cameras_beside_their_true_videos(
    shards: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoint = random_run(
        tmp_path / "run",
        [f"data.frames={FRAMES}", f"data.resolution=[{SIZE},{SIZE}]", "data.frame_stride=2", "sampler.steps=3"],
    )
    out, names = tmp_path / "out", ClipsOfShards(str(shards), "test", 3).names
    chosen = [
        f"checkpoint={checkpoint}", f"data.shards={shards}", f"clips=[{names[2]},{names[0]}]", f"output={out}",
        "trajectory=[own,pan_left]", "noise_shaping=300", "metres_per_unit=2", "depth=tiny", "depth_weights=random",
        "side_by_side=false",
    ]  # fmt: skip
    run(compose_config("sample", chosen))
    assert {path.name for path in out.iterdir()} == {
        f"{name}-{kind}.mp4" for name in (names[0], names[2]) for kind in ("own-seed0", "pan_left-seed0", "grid")
    }
    grid = read_frames(out / f"{names[2]}-grid.mp4")
    assert grid.shape[0] == FRAMES
    assert 3 * 192 < grid.shape[2] < 4 * 192, "the true video, and two generated ones"
    defaults = Defaults(frames=FRAMES, height=SIZE, width=SIZE, frame_stride=2, scale_policy="relative")
    clip = ClipsOfShards(str(shards), "test", 3).read(
        defaults, frames=None, resolution=None, frame_stride=None, condition_frame=0
    )[names[2]]
    left = grid.shape[2] - 3 * 196
    shown = grid[:, -196:-4, left : left + 192].reshape(FRAMES, SIZE, 6, SIZE, 6, 3).mean(axis=(2, 4))
    assert np.abs(shown - clip.truth).mean() < 3
    video = out / f"{names[2]}-own-seed0.mp4"
    record = Record.from_json(read_text(video), video)
    made = record.request.path()
    assert made.intrinsics_normalized is not None
    start = torch.zeros(1, dtype=torch.int64)
    ours, theirs = (relative_poses(each.world_to_camera[None], start) for each in (made, scaled(clip.path, 2.0)))
    torch.testing.assert_close(ours, theirs)
    assert record.request.metres_per_unit == 2, "of which the model is given the half: its own unit"
    assert record.request.frame_stride == 2
    assert record.request.caption == clip.caption != ""
    assert record.depth is not None
    with caplog.at_level(logging.INFO):
        run(compose_config("sample", [f"replay={video}", f"output={tmp_path}", "side_by_side=true"]))
    assert "the frames are identical" in caplog.text
    panels = read_frames(tmp_path / f"{video.stem}-replay-side-by-side.mp4")
    assert panels.shape[2] == 4 * 192 + 3 * 4, "image, scene, video, path"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["clips=5"], "clips=5: .* split test has 3"),
        (["clips=[nobody]"], "clips: nobody is not in .* split test, which has 3 clips"),
        (["split=nowhere"], "nowhere"),
        (["image=room.png"], "data.shards, image, jobs: got several"),
        (["depth_map=depth.npy"], "depth_map=depth.npy: only noise_shaping uses it"),
        (["depth=tiny"], "depth: only noise_shaping uses a depth network"),
        (["depth_map=depth.npy", "noise_shaping=900"], "depth file depth.npy: no such file"),
    ],
)
def test_wrong_clips_and_depths_are_named(shards: Path, tmp_path: Path, overrides: list[str], message: str) -> None:
    places = ["checkpoint=nowhere", f"data.shards={shards}", f"output={tmp_path / 'out'}", "clips=1"]
    with pytest.raises(ValueError, match=message):
        run(compose_config("sample", [*places, *overrides]))
    assert not (tmp_path / "out").exists()
